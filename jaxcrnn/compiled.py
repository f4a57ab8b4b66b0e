"""Compiled programs kept between calls: a step takes half a minute to compile on a CPU and a second to load."""

from __future__ import annotations

import os

import jax

from jaxcrnn.data.atlas import cache_folder


def keep_compiled() -> None:
    """Lets jax keep compiled programs in the user's cache folder, unless told where by its own variable."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
