"""What losses, assignments and decoders ask of logits, be they an array or a head that never makes them.

Every function here takes ``logits``, ``[B,T,C]`` or a `Head`, and answers alike for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn.kernels import chunked_head
from jaxcrnn.kernels.dtypes import wide
from jaxcrnn.parallel import sharded_centers


class Head(NamedTuple):
    """Logits that are never there as a whole: ``features @ kernel + bias``. See `make`.

    Attributes:
      features: ``[B,T,D]``.
      kernel: ``[D,C]``.
      bias: ``[C]``.
      norm: ``[B,T]`` log of the softmax's denominator; its gradient reaches the three above.
      top: ``[B,T,3]`` the most probable classes.
      top_logits: ``[B,T,3]`` their logits.
      copies: of the first three, where a mesh splits the classes; their gradients go that way then.
    """

    features: Array
    kernel: Array
    bias: Array
    norm: Array
    top: Array
    top_logits: Array
    copies: chunked_head.Copies | None = None


Logits = Array | Head


def make(features: Array, kernel: Array, bias: Array) -> Head:
    """A head, after one pass over its classes.

    Args:
      features: ``[B,T,D]`` float32 or bfloat16; sums are float32.
      kernel: ``[D,C]``.
      bias: ``[C]``.
    """
    frames, copies = features.shape[:2], chunked_head.copies(features, kernel, bias)
    if copies is None:
        scan = chunked_head.scan_head(features.reshape(-1, features.shape[2]), kernel, bias)
    else:
        scan = chunked_head.scan_copies(copies)
    norm, top, top_logits = (a.reshape(*frames, *a.shape[1:]) for a in scan)
    return Head(features, kernel, bias, norm, top, top_logits, copies)


def num_classes(logits: Logits) -> int:
    """C."""
    return logits.kernel.shape[1] if isinstance(logits, Head) else logits.shape[2]


def num_frames(logits: Logits) -> int:
    """T."""
    return logits.features.shape[1] if isinstance(logits, Head) else logits.shape[1]


def dtype(logits: Logits) -> Any:
    """Of everything that follows from them: float32 at least."""
    return (logits.norm if isinstance(logits, Head) else wide(logits)).dtype


def constant(logits: Logits) -> Logits:
    """The same without a gradient."""
    return jax.tree.map(jax.lax.stop_gradient, logits)


def copies(logits: Logits, classes: int) -> Array | None:
    """The head's copies of the features, whose gradients add up once, for what else is split by class as the head is.

    Args:
      logits: of C classes.
      classes: rows of the other table.

    Returns:
      ``[model,B,T,D]``, or None where there are none or the table is whole on every device.
    """
    if isinstance(logits, Head) and logits.copies is not None and sharded_centers.are_split(classes):
        return logits.copies.features
    return None


def narrow(logits: Logits, features: Array) -> Array:
    """The features in the width that they were made in, where a head has kept them.

    Args:
      logits: made from them.
      features: ``[B,T,D]`` float32, what comes back otherwise.
    """
    return logits.features if isinstance(logits, Head) else features


def norm(logits: Logits) -> Array:
    """Log of the softmax's denominator: ``[B,T]``."""
    return logits.norm if isinstance(logits, Head) else jax.nn.logsumexp(wide(logits), 2)


def best(logits: Logits) -> Array:
    """The most probable class, the lowest of equals: ``[B,T]`` int32."""
    return logits.top[:, :, 0] if isinstance(logits, Head) else chunked_head.argmax(logits)[0]


def best_logit(logits: Logits) -> Array:
    """The logit of the most probable class: ``[B,T]``."""
    return logits.top_logits[:, :, 0] if isinstance(logits, Head) else wide(logits).max(-1)


def of_classes(logits: Logits, classes: Array) -> Array:
    """The logits of a few classes of each line.

    Args:
      logits: of C classes.
      classes: ``[B,K]`` int32.

    Returns:
      ``[B,T,K]``.
    """
    if not isinstance(logits, Head):
        return wide(jnp.take_along_axis(logits, classes[:, None, :], 2))
    if logits.copies is not None:
        return chunked_head.columns_of_copies(logits.copies, classes)
    own = chunked_head.product("btd,dbk->btk", logits.features, logits.kernel[:, classes])
    return own + wide(logits.bias)[classes][:, None, :]


def of_class(logits: Logits, number: int) -> Array:
    """The logits of one class: ``[B,T]``."""
    if not isinstance(logits, Head):
        return wide(logits[:, :, number])
    if logits.copies is not None:
        return of_classes(logits, jnp.full((len(logits.norm), 1), number, jnp.int32))[:, :, 0]
    own = chunked_head.product("btd,d->bt", logits.features, logits.kernel[:, number])
    return own + wide(logits.bias[number])


def of_frames(logits: Logits, classes: Array) -> Array:
    """The logit of one class of each frame.

    Args:
      logits: of C classes.
      classes: ``[B,T]`` int32.

    Returns:
      ``[B,T]``.
    """
    if not isinstance(logits, Head):
        return jnp.take_along_axis(wide(logits), classes[:, :, None], 2)[:, :, 0]
    if logits.copies is not None:
        return chunked_head.frames_of_copies(logits.copies, classes)
    columns = logits.kernel.T[classes]
    return chunked_head.product("btd,btd->bt", logits.features, columns) + wide(logits.bias)[classes]


def ranked(logits: Logits, excluded: Sequence[int] = ()) -> tuple[Array, Array, Array]:
    """The two most probable classes.

    Args:
      logits: of C classes.
      excluded: classes to leave out; of a `Head` at most one.

    Returns:
      ``[B,T]`` the first, ``[B,T]`` the second, and ``[B,T]`` bool, whether there is a second.

    Raises:
      ValueError: too many classes to leave out.
    """
    if isinstance(logits, Head):
        if len(excluded) > chunked_head.TOP - 2:
            raise ValueError(f"{len(excluded)} classes excluded; a head knows the {chunked_head.TOP} most probable ones, "
                             f"expected {chunked_head.TOP - 2} at most")  # fmt: skip
        top, values = logits.top, logits.top_logits
    else:
        numbers = jnp.arange(logits.shape[2], dtype=jnp.int32)
        top, values = jnp.broadcast_to(numbers[None, None], logits.shape), wide(logits)
    for other in excluded:
        values = jnp.where(top == other, -jnp.inf, values)
    at = jnp.argmax(values, -1)[:, :, None]
    rest = jnp.where(jnp.arange(values.shape[2])[None, None] == at, -jnp.inf, values)
    second = jnp.argmax(rest, -1)[:, :, None]
    first, second = (jnp.take_along_axis(top, k, 2)[:, :, 0] for k in (at, second))
    return first, second, ~jnp.isneginf(rest.max(-1))
