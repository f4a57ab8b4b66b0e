"""The class-sharded fused head: each device scans its own classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcrnn.kernels.chunked_head import Scan, best_of, gradient, product, scan_chunks
from jaxcrnn.kernels.dtypes import at_least_float32
from jaxcrnn.kernels.logits import FusedLogits
from jaxcrnn.parallel.mesh import MODEL, axes_of
from jaxcrnn.parallel.sharded_centers import SharedFeatures, own_rows


class Copies(NamedTuple):
    """A head and its input, with one copy for each device that would otherwise share them.

    The gradients of the copies are added once, after all uses of the head. Otherwise the softmax's part of the kernel's
    gradient and the label's part would be all-reduced separately.

    Attributes:
      features: ``[model,B,T,D]``, sharded over both axes.
      kernel: ``[data,D,C]``, sharded over both axes; padded until ``model`` divides the number of classes.
      bias: ``[data,C]``, -inf in the padding.
    """

    features: Array
    kernel: Array
    bias: Array


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["features", "copies", "norm", "top", "top_logits"],
    meta_fields=["mesh", "num_classes"],
)
@dataclass(frozen=True)
class ShardedLogits(FusedLogits):
    """Logits of a fused head whose classes a mesh shards. See `sharded` and `jaxcrnn.kernels.logits.LogitsLike`.

    Attributes:
      features: ``[B,T,D]``, the head's input.
      copies: one copy of the head for each device.
      norm: ``[B,T]``, log of the softmax's denominator; differentiable in the copies.
      top: ``[B,T,3]`` int32, the most probable classes in descending order.
      top_logits: ``[B,T,3]``, their logits.
      mesh: the device mesh.
      num_classes: number of classes C.
    """

    features: Array
    copies: Copies
    norm: Array
    top: Array
    top_logits: Array
    mesh: Mesh
    num_classes: int

    def of_classes(self, classes: Array) -> Array:
        def part(each: Copies, classes: Array) -> Array:
            here, at = own_rows(classes, each.kernel.shape[2], MODEL)
            logits = product("btd,dbk->btk", each.features[0], each.kernel[0][:, at])
            return jnp.where(here[:, None, :], logits + at_least_float32(each.bias[0])[at][:, None, :], 0.0)[None]

        return _mapped(self.mesh, part, len(classes), 1, lambda data, model: P(model, data))(self.copies, classes).sum(
            0
        )

    def of_frames(self, classes: Array) -> Array:
        def part(each: Copies, classes: Array) -> Array:
            here, at = own_rows(classes, each.kernel.shape[2], MODEL)
            logits = product("btd,btd->bt", each.features[0], each.kernel[0].T[at])
            return jnp.where(here, logits + at_least_float32(each.bias[0])[at], 0.0)[None]

        return _mapped(self.mesh, part, len(classes), 1, lambda data, model: P(model, data))(self.copies, classes).sum(
            0
        )

    def center_features(self, features: Any) -> Any:
        # The table of centers is replicated if the devices do not divide the number of classes.
        if self.num_classes % self.mesh.shape[MODEL]:
            return features
        return SharedFeatures(self.features, self.copies.features)


def sharded(mesh: Mesh, features: Array, kernel: Array, bias: Array) -> ShardedLogits:
    """Build the logits of a linear head with one pass over its classes, each device over its own.

    Args:
      mesh: mesh whose axis ``model`` has more than one device.
      features: ``[B,T,D]`` float32 or bfloat16; sums are float32.
      kernel: ``[D,C]``.
      bias: ``[C]``.
    """
    copies = _copies(mesh, features, kernel, bias)
    norm, top, top_logits = (a.reshape(*features.shape[:2], *a.shape[1:]) for a in _scan(mesh, copies))
    return ShardedLogits(features, copies, norm, top, top_logits, mesh, kernel.shape[1])


def _copies(mesh: Mesh, features: Array, kernel: Array, bias: Array) -> Copies:
    data, model = axes_of(mesh, len(features))
    missing = -kernel.shape[1] % mesh.shape[MODEL]
    if missing:
        kernel = jnp.pad(kernel, ((0, 0), (0, missing)))
        bias = jnp.pad(bias, (0, missing), constant_values=-jnp.inf)

    def copied(array: Array, over: str | None, *rest: str | None) -> Array:
        many = jnp.broadcast_to(array[None], (mesh.shape[over] if over else 1, *array.shape))
        return lax.with_sharding_constraint(many, NamedSharding(mesh, P(over, *rest)))

    return Copies(copied(features, model, data), copied(kernel, data, None, model), copied(bias, data, model))


def _specs(data: str | None, model: str | None) -> Copies:
    return Copies(P(model, data), P(data, None, model), P(data, model))  # type: ignore[arg-type]


def _mapped(
    mesh: Mesh, part: Callable[..., Any], lines: int, more: int, out: Callable[[str | None, str | None], Any]
) -> Callable[..., Any]:
    """Map ``part(copies, *more)`` over the devices, each with its own copy and its rows of the ``more`` arrays."""
    data, model = axes_of(mesh, lines)
    # The types of shard_map cannot express that a gathered and merged result is equal on all devices of an axis.
    in_specs = (_specs(data, model), *(P(data),) * more)
    return jax.shard_map(part, mesh=mesh, in_specs=in_specs, out_specs=out(data, model), check_vma=False)


def _own(each: Copies) -> tuple[Array, Array, Array]:
    """Return the features ``[N,D]``, kernel and bias of this device."""
    return each.features.reshape(-1, each.features.shape[-1]), each.kernel[0], each.bias[0]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(mesh: Mesh, head: Copies) -> Scan:
    return _scan_shards(mesh, head)


def _scan_shards(mesh: Mesh, head: Copies) -> Scan:
    def part(each: Copies) -> Scan:
        norm, top, logits = scan_chunks(*_own(each))
        most = lax.pmax(lax.stop_gradient(norm), MODEL)
        norm = most + jnp.log(lax.psum(jnp.exp(norm - most), MODEL))
        top += lax.axis_index(MODEL) * each.kernel.shape[2]
        every = (lax.all_gather(a, MODEL, axis=1, tiled=True) for a in (top, logits))
        return Scan(norm, *best_of(*every))

    return _mapped(mesh, part, head.features.shape[1], 0, lambda data, _: P(data))(head)


def _scan_forward(mesh: Mesh, head: Copies) -> tuple[Scan, Any]:
    scan = _scan_shards(mesh, head)
    return scan, (head, scan.norm)


def _scan_backward(mesh: Mesh, saved: tuple[Copies, Array], d_scan: Scan) -> tuple[Copies]:
    head, norm = saved

    def part(each: Copies, norm: Array, weight: Array) -> Copies:
        d_features, d_kernel, d_bias = gradient(*_own(each), norm, weight)
        gradients = Copies(d_features.reshape(each.features.shape), d_kernel[None], d_bias[None])
        return Copies(*(d.astype(a.dtype) for d, a in zip(gradients, each, strict=True)))

    return (_mapped(mesh, part, head.features.shape[1], 2, _specs)(head, norm, d_scan.norm),)


_scan.defvjp(_scan_forward, _scan_backward)
