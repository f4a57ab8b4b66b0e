"""Connectionist temporal classification (CTC): loss, alignment and posteriors (Graves et al., 2006)."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcrnn._arguments import Labels, frame_lengths, integers, labelled, readable, texts
from jaxcrnn.kernels import ctc_lattice, ctc_swaps
from jaxcrnn.kernels.ctc_lattice import Lattice, Posteriors
from jaxcrnn.kernels.derivatives import constant_unless
from jaxcrnn.kernels.dtypes import at_least_float32
from jaxcrnn.kernels.logits import DenseLogits, Logits, LogitsLike, as_logits, constant, factored


def is_feasible(lengths: Array, labels: Array, label_lengths: Array) -> Array:
    """Check whether each label fits into its frames.

    A label needs one frame for each character and one more, for a blank, between two equal neighbours.

    Args:
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32; slots at ``l >= label_lengths[b]`` are padding and ignored.
      label_lengths: ``[B]`` int32, characters of each label.

    Returns:
      ``[B]`` bool. The empty label is feasible at any length, including 0. A negative class id is not feasible under
      jit, where values are not known.

    Raises:
      ValueError: If a known class id is negative, or a known length is out of range.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import ctc
      >>> lengths, labels, label_lengths = jnp.array([2, 2]), jnp.array([[1, 2], [1, 1]]), jnp.array([2, 2])
      >>> ctc.is_feasible(lengths, labels, label_lengths).tolist()  # "11" needs a blank in between: three frames
      [True, False]
    """
    return _feasible(integers("lengths", lengths), *texts(labels, label_lengths))


def _feasible(lengths: Array, labels: Array, label_lengths: Array) -> Array:
    slots = jnp.arange(1, labels.shape[1])
    repeats = (labels[:, 1:] == labels[:, :-1]) & (slots[None, :] < label_lengths[:, None])
    fits = label_lengths + repeats.sum(1, dtype=label_lengths.dtype) <= lengths
    return fits & readable(labels, label_lengths)


def ctc_loss(
    logits: Logits,
    lengths: Array,
    labels: Array,
    label_lengths: Array,
    *,
    blank: int = 0,
    recursion: str = "scan",
) -> Array:
    """Compute the CTC loss of each sample: ``-log p(label | logits)``.

    The probability is the sum over all paths of ``lengths[b]`` frames that collapse to the label.

    Args:
      logits: ``[B,T,C]`` float32, before the softmax; frames at ``t >= lengths[b]`` are padding and ignored. Any other
        type of `jaxcrnn.kernels.logits` is accepted too; its features must be finite in padded frames as well, or the
        gradient is not.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32 class ids, never ``blank``; slots at ``l >= label_lengths[b]`` are padding and ignored.
      label_lengths: ``[B]`` int32, characters of each label.
      blank: class id of the blank; a negative one counts from the end.
      recursion: how the variables of all frames are computed: ``"scan"``, a loop over the frames, ``"unrolled"``,
        the same loop with fewer and longer iterations, for GPUs, or ``"pallas"``, one kernel for an NVIDIA GPU, without
        second derivatives (`jaxcrnn.kernels.ctc_lattice.arrive`).

    Returns:
      ``[B]`` float32 in nats. An infeasible sample (see `is_feasible`), or one whose label has probability 0, has loss
      0 and a zero gradient, as with ``zero_infinity=True`` in PyTorch. Count infeasible samples with `is_feasible`.
      Under jit, where values are not known, a class id out of range makes a sample infeasible. Second derivatives are
      exact, by `jax.hessian` and by reverse over reverse mode; third ones may be NaN, and `jax.jvp` of the loss
      itself is an error.

    Raises:
      TypeError: If lengths or labels are not integers.
      ValueError: If ``blank`` is not a class, a known length or class id is out of range, or there is no such
        ``recursion``.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import ctc
      >>> logits = jnp.zeros((1, 4, 3))  # 4 frames, 3 equally probable classes
      >>> labels, label_lengths = jnp.array([[1, 2]]), jnp.array([2])
      >>> loss = ctc.ctc_loss(logits, jnp.array([4]), labels, label_lengths)
      >>> round(float(loss[0]), 4)  # log(81 / 15): 15 of the 81 paths read "12"
      1.6864
      >>> float(ctc.ctc_loss(logits, jnp.array([1]), labels, label_lengths)[0])  # infeasible with one frame
      0.0

    References:
      Graves et al., 2006, eq. 3; the gradient is eq. 16.
    """
    if recursion not in ctc_lattice.RECURSIONS:
        raise ValueError(f"recursion is {recursion!r}; expected one of {', '.join(ctc_lattice.RECURSIONS)}")
    logits, (lengths, labels, label_lengths, blank) = _arguments(logits, lengths, labels, label_lengths, blank)
    if isinstance(logits, DenseLogits):
        return _dense_loss(logits.values, lengths, labels, label_lengths, blank, recursion)
    classes = ctc_lattice.state_classes(labels, label_lengths, blank)
    chosen = _state_logits(logits, classes, blank)
    return _factored_loss(logits.log_norm(), chosen, classes, lengths, labels, label_lengths, recursion)


def _arguments(logits: Logits, *labels: Any) -> tuple[LogitsLike, Labels]:
    logits = as_logits(logits)
    converted = labelled(logits, *labels)
    if not converted.labels.shape[1]:  # all labels are empty: use one slot of padding
        converted = converted._replace(labels=jnp.zeros((len(converted.labels), 1), jnp.int32))
    return logits, converted


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _dense_loss(
    logits: Array, lengths: Array, labels: Array, label_lengths: Array, blank: int, recursion: str
) -> Array:
    paths = _lattice(logits, lengths, labels, label_lengths, blank)
    return _loss_alone(paths, lengths, labels, label_lengths, recursion)


def _loss_alone(paths: Lattice, lengths: Array, labels: Array, label_lengths: Array, recursion: str) -> Array:
    _, last = ctc_lattice.arrive(paths, lengths, 1, recursion)
    return ctc_lattice.losses(paths, last[0], lengths, _feasible(lengths, labels, label_lengths))[0]


def _dense_forward(
    logits: Array, lengths: Array, labels: Array, label_lengths: Array, blank: int, recursion: str
) -> tuple[Array, Any]:
    feasible = _feasible(lengths, labels, label_lengths)
    logits = constant_unless(logits, _used(logits.shape[1], lengths, feasible)[:, :, None])
    paths = _lattice(logits, lengths, labels, label_lengths, blank)
    losses, posteriors = ctc_lattice.posteriors(paths, lengths, feasible, recursion)
    return losses, (logits, paths.norm, paths.classes, posteriors)


def _used(frames: int, lengths: Array, feasible: Array) -> Array:
    """Mark the frames that the loss depends on, ``[B,T]``: the others may be NaN, also in second derivatives."""
    return (jnp.arange(frames)[None, :] < lengths[:, None]) & feasible[:, None]


def _dense_backward(blank: int, _: str, saved: Any, d_losses: Array) -> tuple[Array, None, None, None]:
    """Compute the gradient, softmax minus posteriors (Graves et al., 2006, eq. 16); 0 where there is no path."""
    logits, norm, classes, posteriors = saved
    weight, shares = ctc_lattice.shares(posteriors, d_losses)
    possible = posteriors.there[:, :, None]
    softmax = jnp.exp(jnp.where(possible, at_least_float32(logits), 0.0) - jnp.where(possible, norm[:, :, None], 0.0))
    d_logits = (softmax * weight[:, :, None]).at[:, :, blank].add(-shares[:, :, ::2].sum(2))
    # One scatter for each line: XLA then sees that it needs no communication where the batch is sharded.
    d_logits = jax.vmap(lambda row, c, share: row.at[:, c].add(-share))(d_logits, classes[:, 1::2], shares[:, :, 1::2])
    return d_logits.astype(logits.dtype), None, None, None


_dense_loss.defvjp(_dense_forward, _dense_backward)


@partial(jax.custom_vjp, nondiff_argnums=(6,))
def _factored_loss(
    norm: Array, chosen: Array, classes: Array, lengths: Array, labels: Array, sizes: Array, recursion: str
) -> Array:
    return _loss_alone(ctc_lattice.lattice(chosen, norm, classes, sizes), lengths, labels, sizes, recursion)


def _factored_forward(
    norm: Array, chosen: Array, classes: Array, lengths: Array, labels: Array, sizes: Array, recursion: str
) -> tuple[Array, Posteriors]:
    feasible = _feasible(lengths, labels, sizes)
    used = _used(norm.shape[1], lengths, feasible)
    norm, chosen = constant_unless(norm, used), constant_unless(chosen, used[:, :, None])
    return ctc_lattice.posteriors(ctc_lattice.lattice(chosen, norm, classes, sizes), lengths, feasible, recursion)


def _factored_backward(_: str, posteriors: Posteriors, d_losses: Array) -> tuple[Array, Array, None, None, None, None]:
    weight, shares = ctc_lattice.shares(posteriors, d_losses)
    return weight, -shares, None, None, None, None


_factored_loss.defvjp(_factored_forward, _factored_backward)


def fused_ctc_loss(
    features: Array, kernel: Array, bias: Array, lengths: Array, labels: Array, label_lengths: Array, *, blank: int = 0
) -> Array:
    """Compute `ctc_loss` of ``features @ kernel + bias`` without materializing the logits.

    The forward and backward passes compute the logits of `jaxcrnn.kernels.chunked_head.CHUNK` classes at a time. The
    gradient costs four matrix products with the kernel instead of three.

    Args:
      features: ``[B,T,D]`` float32 or bfloat16; frames at ``t >= lengths[b]`` are padding and ignored. Sums are
        float32.
      kernel: ``[D,C]``, weights of the linear head.
      bias: ``[C]``, bias of the linear head.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32 class ids, never ``blank``; slots at ``l >= label_lengths[b]`` are padding and ignored.
      label_lengths: ``[B]`` int32, characters of each label.
      blank: class id of the blank; a negative one counts from the end.

    Returns:
      ``[B]`` float32 in nats; infeasible samples have loss 0 and a zero gradient.

    Raises:
      TypeError: If lengths or labels are not integers.
      ValueError: If ``blank`` is not a class, or a known length or class id is out of range.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import ctc
      >>> features, kernel, bias = jnp.ones((1, 4, 2)), jnp.zeros((2, 3)), jnp.zeros(3)
      >>> loss = ctc.fused_ctc_loss(features, kernel, bias, jnp.array([4]), jnp.array([[1, 2]]), jnp.array([2]))
      >>> round(float(loss[0]), 4)
      1.6864
    """
    lengths = frame_lengths(lengths, features.shape[1])
    inside = jnp.arange(features.shape[1])[None, :] < lengths[:, None]
    clean = jnp.where(inside[:, :, None], features, jnp.zeros((), features.dtype))
    return ctc_loss(factored(clean, kernel, bias), lengths, labels, label_lengths, blank=blank)


def _state_logits(logits: Any, classes: Array, blank: int) -> Array:
    """Gather the logits ``[B,T,S]`` of the classes of the lattice's states."""
    # Compute the blank's column once instead of once for each blank of the label.
    columns = logits.of_classes(jnp.concatenate([jnp.full_like(classes[:, :1], blank), classes[:, 1::2]], 1))
    blanks, own = columns[:, :, :1], columns[:, :, 1:]
    pairs = jnp.stack([jnp.broadcast_to(blanks, own.shape), own], 3).reshape(*own.shape[:2], 2 * own.shape[2])
    return jnp.concatenate([pairs, blanks], 2)


