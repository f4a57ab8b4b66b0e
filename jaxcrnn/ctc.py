"""Connectionist temporal classification (Graves et al., 2006)."""

from __future__ import annotations

import jax.numpy as jnp
import optax
from jax import Array


def is_feasible(lengths: Array, labels: Array, label_lengths: Array) -> Array:
    """Whether each label fits its frames: one frame a character and one blank between repeats.

    Args:
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32; slots at ``l >= label_lengths[b]`` are ignored.
      label_lengths: ``[B]`` int32.

    Returns:
      ``[B]`` bool. The empty label is feasible at any length, 0 included.
    """
    slots = jnp.arange(1, labels.shape[1])
    repeats = (labels[:, 1:] == labels[:, :-1]) & (slots[None, :] < label_lengths[:, None])
    return label_lengths + repeats.sum(1, dtype=label_lengths.dtype) <= lengths


def ctc_loss(logits: Array, lengths: Array, labels: Array, label_lengths: Array, *, blank: int = 0) -> Array:
    """Negative log probability of the label, per sample: ``-log p(label | logits)``.

    The sum runs over all paths of ``lengths[b]`` frames that collapse to the label (Graves et al., 2006, eq. 3).

    Args:
      logits: ``[B,T,C]`` float32, before the softmax; frames at ``t >= lengths[b]`` are ignored.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32 class ids, never ``blank``; slots at ``l >= label_lengths[b]`` are ignored.
      label_lengths: ``[B]`` int32.
      blank: class of the blank.

    Returns:
      ``[B]`` float32 in nats. An infeasible sample (see `is_feasible`) gives 0 and a gradient of zero, as
      torch's ``zero_infinity=True`` does; count them with `is_feasible`.
    """
    feasible = is_feasible(lengths, labels, label_lengths)
    # optax gives an infeasible label about 1e5 and a misleading gradient, so it never sees one: these samples are
    # computed with an empty label, which is finite, and masked after.
    shown = jnp.where(feasible, label_lengths, 0)
    frame_padding = jnp.arange(logits.shape[1])[None, :] >= lengths[:, None]
    slot_padding = jnp.arange(labels.shape[1])[None, :] >= shown[:, None]
    clean = jnp.where(frame_padding[:, :, None], 0.0, logits.astype(jnp.float32))
    losses = optax.ctc_loss(
        clean, frame_padding.astype(jnp.float32), labels, slot_padding.astype(jnp.float32), blank_id=blank
    )
    # A log probability is never positive; float32 lets confident samples slip by a few 1e-6.
    return jnp.where(feasible, jnp.maximum(losses, 0.0), 0.0)
