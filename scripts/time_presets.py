"""Time of a step with each preset, relative to plain CTC, on random lines of one width.

python scripts/time_presets.py --config scripts/plates.yaml --classes 66 --width 128
"""

import argparse
import dataclasses
import statistics
import time

import jax
import numpy as np

from jaxcrnn import config as configs
from jaxcrnn.allocator import keep_freed_memory
from jaxcrnn.dispatch import jit_step
from jaxcrnn.objective import PRESETS, LossConfig
from jaxcrnn.train import TrainConfig, init_state
from jaxcrnn.types import Batch


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config")
    parser.add_argument("--classes", type=int, default=66)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--slots", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=12)
    args = parser.parse_args()
    config = configs.load(args.config)
    model = dataclasses.replace(config.model, num_classes=args.classes)
    rng, size = np.random.default_rng(0), config.data.batch_size
    batch = Batch(
        rng.uniform(-1, 1, (size, 32, args.width, 1)).astype(np.float32),
        np.full(size, args.width, np.int32),
        rng.integers(1, args.classes, (size, args.slots)).astype(np.int32),
        np.full(size, args.slots, np.int32),
    )
    key = jax.random.key(0)
    runs = {}
    for preset in PRESETS:
        loss = LossConfig(preset, start="normal" if preset == "flow2" else None)
        train = TrainConfig(model, loss, config.optim, config.augment)
        state = init_state(train, key)
        compiled = jit_step.lower(train, state, batch, key).compile()
        for _ in range(3):
            state, _ = compiled(train, state, batch, key)
        runs[preset] = (compiled, train, state)
    times: dict[str, list[float]] = {preset: [] for preset in runs}
    # Interleaved, so that whatever else the machine does meets every preset alike.
    for _ in range(args.rounds):
        for preset, (compiled, train, state) in runs.items():
            began = time.perf_counter()
            for _ in range(3):
                state, _ = compiled(train, state, batch, key)
            jax.block_until_ready(state)
            times[preset].append((time.perf_counter() - began) / 3)
            runs[preset] = (compiled, train, state)
    base = statistics.median(times["ctc"])
    for preset, values in times.items():
        middle = statistics.median(values)
        print(f"{preset:12} {middle * 1000:7.1f} ms  {middle / base:5.2f}  (least {min(values) * 1000:.1f} ms)")


if __name__ == "__main__":
    main()