def _lattice(logits: Any, lengths: Array, labels: Array, label_lengths: Array, blank: int) -> Lattice:
    logits, classes = as_logits(logits), ctc_lattice.state_classes(labels, label_lengths, blank)
    if not isinstance(logits, DenseLogits):
        chosen = _state_logits(logits, classes, blank)
        return ctc_lattice.lattice(chosen, logits.log_norm(), classes, label_lengths)
    # Mask after the reductions: XLA would materialize masked logits, as many bytes as the loss reads.
    frames = jnp.arange(logits.num_frames)[None, :] < lengths[:, None]
    norm = jnp.where(frames, logits.log_norm(), 0.0)
    chosen = jnp.where(frames[:, :, None], logits.of_classes(classes), 0.0)
    return ctc_lattice.lattice(chosen, norm, classes, label_lengths)


def slot_posteriors(logits: Logits, lengths: Array, labels: Array, label_lengths: Array, *, blank: int = 0) -> Array:
    """Compute the posterior of each label slot in each frame, given that the line reads the label.

    A posterior is the product of the forward and backward variables of
    the frame and the slot, divided by the probability of the label.

    Args:
      logits: ``[B,T,C]`` before the softmax; frames at ``t >= lengths[b]`` are padding and ignored.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32 class ids, never ``blank``; slots at ``l >= label_lengths[b]`` are padding and ignored.
      label_lengths: ``[B]`` int32, characters of each label.
      blank: class id of the blank; a negative one counts from the end.

    Returns:
      ``[B,T,L]`` float32 in [0, 1]; 0 in padded frames, in padded slots and for infeasible samples. The sum over the
      slots of a frame is 1 minus the posterior of the blank. No gradient flows through the result.

    Raises:
      ValueError: If ``blank`` is not a class, or a known length or class id is out of range.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import ctc
      >>> logits = jnp.zeros((1, 4, 3))
      >>> posteriors = ctc.slot_posteriors(logits, jnp.array([4]), jnp.array([[1, 2]]), jnp.array([2]))
      >>> [round(x, 3) for x in posteriors[0, :, 0].tolist()]  # 10, 8, 3 and 0 of 15 paths show slot 0
      [0.667, 0.533, 0.2, 0.0]

    References:
      Graves et al., 2006, eq. 7 and 11.
    """
    shape = np.shape(labels)
    logits, (lengths, labels, label_lengths, blank) = _arguments(logits, lengths, labels, label_lengths, blank)
    paths = _lattice(constant(logits), lengths, labels, label_lengths, blank)
    states = ctc_lattice.posteriors(paths, lengths, _feasible(lengths, labels, label_lengths))[1].states
    return states[:, :, 1::2][:, :, : shape[1]]


