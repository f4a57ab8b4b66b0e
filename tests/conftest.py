"""Strict flags for every test, and one small data set on disk."""

import os
from importlib.metadata import version

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs that tests start get as many: how work is split among threads depends on it, and with that the last bit.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
# Tests compile far more than they compute: without LLVM's optimisation and with XLA's older way of making loops a step
# compiles in a fourth of the time (12.1 s of CPU time with the first flag alone, 3.0 s with both); with each program in
# one piece it takes a sixth less again. XLA ends the program at a flag it does not know, and newer ones no longer know
# the second.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    + (
        " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        if version("jaxlib").startswith("0.10.")
        else ""
    ),
)

import functools
import gc
import importlib.util
import tempfile
from pathlib import Path

# Strict for the programs that tests start too; and several tests compile the same step, so the workers and these
# programs share what was compiled in this run. All in the environment, before jax looks there.
os.environ |= {
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_TRACEBACK_IN_LOCATIONS_LIMIT": "0",  # a twentieth of the time goes into source locations nobody reads
}
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(tempfile.gettempdir(), f"jaxcrnn-tests-{os.getppid()}"))

import jax
import pytest
from helpers import SyntheticLines

from jaxcrnn.data.labels import write_lines

# Thousands of traced programs stay alive, and each full collection walks them all: a fifth of the time.
gc.set_threshold(200_000, 50, 1000)

SHARED = Path(__file__).resolve().parents[2] / "shared"
NEEDS = {
    "torch": "PyTorch is not installed",
    "gpu": "needs an NVIDIA GPU: JAX_PLATFORMS=cuda pytest -m gpu",
    "shared": "the folder of shared data is not beside the checkout",
}


@pytest.fixture(scope="session")
def lines_file(tmp_path_factory):
    """A label file of 24 rendered lines of digits, short because tests run code that is not optimised."""
    return write_lines(tmp_path_factory.mktemp("lines"), SyntheticLines(7, 24, "0123456789", (1, 2)))


@pytest.fixture(scope="session")
def shared():
    """The folder of real data and recorded outputs beside a checkout."""
    return SHARED


def calls_main(function):
    """Whether a test calls what its file imports as `main`, the command line."""
    return "main" in getattr(getattr(function, "__code__", None), "co_names", ())


def pytest_collection_modifyitems(items):
    """Add the markers that follow from what a test uses, and skip what cannot run here."""
    # Asking jax for its devices takes a second, and most runs have no such test.
    missing = {
        "torch": functools.cache(lambda: importlib.util.find_spec("torch") is None),
        "gpu": functools.cache(lambda: jax.default_backend() != "gpu"),
        "shared": functools.cache(lambda: not SHARED.is_dir()),
    }
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker("shared")
        if item.path.parent.name == "cli" or calls_main(getattr(item, "function", None)):
            item.add_marker("cli")
        for name in missing.keys() & {mark.name for mark in item.iter_markers()}:
            if missing[name]():
                item.add_marker(pytest.mark.skip(reason=NEEDS[name]))
