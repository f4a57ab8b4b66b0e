"""Probabilities of all texts that differ from a label in one character, from one pass over its lattice."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn.kernels.ctc_lattice import Lattice, arrive
from jaxcrnn.kernels.derivatives import finite_base, log_sum, log_sum_rows


def on_track(paths: Lattice, lengths: Array) -> Lattice:
    """Choose the base of each frame so that the variables of the most probable states stay close to 0.

    Log variables of some hundred nats would be rounded to 1e-5. The base cancels, so it need not be exact itself.

    Args:
      paths: lattice of the labels.
      lengths: ``[B]`` int32, valid frames.
    """
    constant = jax.tree.map(jax.lax.stop_gradient, paths)
    arrived, _ = arrive(constant, lengths, ways=2)
    forward = arrived[:, 0] + constant.scores
    best = jnp.argmax(forward + arrived[::-1, 1, :, ::-1], 2)
    reached = finite_base(jnp.take_along_axis(forward, best[:, :, None], 2)[:, :, 0])
    inside = jnp.arange(len(reached))[:, None] < lengths[None, :]
    more = jnp.where(inside, jnp.diff(reached, axis=0, prepend=0.0), 0.0)
    return paths._replace(scores=paths.scores - more[:, :, None], base=paths.base + more)


def swaps(paths: Lattice, lengths: Array, label_lengths: Array, scores: Array, candidates: Array) -> Array:
    """Compute ``log p(label with slot l replaced by c) - log p(label)`` for each candidate c of each slot l.

    The paths of a swapped label are those of the label up to the character before the slot and from the character
    after it. In between they show the candidate for one run of frames, so a sum over the runs' ends is enough::

        u_t = log(exp(u_(t-1)) + exp(enter_t)) + score_t        the run goes on, or begins, at frame t
        r   = log(sum_t exp(u_t + leave_t)) - log p(label)

    Args:
      paths: lattice of the labels. The softmax's denominator cancels, so ``paths.norm`` may be 0.
      lengths: ``[B]`` int32, valid frames.
      label_lengths: ``[B]`` int32, characters of each label.
      scores: ``[T,B,L,K]``, score of each candidate in each frame, on the scale of ``paths.scores``.
      candidates: ``[B,L,K]`` int32, classes of the candidates.

    Returns:
      ``[B,L,K]``; ``-inf`` where a text has no path.
    """
    arrived, final = arrive(paths, lengths, ways=2)
    none = jnp.full_like(paths.scores[:1], -jnp.inf)
    before = jnp.concatenate([none, arrived[:-1, 0] + paths.scores[:-1]])  # forward variables one frame earlier
    after = arrived[::-1, 1, :, ::-1] + paths.scores
    frames = jnp.arange(len(paths.scores))[:, None]
    after = jnp.where((frames < lengths[None, :])[:, :, None], after, -jnp.inf)
    after = jnp.concatenate([after[1:], none])  # backward variables one frame later

    slots = jnp.arange(candidates.shape[1])[None, None, :]
    begins = (frames == 0)[:, :, None] & (slots == 0)
    ends = (frames == lengths[None, :] - 1)[:, :, None] & (slots == label_lengths[None, :, None] - 1)
    characters = paths.classes[:, 1::2]
    side = [(0, 0), (0, 0)]
    left = jnp.pad(before[:, :, 1:-2:2], (*side, (1, 0)), constant_values=-jnp.inf)
    right = jnp.pad(after[:, :, 3::2], (*side, (0, 1)), constant_values=-jnp.inf)
    previous = jnp.pad(characters[:, :-1], ((0, 0), (1, 0)), constant_values=-1)[:, :, None] != candidates
    following = jnp.pad(characters[:, 1:], ((0, 0), (0, 1)), constant_values=-1)[:, :, None] != candidates

    def step(run: Array, frame: tuple[Array, ...]) -> tuple[Array, Array]:
        score, is_first, is_last, blank_before, left, blank_after, right = frame
        from_blank = jnp.where(is_first, 0.0, blank_before)[:, :, None]
        run = score + log_sum(run, from_blank, jnp.where(previous, left[:, :, None], -jnp.inf))
        to_blank = jnp.where(is_last, 0.0, blank_after)[:, :, None]
        nowhere = jnp.full_like(run, -jnp.inf)
        out = log_sum(jnp.broadcast_to(to_blank, run.shape), jnp.where(following, right[:, :, None], -jnp.inf), nowhere)
        return run, run + out

    start = jnp.full(candidates.shape, -jnp.inf, scores.dtype)
    _, at = jax.lax.scan(step, start, (scores, begins, ends, before[:, :, :-1:2], left, after[:, :, 2::2], right))
    swapped = log_sum_rows(at.reshape(1, len(at), -1))[0].reshape(candidates.shape)
    own = log_sum_rows(jnp.where(paths.ends, final[0], -jnp.inf))
    return swapped - finite_base(own)[:, None, None]