def single_swaps(
    logits: Logits, lengths: Array, labels: Array, label_lengths: Array, candidates: Array, *, blank: int = 0
) -> Array:
    """Compute how probable each text is that differs from the label in one character, relative to the label.

    ``log p(label with slot l replaced by c) - log p(label)`` for each candidate c of each slot l: exactly what one CTC
    loss for each text would give, from two forward-backward passes and one more scan with ``[B,L,K]`` states. It is
    positive where the model prefers the candidate. The softmax's denominator cancels and is not computed.

    Args:
      logits: ``[B,T,C]`` before the softmax; frames at ``t >= lengths[b]`` are padding and ignored.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32 class ids, never ``blank``; slots at ``l >= label_lengths[b]`` are padding and ignored.
      label_lengths: ``[B]`` int32, characters of each label.
      candidates: ``[B,L,K]`` int32 class ids; ``blank`` and ids out of range are no candidates, which pads a list.
      blank: class id of the blank; a negative one counts from the end.

    Returns:
      ``[B,L,K]`` float32 in nats. 0 where the candidate is the label's own character; ``-inf``, with a zero gradient,
      where there is no candidate, in padded slots, where the swapped text needs more frames than there are, and for
      infeasible samples. The derivatives are exact.

    Raises:
      TypeError: If lengths, labels or candidates are not integers.
      ValueError: If ``blank`` is not a class, a known length or class id of the labels is out of range, or the shapes
        do not match.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import ctc
      >>> logits = jnp.array([[[0.0, 3.0, 2.0]]])  # one frame: "1" is e times as probable as "2"
      >>> candidates = jnp.array([[[1, 2, 0]]])  # the label's own character, another one, and padding
      >>> ctc.single_swaps(logits, jnp.array([1]), jnp.array([[1]]), jnp.array([1]), candidates).tolist()
      [[[0.0, -1.0, -inf]]]

    References:
      The forward and backward variables of Graves et al., 2006, eq. 6 to 11.
    """
    shape = np.shape(labels)
    logits, (lengths, labels, label_lengths, blank) = _arguments(logits, lengths, labels, label_lengths, blank)
    candidates = integers("candidates", candidates)
    if candidates.ndim != 3 or candidates.shape[:2] != shape:
        raise ValueError(f"candidates have shape {candidates.shape} and labels {shape}; expected [B,L,K] and [B,L]")
    if 0 in candidates.shape or not logits.num_frames:
        return jnp.full(candidates.shape, -jnp.inf, logits.dtype)
    exists = (candidates >= 0) & (candidates < logits.num_classes) & (candidates != blank)
    exists &= jnp.arange(shape[1])[None, :, None] < label_lengths[:, None, None]
    exists &= _feasible(lengths, labels, label_lengths)[:, None, None]
    ids = jnp.where(exists, candidates, blank)
    used = jnp.arange(logits.num_frames)[None, :, None] < lengths[:, None, None]
    classes = ctc_lattice.state_classes(labels, label_lengths, blank)
    chosen = jnp.where(used, _state_logits(logits, classes, blank), 0.0)
    paths = ctc_lattice.lattice(chosen, jnp.zeros_like(chosen[:, :, 0]), classes, label_lengths)
    paths = ctc_swaps.on_track(paths, lengths)
    scores = jnp.where(used, logits.of_classes(ids.reshape(len(ids), -1)), 0.0).transpose(1, 0, 2)
    scores = (scores - paths.base[:, :, None]).reshape(*scores.shape[:2], *ids.shape[1:])
    values = ctc_swaps.swaps(paths, lengths, label_lengths, scores, ids)
    values = jnp.where(ids == labels[:, :, None], 0.0, values)
    return jnp.where(exists, values, -jnp.inf)


