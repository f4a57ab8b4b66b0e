"""Centers to start from: the mean features of each class, as `jaxcrnn centers estimate` computes them from files."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from labels import Labels

from jaxcrnn.centers import zeros
from jaxcrnn.decoding.evaluate import estimate_step
from jaxcrnn.errors import UserError
from jaxcrnn.render.config import RenderConfig
from jaxcrnn.render.render import Glyphs, render
from jaxcrnn.train import TrainConfig
from jaxcrnn.types import Batch, CenterState, TrainState


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
    adding = [jax.jit(functools.partial(add_line_means, config, look), donate_argnums=1) for look in looks]
    centers = zeros(config.model.num_classes, config.model.features)
    exact = lines = 0
    for number in range(steps):
        which = labels.cycle[number % len(labels.cycle)]
        ids, lengths = labels.of_step(number)
        centers, right = adding[which](variables, centers, np.int32(seed), np.int32(number), glyphs, ids, lengths)
        exact, lines = exact + int(right), lines + len(ids)
    if not exact:
        raise UserError(f"none of {lines} lines is read exactly, so there is nothing to estimate centers from")
    unseen = int((np.asarray(centers.counts) == 0).sum())
    return centers, f"centers estimated from {exact} of {lines} lines; {unseen} classes were not in them"
