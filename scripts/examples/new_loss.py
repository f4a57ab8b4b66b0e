"""Train with a loss of your own, beside plain CTC and a built-in preset.

python scripts/examples/new_loss.py LINES.txt FOLDER [KEY=VALUE ...]
"""

import sys

import jax.numpy as jnp

from jaxcrnn import assign, centers
from jaxcrnn.cli.main import main
from jaxcrnn.objective import CenterRule


def sharp(logits, lengths, labels, label_lengths, *, blank):
    """Assignment: the soft alignment, with its likely frames counting for more."""
    soft = assign.posterior(logits, lengths, labels, label_lengths, blank=blank)
    return soft._replace(weights=soft.weights**2)


def near_zero(key, kernel):
    """Start: small random centers; the kernel [D,C] of the linear head gives the sizes."""
    features, classes = kernel.shape
    state = centers.normal(key, classes, features)
    return state._replace(centers=0.01 * state.centers)


def slowing(state, features, assignment):
    """Update: like "delta", but the more frames a center has seen, the less it moves."""
    moved = centers.delta(state, features, assignment, alpha=0.5)
    share = 1 / (1 + state.counts[:, None])
    return moved._replace(centers=state.centers + share * (moved.centers - state.centers))


rule = CenterRule(near_zero, slowing)


def energy(outputs, batch, assignment, state, *, blank):
    """Term: the mean square of each line's features, [B]."""
    valid = jnp.arange(outputs.features.shape[1])[None, :] < outputs.lengths[:, None]
    frames = jnp.maximum(valid.sum(1, dtype=jnp.float32), 1.0)
    return jnp.where(valid, jnp.square(outputs.features).mean(-1), 0.0).sum(1) / frames


POSTERIOR = ["loss.preset=posterior"]
MINE = ["loss.assignment=new_loss:sharp", "loss.rule=new_loss:rule", "loss.terms=[0.001*new_loss:energy]"]
VARIANTS = {"ctc": ["loss.preset=ctc"], "posterior": POSTERIOR, "mine": POSTERIOR + MINE}

if __name__ == "__main__":  # training imports this file as new_loss
    data, out, *settings = sys.argv[1:]
    for name, loss in VARIANTS.items():
        code = main(["train", "--data", data, "--val", data, "--out", f"{out}/{name}", "--set", *loss, *settings])
        if code:
            sys.exit(code)
