"""Record the numbers that the tests of the losses compare with.

python scripts/make_golden.py ops tests/core/golden/ops.npz
    The results of torch_ref for the first step of the parity ladder, in float64. Requires PyTorch.

python scripts/make_golden.py originals FOLDER tests/core/golden/originals.npz
    A sample of the original programs' outputs from the full recordings flow1_tf_torch.npz and flow2_paddle.npz in
    FOLDER, small enough to be stored with the tests. All values are copied unchanged.
"""

import argparse
from pathlib import Path

import numpy as np

# Of PaddleOCR's losses: one sample that is read exactly and one that is not, and of the gradients every sixth frame.
SAMPLES = (2, 3)
EVERY = 6
LOSSES = ("ctc", "focal_ctc", "ace")


def record_ops(path: Path) -> None:
    """Answer the ladder's lowest rung with torch_ref."""
    import jax
    import jax.numpy as jnp
    import torch

    from jaxcrnn.model import CRNN, ModelConfig
    from jaxcrnn.parity import ladder
    from jaxcrnn.parity.answers import OPS
    from torch_ref import answers

    model = ModelConfig("small", 2, 0.0, num_classes=4)
    variables = CRNN(model).init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)), jnp.full((1,), 32, jnp.int32))
    task = ladder.make_task(model, variables, presets=(), optimizers=(), seed=1)
    task = {name: task[name] for name in (*OPS, "task")}
    tensors = {name: torch.tensor(task[name]) for name in OPS}
    out = {f"answer/ops/{name}": value for name, value in answers.ops(tensors, 0).items()}
    np.savez_compressed(path, **{f"task/{name}": value for name, value in task.items()}, **out)
    print(f"{path}: {len(out)} arrays")


def sample_flow_one(full: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Keep the features of the frames that emit, and what was recorded for each such frame for every third one.

    No recorded number depends on the features of other frames, which become 0.
    """
    emitting = full["tf_samples"], full["tf_frames"]
    features = np.zeros_like(full["features"])
    features[emitting] = full["features"][emitting]
    kept = np.arange(0, len(full["tf_labels"]), 3)
    rows = {name: full[name][kept] for name in full if name.endswith(("charfeatures", "charfeatures_from_zeros"))}
    return full | rows | {"features": features, "kept": kept}


def sample_flow_two(full: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Keep what center and estimate depend on for all samples, and the losses and gradients of `SAMPLES`."""
    samples = np.asarray(SAMPLES)
    raw_pred = full["logits"].argmax(-1)
    seen = np.isin(np.arange(len(full["centers"])), raw_pred)
    frames = np.arange(0, raw_pred.shape[1], EVERY)
    whole = ("features", "labels", "label_lengths", "center", "estimate_classes", "estimate_means", "estimate_counts")
    sample = {name: full[name] for name in whole}
    sample |= {
        "raw_pred": raw_pred,  # all that center and estimate need of the logits
        "samples": samples,
        "frames": frames,
        "logits": full["logits"][samples],
        "centers": np.where(seen[:, None], full["centers"], 0),
        "center_dfeatures": full["center_dfeatures"][samples][:, frames],
    }
    for name in LOSSES:
        sample[name] = full[name].reshape(-1)[samples]
        gradient = full[f"{name}_mean_dlogits"]
        sample[f"{name}_mean_dlogits"] = gradient[samples][:, frames]
        sample[f"{name}_largest"] = np.abs(gradient).max()  # by which errors are measured
    return sample


def sample_originals(folder: Path, path: Path) -> None:
    """Sample the full recordings of both flows."""
    out = {}
    for flow, recording, sample in (
        ("flow1", "flow1_tf_torch", sample_flow_one),
        ("flow2", "flow2_paddle", sample_flow_two),
    ):
        with np.load(folder / f"{recording}.npz") as file:
            out |= {f"{flow}/{key}": _narrow(value) for key, value in sample(dict(file)).items()}
    np.savez_compressed(path, **out)
    print(f"{path}: {len(out)} arrays, {path.stat().st_size:,} bytes")


def _narrow(value: np.ndarray) -> np.ndarray:
    return value.astype(np.int32) if value.dtype == np.int64 else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    ops = commands.add_parser("ops", help="record the answers of torch_ref to the operations")
    originals = commands.add_parser("originals", help="sample the recordings of the original programs")
    originals.add_argument("folder", type=Path, help="folder with flow1_tf_torch.npz and flow2_paddle.npz")
    for command in (ops, originals):
        command.add_argument("out", type=Path, help="file to write (.npz)")
    args = parser.parse_args()
    if args.command == "ops":
        record_ops(args.out)
    else:
        sample_originals(args.folder, args.out)


if __name__ == "__main__":
    main()