def best_path(logits: Logits, lengths: Array, labels: Array, label_lengths: Array, *, blank: int = 0) -> Array:
    """Find the most probable path that spells the label: the Viterbi algorithm over the states of the loss.

    Args:
      logits: ``[B,T,C]`` before the softmax; frames at ``t >= lengths[b]`` are padding and ignored.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32 class ids, never ``blank``; slots at ``l >= label_lengths[b]`` are padding and ignored.
      label_lengths: ``[B]`` int32, characters of each label.
      blank: class id of the blank; a negative one counts from the end.

    Returns:
      ``[B,T]`` int32, the label slot that each frame shows; -1 where it shows the blank, in padded frames and for
      infeasible samples.

    Raises:
      ValueError: If ``blank`` is not a class, or a known length or class id is out of range.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxcrnn import ctc
      >>> logits = 5 * jax.nn.one_hot(jnp.array([[0, 1, 1, 2]]), 3)
      >>> ctc.best_path(logits, jnp.array([4]), jnp.array([[1, 2]]), jnp.array([2])).tolist()
      [[-1, 0, 0, 1]]
    """
    logits, (lengths, labels, label_lengths, blank) = _arguments(logits, lengths, labels, label_lengths, blank)
    paths = _lattice(logits, lengths, labels, label_lengths, blank)
    frames = jnp.arange(len(paths.scores))

    def forward(best: Array, frame: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        score, first, inside = frame
        one, two = ctc_lattice.shifted(best, paths.enter)
        ways = jnp.stack([best, one, two])
        step = jnp.where(first, 0, jnp.argmax(ways, 0)).astype(jnp.int32)
        moved = score + jnp.where(first, best, ways.max(0))
        return jnp.where(inside[:, None], moved, best), step

    def back(state: Array, frame: tuple[Array, Array]) -> tuple[Array, Array]:
        steps, inside = frame
        step = jnp.take_along_axis(steps, state[:, None], 1)[:, 0]
        return jnp.where(inside, state - step, state), state

    inside = frames[:, None] < lengths[None, :]
    best, steps = jax.lax.scan(forward, ctc_lattice.start(paths), (paths.scores, frames == 0, inside))
    final = jnp.argmax(jnp.where(paths.ends, best, -jnp.inf), 1).astype(jnp.int32)
    _, states = jax.lax.scan(back, final, (steps, inside), reverse=True)
    visible = inside & _feasible(lengths, labels, label_lengths)[None, :]
    return jnp.where(visible & (states % 2 == 1), states // 2, -1).T
