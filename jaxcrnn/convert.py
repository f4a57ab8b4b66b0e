"""Conversion of weights between Flax and PyTorch, as dicts of numpy arrays; torch is never imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcrnn.errors import UserError


def from_torch(state_dict: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Convert the state dict of ``torch_ref.model.CRNN`` to Flax variables.

    Convolution kernels are transposed from ``[out,in,h,w]`` to ``[h,w,in,out]``, and matrices are transposed. The two
    biases of torch's LSTM are added, and its directions are stacked. Both pack the gates as i, f, g, o. The running
    variance of ``torch_ref`` is the biased one, as in flax; torch's own BatchNorm keeps the unbiased one.

    Args:
      state_dict: arrays by name; dtypes are kept.

    Returns:
      ``{"params": ..., "batch_stats": ...}``.

    Raises:
      UserError: If a name is missing or unexpected.
    """
    left = {name: np.asarray(value) for name, value in state_dict.items()}
    params: dict[str, Any] = {"backbone": {}}
    stats: dict[str, Any] = {}

    def take(name: str) -> np.ndarray:
        if name not in left:
            raise UserError(f"the state dict is missing {name}; it has {', '.join(sorted(state_dict)[:8])} ...")
        return left.pop(name)

    for layer in sorted({name.split(".")[1] for name in left if name.startswith("backbone.")}):
        prefix = f"backbone.{layer}."
        if layer.startswith("norm"):
            params["backbone"][layer] = {"scale": take(prefix + "weight"), "bias": take(prefix + "bias")}
            stats[layer] = {"mean": take(prefix + "running_mean"), "var": take(prefix + "running_var")}
        else:
            params["backbone"][layer] = {"kernel": take(prefix + "weight").transpose(2, 3, 1, 0)}
            if prefix + "bias" in left:
                params["backbone"][layer]["bias"] = take(prefix + "bias")
    for lstm in ("lstm0", "lstm1"):
        ends = [f"{lstm}.{{}}_l0", f"{lstm}.{{}}_l0_reverse"]
        params[lstm] = {
            "kernel_x": np.stack([take(end.format("weight_ih")).T for end in ends]),
            "kernel_h": np.stack([take(end.format("weight_hh")).T for end in ends]),
            "bias": np.stack([take(end.format("bias_ih")) + take(end.format("bias_hh")) for end in ends]),
        }
    params["head"] = {"kernel": take("head.weight").T, "bias": take("head.bias")}
    if left:
        raise UserError(f"the state dict has unexpected names: {', '.join(sorted(left)[:8])}")
    return {"params": params, "batch_stats": {"backbone": stats} if stats else {}}


def to_torch(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Convert Flax variables to the state dict of ``torch_ref.model.CRNN``, the inverse of `from_torch`.

    The second bias of each LSTM is zero.

    Args:
      variables: ``{"params": ..., "batch_stats": ...}``.

    Returns:
      Arrays by name.
    """
    params = variables["params"]
    out: dict[str, np.ndarray] = {}
    for layer, values in params["backbone"].items():
        prefix = f"backbone.{layer}."
        if layer.startswith("norm"):
            stats = variables["batch_stats"]["backbone"][layer]
            out |= {prefix + "weight": values["scale"], prefix + "bias": values["bias"]}
            out |= {prefix + "running_mean": stats["mean"], prefix + "running_var": stats["var"]}
        else:
            out[prefix + "weight"] = np.asarray(values["kernel"]).transpose(3, 2, 0, 1)
            if "bias" in values:
                out[prefix + "bias"] = values["bias"]
    for lstm in ("lstm0", "lstm1"):
        for k, end in enumerate(("_l0", "_l0_reverse")):
            out[f"{lstm}.weight_ih{end}"] = np.asarray(params[lstm]["kernel_x"][k]).T
            out[f"{lstm}.weight_hh{end}"] = np.asarray(params[lstm]["kernel_h"][k]).T
            out[f"{lstm}.bias_ih{end}"] = np.asarray(params[lstm]["bias"][k])
            out[f"{lstm}.bias_hh{end}"] = np.zeros_like(out[f"{lstm}.bias_ih{end}"])
    out |= {"head.weight": np.asarray(params["head"]["kernel"]).T, "head.bias": params["head"]["bias"]}
    return {name: np.ascontiguousarray(value) for name, value in out.items()}
