"""The table of variants: every assignment, loss and update, and the numbers that the tests try them on."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import tolerances

from jaxcrnn import assign, centers, ctc, diagnostics, losses
from jaxcrnn.kernels.logits import as_logits
from jaxcrnn.types import CenterState

B, T, L, C, D = 6, 9, 4, 7, 5
ASSIGNMENTS = {
    "counted": assign.counted,
    "counted, one ignored": functools.partial(assign.counted, ignored=(2,)),
    "predicted": lambda logits, lengths, labels, label_lengths: assign.predicted(logits, lengths),
    "predicted, no blank": lambda logits, lengths, labels, label_lengths: assign.predicted(
        logits, lengths, skip_blank=True
    ),
    **{f"aligned, {f}": functools.partial(assign.aligned, frames=f) for f in assign.FRAMES},
    "posterior": assign.posterior,
}


def every_swap(logits, lengths, labels, label_lengths, **options):
    """The swap loss with every class as a candidate of every character."""
    classes = as_logits(logits).num_classes
    candidates = jnp.broadcast_to(jnp.arange(classes), (*labels.shape, classes))
    return losses.swap(logits, lengths, labels, label_lengths, candidates, **options)


LOSSES = {
    "ctc": ctc.ctc_loss,
    "focal": losses.focal_ctc,
    "focal, gamma 0.5": functools.partial(losses.focal_ctc, gamma=0.5),
    "swap": every_swap,
    "ace": losses.ace,
    "ace of paddle": functools.partial(losses.ace, variant="paddle"),
}
UPDATES = {
    "fixed": centers.fixed,
    "delta": centers.delta,
    "gradient, mean": functools.partial(centers.gradient, learning_rate=0.5),
    "gradient, half_sum": functools.partial(centers.gradient, learning_rate=0.5, reduction="half_sum"),
}


@functools.cache
def everything(name):
    """All that follows from one assignment, un-jitted and jitted."""

    def compute(logits, features, start, lengths, labels, label_lengths):
        assignment = ASSIGNMENTS[name](logits, lengths, labels, label_lengths)
        rivals = diagnostics.top_rival(logits, assignment.classes, excluded=(0,))
        out = {"assignment": assignment, "watch": diagnostics.watch(logits, features, start, assignment)}
        for reduction in losses.REDUCTIONS:
            for term, of in (
                ("center", functools.partial(losses.center, assignment=assignment)),
                ("push", functools.partial(losses.push, assignment=assignment, rivals=rivals)),
            ):
                value = jax.value_and_grad(lambda f, c, of=of, r=reduction: of(f, c, reduction=r), argnums=(0, 1))
                out[f"{term}, {reduction}"] = value(features, start)
        state = CenterState(start, jnp.zeros(len(start)))
        out |= {update: rule(state, features, assignment) for update, rule in UPDATES.items()}
        return out

    return compute, jax.jit(compute)


def numbers(seed=0, scale=2.0):
    """Six samples: read right, read wrong, an empty label, one frame, no frame, and too few frames."""
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(B, T, C)) * scale).astype(np.float32)
    lengths = np.asarray([T, T - 2, T, 1, 0, 3], np.int32)
    logits[:, :, 1] = -20 * scale  # a class that never occurs
    labels = rng.integers(2, C, (B, L)).astype(np.int32)
    label_lengths = np.asarray([2, 3, 0, 1, 0, 4], np.int32)
    for b, read in ((0, [0, 3, 3, 0, 0, 5, 0, 0, 0]), (3, [4] * T)):  # what these two are read as
        logits[b] += 6 * scale * np.eye(C, dtype=np.float32)[read]
        label_lengths[b] = len(set(read) - {0})
    labels[0, :2], labels[3, 0] = (3, 6), 4  # the second character of the first is wrong, and still counted
    features, start = (rng.normal(size=shape).astype(np.float32) for shape in ((B, T, D), (C, D)))
    return logits, features, start, lengths, labels, label_lengths


def close(a, b, tolerance=tolerances.FLOAT32):
    """Check that two trees agree; a difference of integers is more than any tolerance."""
    chex.assert_trees_all_close(a, b, **tolerance)
