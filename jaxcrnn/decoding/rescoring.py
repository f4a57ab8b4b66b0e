"""Look-alike rescoring: where a character could be its look-alike, the distances to both centers have a say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcrnn import decode
from jaxcrnn.charset import Charset
from jaxcrnn.types import CenterState

MOST, FARTHEST = 1e6, 1e12  # weights and squared distances whose product is finite


class Rescorer(NamedTuple):
    """What decides between look-alikes.

    Attributes:
      centers: ``[C,D]``.
      groups: ``[C]`` int32, the number of each class's group of look-alikes; -1 for none, and for classes without a
        center.
      weight: w, of a squared distance against a log probability; 0 changes nothing. With features spread around their
        centers by a variance v in every direction, ``1 / 2v`` would be Bayes' rule.
    """

    centers: Array
    groups: Array
    weight: Array


def make(centers: CenterState, groups: Sequence[str], charset: Charset, weight: float) -> Rescorer:
    """Puts the groups of look-alikes into the charset's classes.

    Args:
      centers: ``[C,D]``; where any has counts, those without are of classes never seen and not used.
      groups: each a text of its characters; those that the charset lacks are passed over.
      charset: the recogniser's.
      weight: see `Rescorer`.
    """
    of = np.full(centers.centers.shape[0], -1, np.int32)
    for number, group in enumerate(groups):
        of[charset.encode("".join(c for c in group if not charset.missing(c)))] = number
    seen = np.asarray(centers.counts) > 0
    of[~seen & seen.any()] = -1
    return Rescorer(jnp.asarray(centers.centers), jnp.asarray(of), jnp.float32(weight))


def pairs(rescorer: Rescorer) -> int:
    """How many pairs of classes may be exchanged for each other."""
    _, sizes = np.unique(np.asarray(rescorer.groups)[np.asarray(rescorer.groups) >= 0], return_counts=True)
    return int((sizes * (sizes - 1) // 2).sum())


def rescore(logits: Array, lengths: Array, features: Array, rescorer: Rescorer, *, blank: int = 0) -> Array:
    """Log probabilities in which distances to centers have a say between look-alikes.

    A character is a run of frames with the same best class (as `jaxcrnn.decode.greedy` reads it). At its surest frame,
    let a be that class, b the most probable of the others without the blank. If the two are look-alikes, their log odds
    ``log p(a) - log p(b)`` become ``log p(a) - log p(b) - w (|f - c_a|^2 - |f - c_b|^2)``, f the feature there, and
    those of the character's other frames are moved by as much, but never to the other side of 0 than the surest
    frame's. The likelier of the two keeps the larger log probability, so no character is lost or added by reading
    greedily: it stays or becomes its look-alike. One that would melt together with its neighbour, without a blank
    between them, stays.

    Args:
      logits: ``[B,T,C]``; frames at ``t >= lengths[b]`` are ignored.
      lengths: ``[B]`` int32.
      features: ``[B,T,D]``, what the centers are of.
      rescorer: centers, groups and weight.
      blank: class of the blank.

    Returns:
      ``[B,T,C]`` float32; not normalised in the frames that are changed.
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), 2)
    best = jnp.argmax(log_p, 2).astype(jnp.int32)
    starts, valid = decode.emitting(best, lengths, blank)
    of_character = valid & (best != blank)
    frames = jnp.broadcast_to(jnp.arange(best.shape[1]), best.shape)
    top = jnp.max(log_p, 2)
    run, count = jnp.cumsum(starts, 1), best.shape[1] + 1

    @jax.vmap
    def most_in_run(run: Array, values: Array) -> Array:
        return jax.ops.segment_max(values, run, count)[run]

    is_peak = of_character & (top == most_in_run(run, jnp.where(of_character, top, -jnp.inf)))
    peak = jnp.maximum(most_in_run(run, jnp.where(is_peak, frames, -1)), 0)
    classes = jnp.arange(log_p.shape[2])[None, None]
    others = jnp.where((classes == blank) | (classes == best[:, :, None]), -jnp.inf, log_p)
    rival = jnp.take_along_axis(jnp.argmax(others, 2).astype(jnp.int32), peak, 1)
    groups = rescorer.groups
    touching = starts[:, 1:] & of_character[:, :-1]
    after = touching & ((best[:, :-1] == rival[:, 1:]) | (rival[:, :-1] == rival[:, 1:]))
    before = touching & ((best[:, 1:] == rival[:, :-1]) | (rival[:, :-1] == rival[:, 1:]))
    melts = jnp.pad(after, ((0, 0), (1, 0))) | jnp.pad(before, ((0, 0), (0, 1)))
    melts = most_in_run(run, (melts & of_character).astype(jnp.int32)) > 0
    alike = of_character & ~melts & (groups[best] >= 0) & (groups[best] == groups[rival])
    feature = jnp.take_along_axis(features.astype(jnp.float32), peak[:, :, None], 1)
    own, other = (jnp.minimum(jnp.square(feature - rescorer.centers[k]).sum(2), FARTHEST) for k in (best, rival))
    rival_p = jnp.take_along_axis(log_p, rival[:, :, None], 2)[:, :, 0]
    odds = top - rival_p - rescorer.weight * (own - other)
    at_peak = jnp.take_along_axis(odds, peak, 1)
    odds = jnp.where((odds >= 0) == (at_peak >= 0), odds, at_peak)
    row = jnp.arange(len(best))[:, None]
    log_p = log_p.at[row, frames, best].set(jnp.where(alike, top + jnp.minimum(odds, 0), top))
    return log_p.at[row, frames, rival].set(jnp.where(alike, top - jnp.maximum(odds, 0), rival_p))
