"""Arguments of the numeric functions."""

from pathlib import Path

from case import Case

TITLE = "Arguments of numeric functions"
SETUP = (
    "import jax, jax.numpy as jnp, numpy as np; from jaxcrnn import assign, ctc, decode, losses, centers; "
    "from jaxcrnn.types import Assignment; x = jnp.zeros((1, 4, 3)); four = np.array([4]); two = np.array([2]); "
)


def prepare(root: Path) -> None:
    del root  # no files


def cases() -> list[Case]:
    wide = "ctc.ctc_loss(jnp.zeros((1, 250, 3)), np.uint8([250]), np.tile(np.uint8([1, 2]), (1, 100)), np.uint8([200]))"
    last = "jax.nn.one_hot(jnp.array([[2, 1, 1, 2]]), 3)"
    loss = "lambda x: ctc.ctc_loss(x, four, np.array([[1, 2]]), two).sum()"
    penalty = f"lambda x: jnp.square(jax.grad({loss})(x)).sum()"
    lines = [
        ("a label of 200 characters with lengths in uint8", f"print({wide})"),
        ("second derivatives of the CTC loss", f"print(jnp.isnan(jax.hessian({loss})(x)).sum(), 'of 144 are NaN')"),
        ("a gradient penalty", f"print(jnp.isnan(jax.grad({penalty})(x)).sum(), 'of 12 are NaN')"),
        ("the blank as class -1, decoded", f"print(decode.greedy({last}, four, blank=-1))"),
        ("the blank as class -1, aligned", f"print(assign.predicted({last}, four, blank=-1).classes)"),
        ("a blank that is not a class", f"print(decode.greedy({last}, four, blank=3))"),
        ("a label with class -1", "print(ctc.ctc_loss(x, four, np.array([[1, -1]]), two))"),
        ("a label with class C", "print(ctc.ctc_loss(x, four, np.array([[1, 3]]), two))"),
        ("the same under jit", "print(jax.jit(ctc.ctc_loss)(x, four, np.array([[1, 3]]), two))"),
        ("a label length beyond the slots", "print(ctc.ctc_loss(x, four, np.array([[1]]), two))"),
        ("a length beyond the frames", "print(losses.ace(x, np.array([9]), np.array([[1, 2]]), two))"),
        ("lengths as floats", "print(ctc.ctc_loss(x, np.array([4.0]), np.array([[1, 2]]), two))"),
        (
            "a frame assigned to class -1",
            "print(losses.center(jnp.ones((1, 1, 2)), jnp.arange(6.0).reshape(3, 2), "
            "Assignment(np.array([[-1]]), np.array([[1.0]]))))",
        ),
        ("no label slots, aligned", "print(assign.aligned(x, four, np.zeros((1, 0), int), np.array([0])).classes)"),
        (
            "no label slots, posteriors",
            "print(assign.posterior(x, four, np.zeros((1, 0), int), np.array([0])).weights.shape)",
        ),
        ("no label slots, ACE", "print(losses.ace(x, four, np.zeros((1, 0), int), np.array([0])))"),
        ("no frames, ACE", "print(losses.ace(x[:, :0], np.array([0]), np.array([[1, 2]]), two))"),
    ]
    return [Case(what, ["-c", SETUP + line], python=True) for what, line in lines]
