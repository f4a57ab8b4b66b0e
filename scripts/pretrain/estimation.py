"""Centers to start from: the mean features of each class, as `jaxcrnn centers estimate` computes them from files."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from labels import Labels

from jaxcrnn.centers import is_estimated, zeros
from jaxcrnn.decoding.evaluate import estimate_step
from jaxcrnn.errors import UserError
from jaxcrnn.render.config import RenderConfig
from jaxcrnn.render.render import Glyphs, render
from jaxcrnn.runs.compile import QUICK, compiled, is_nvidia
from jaxcrnn.train import TrainConfig, flow_of
from jaxcrnn.types import Batch, CenterState, TrainState


def quick_options() -> dict[str, Any] | None:
    """Options of XLA for a program that runs for minutes on a GPU; on a CPU, training takes hours."""
    return QUICK["gpu"] if is_nvidia(jax.devices()[0]) else None


def needs_centers(config: TrainConfig, variables: Any) -> bool:
    """Whether the loss starts from estimated centers.

    Raises:
      UserError: if there are no weights to estimate them with.
    """
    if not is_estimated(flow_of(config).rule):
        return False
    if variables is None:
        raise UserError("--loss: the centers are estimated with the weights of --init; add it, or start=zeros")
    return True


def add_line_means(
    config: TrainConfig,
    look: RenderConfig,
    variables: Any,
    centers: CenterState,
    seed: Array,
    number: Array,
    glyphs: Glyphs,
    labels: Array,
    lengths: Array,
) -> tuple[CenterState, Array]:
    """Adds the features of the lines of one training step; returns the means and how many lines were read exactly."""
    images, widths = render(jax.random.fold_in(jax.random.key(seed), number), glyphs, labels, lengths, look)
    state = TrainState(jnp.zeros((), jnp.int32), variables["params"], variables["batch_stats"], (), None)
    return estimate_step(config, state, centers, Batch(images, widths, labels, lengths))


def estimate(
    config: TrainConfig,
    variables: Any,
    looks: list[RenderConfig],
    glyphs: Glyphs,
    labels: Labels,
    seed: int,
    steps: int,
) -> tuple[CenterState, str]:
    """The means over the exactly read lines of the first training steps, and a sentence about them.

    Args:
      config: the model to train.
      variables: what it starts from.
      looks: look of the lines of each bucket.
      glyphs: the typefaces.
      labels: the lines.
      seed: seed of the look of the lines.
      steps: number of steps.

    Raises:
      UserError: if no line is read exactly.
    """
    adding: dict[int, Any] = {}
    centers = zeros(config.model.num_classes, config.model.features)
    exact = lines = 0
    for number in range(steps):
        which = labels.cycle[number % len(labels.cycle)]
        ids, lengths = labels.of_step(number)
        arrays = variables, centers, np.int32(seed), np.int32(number), glyphs, ids, lengths
        if which not in adding:
            jitted = jax.jit(functools.partial(add_line_means, config, looks[which]), donate_argnums=1)
            adding[which] = compiled(jitted.lower(*arrays), quick_options())
        centers, right = adding[which](*arrays)
        exact, lines = exact + int(right), lines + len(ids)
    if not exact:
        raise UserError(f"none of {lines} lines is read exactly, so there is nothing to estimate centers from")
    unseen = int((np.asarray(centers.counts) == 0).sum())
    return centers, f"centers estimated from {exact} of {lines} lines; {unseen} classes were not in them"
