"""Compiled programs kept between calls: a step takes half a minute to compile on a CPU and a second to load."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from jaxcrnn.render.atlas import cache_folder


def keep_compiled() -> None:
    """Lets jax keep compiled programs in the user's cache folder, unless told where by its own variable."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))


@contextmanager
def nothing_kept() -> Iterator[None]:
    """Programs that are compiled inside are neither read from the cache nor written to it."""
    from jax.experimental.compilation_cache import compilation_cache

    before = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    try:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()  # or the first compilation of the process has decided for all
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()
