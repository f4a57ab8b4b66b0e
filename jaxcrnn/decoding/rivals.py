"""What else each character of a text may be: exact probabilities of other characters in its place."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn import ctc
from jaxcrnn._arguments import labelled
from jaxcrnn.decoding.lines import RIVALS
from jaxcrnn.kernels.logits import DenseLogits, Logits, as_logits


class Rivals(NamedTuple):
    """What else each character of a text may be.

    Attributes:
      confidence: ``[B,L]`` float32 in [0, 1], the probability of the character among itself and its rivals, given the
        rest of the text; 0 from ``counts[b]`` on, and where there are too few frames for the text.
      classes: ``[B,L,K]`` int32, the rivals, those with the highest logits first.
      probability: ``[B,L,K]`` float32, their probabilities, which add up to ``1 - confidence``.
    """

    confidence: Array
    classes: Array
    probability: Array


def rivals(
    logits: Logits, lengths: Array, ids: Array, counts: Array, *, number: int = RIVALS, blank: int = 0
) -> Rivals:
    """Compute how probable each character of a text is, and how probable other characters in its place.

    The probabilities are exact, over all alignments of the frames (`jaxcrnn.ctc.single_swaps`). The rivals of a
    character are the most probable other classes of its most probable frame.

    Args:
      logits: ``[B,T,C]``, dense; frames at ``t >= lengths[b]`` are padding and ignored.
      lengths: ``[B]`` int32, valid frames.
      ids: ``[B,L]`` int32, class ids of the texts, from any decoder; entries from ``counts[b]`` on are padding.
      counts: ``[B]`` int32, number of characters.
      number: K, rivals of each character; fewer if there are not that many classes.
      blank: class id of the blank; a negative one counts from the end.

    Returns:
      `Rivals`.

    Raises:
      ValueError: If the logits are not dense: a fused head keeps only three classes of each frame.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn.decoding import rivals
      >>> logits = jnp.log(jnp.array([[[0.8, 0.1, 0.1], [0.1, 0.6, 0.3]]]))
      >>> found = rivals.rivals(logits, jnp.array([2]), jnp.array([[1]]), jnp.array([1]), number=1)
      >>> round(float(found.confidence[0, 0]), 3), int(found.classes[0, 0, 0])  # 0.55 and 0.28 of all texts
      (0.663, 2)
    """
    logits = as_logits(logits)
    if not isinstance(logits, DenseLogits):
        raise ValueError("rivals need the logits of every class; use model.head=dense")
    lengths, ids, counts, blank = labelled(logits, lengths, ids, counts, blank, names=("ids", "counts"))
    number = min(number, max(logits.num_classes - 2, 0))
    if not (ids.shape[1] and logits.num_frames and number):
        nothing = jnp.zeros((*ids.shape, number), jnp.int32)
        return Rivals(jnp.zeros(ids.shape, logits.dtype), nothing, nothing.astype(logits.dtype))
    slots = ctc.best_path(logits, lengths, ids, counts, blank=blank)
    own = logits.of_frames(jnp.take_along_axis(ids, jnp.maximum(slots, 0), 1)) - logits.log_norm()
    shown = slots[:, :, None] == jnp.arange(ids.shape[1])[None, None]
    frames = jnp.argmax(jnp.where(shown, own[:, :, None], -jnp.inf), 1)
    values = jnp.take_along_axis(logits.values, frames[:, :, None], 1)
    classes = jnp.arange(logits.num_classes)[None, None]
    other = (classes != ids[:, :, None]) & (classes != blank)
    _, classes = jax.lax.top_k(jnp.where(other, values, -jnp.inf), number)
    ratios = jnp.exp(ctc.single_swaps(logits, lengths, ids, counts, classes, blank=blank))
    confidence = jnp.where(shown.any(1), 1 / (1 + ratios.sum(2)), 0.0)
    return Rivals(confidence, classes, ratios * confidence[:, :, None])
