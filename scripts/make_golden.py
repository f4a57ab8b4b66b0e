"""Records what torch_ref answers to the lowest rung of the parity ladder, in float64: tests/core/golden/ops.npz.

python scripts/make_golden.py tests/core/golden/ops.npz
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import torch

from jaxcrnn.model import CRNN, ModelConfig
from jaxcrnn.parity import ladder
from jaxcrnn.parity.answers import OPS
from torch_ref import answers


def main(path: str) -> None:
    model = ModelConfig("small", 2, 0.0, num_classes=4)
    variables = CRNN(model).init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)), jnp.full((1,), 32, jnp.int32))
    task = ladder.make_task(model, variables, presets=(), optimizers=(), seed=1)
    task = {name: task[name] for name in (*OPS, "task")}
    given = {name: torch.tensor(task[name]) for name in OPS}
    out = {f"answer/ops/{name}": value for name, value in answers.ops(given, 0).items()}
    np.savez_compressed(path, **{f"task/{name}": value for name, value in task.items()}, **out)
    print(f"{path}: {len(out)} arrays")


if __name__ == "__main__":
    main(sys.argv[1])
