"""The linear layer from features to logits."""

from __future__ import annotations

import flax.linen as nn
from jax import Array

from jaxcrnn.kernels.dense_head import dense_logits
from jaxcrnn.kernels.logits import Logits
from jaxcrnn.kernels.mesh_ops import LOCAL, Ops


class LinearHead(nn.Module):
    """A linear layer whose logits are materialized or, if fused, computed on demand.

    ``__call__(x [B,T,D]) -> logits``, a float32 array ``[B,T,C]`` or a type of `jaxcrnn.kernels.logits`.

    Attributes:
      classes: number of classes C.
      fused: compute the logits chunk by chunk where they are queried (`jaxcrnn.kernels.logits`).
      ops: implementation of sharded operations (`jaxcrnn.kernels.mesh_ops`).
    """

    classes: int
    fused: bool
    ops: Ops = LOCAL

    @nn.compact
    def __call__(self, x: Array) -> Logits:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[2], self.classes))
        bias = self.param("bias", nn.initializers.zeros, (self.classes,))
        narrow = kernel.astype(x.dtype)
        if self.fused:
            return self.ops.logits(x, narrow, bias)
        # Flatten all frames into one axis: with two, the kernel's gradient takes XLA three times as long on CPU.
        return dense_logits(x.reshape(-1, x.shape[2]), narrow, bias).reshape(*x.shape[:2], -1)
