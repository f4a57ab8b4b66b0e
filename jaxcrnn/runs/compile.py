"""Devices and compilation: the only module that resolves platform choices and compiles the step of a run."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.sharding import Mesh

from jaxcrnn import _memory
from jaxcrnn._files import cache_folder
from jaxcrnn.model import ModelConfig
from jaxcrnn.parallel.mesh import everywhere, gathered
from jaxcrnn.parallel.ops import ops
from jaxcrnn.train import TrainConfig, train_step
from jaxcrnn.types import Batch, TrainState

# Options of XLA for `run.quick_compile` by platform. On CPUs, most time of a step is spent in products, which LLVM does
# not optimize. On GPUs, XLA generates many kernels for each matrix product and times them beside those of cuBLAS.
QUICK: dict[str, dict[str, Any]] = {
    "cpu": {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False},
    "gpu": {"xla_gpu_enable_triton_gemm": False},
}

Program = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, dict[str, Any]]]


def is_nvidia(device: Any) -> bool:
    """Return whether a device is a CUDA device, of this machine or described."""
    version = device.client.platform_version.lower() if device.platform == "gpu" else ""
    return "cuda" in version or "nvidia" in version  # the latter names devices that are only described


def for_device(model: ModelConfig, device: Any = None) -> ModelConfig:
    """Resolve ``conv``, ``lstm`` and ``ctc`` of a model for a device.

    ``conv="auto"`` is ``"winograd"`` on CPUs and ``"xla"`` elsewhere. ``lstm="auto"`` and ``ctc="auto"`` are
    ``"unrolled"`` on NVIDIA GPUs, where a loop of small kernels takes as long as starting them, and ``"scan"``
    elsewhere; docs/speed.md counts the kernels. ``"cudnn"`` and ``"pallas"`` become ``"scan"`` without an NVIDIA GPU.

    Args:
      model: configuration of the model.
      device: jax device, or a description of one; default: the first one of this process.

    >>> for_device(ModelConfig(), jax.devices("cpu")[0]).conv
    'winograd'
    """
    device = jax.devices()[0] if device is None else device
    conv, lstm, ctc = model.conv, model.lstm, model.ctc
    nvidia = is_nvidia(device)
    loop = "unrolled" if nvidia else "scan"
    if conv == "auto":
        conv = "winograd" if device.platform == "cpu" else "xla"
    if lstm == "auto" or (lstm == "cudnn" and not nvidia):
        lstm = loop
    if ctc == "auto" or (ctc == "pallas" and not nvidia):
        ctc = loop
    return dataclasses.replace(model, conv=conv, lstm=lstm, ctc=ctc)


def for_training(config: TrainConfig, mesh: Mesh) -> TrainConfig:
    """Resolve the configuration of a step for the devices of a mesh; results change only by rounding."""
    model = for_device(config.model, mesh.devices.flat[0])
    if mesh.size > 1 and model.ctc == "pallas":  # a kernel is not partitioned
        model = for_device(dataclasses.replace(model, ctc="auto"), mesh.devices.flat[0])
    return dataclasses.replace(config, model=model, ops=ops(mesh, model.num_classes))


def for_reading(config: TrainConfig, device: Any = None) -> TrainConfig:
    """Resolve the configuration for inference on a device, including ``model.inference_dtype``.

    Args:
      config: configuration of a run.
      device: jax device; default: the first one of this process.
    """
    device = jax.devices()[0] if device is None else device
    model, dtype = for_device(config.model, device), config.model.inference_dtype
    if dtype == "auto":
        dtype = "float32" if device.platform == "cpu" and model.dtype == "bfloat16" else model.dtype
    return dataclasses.replace(config, model=dataclasses.replace(model, dtype=dtype))


def for_few(config: TrainConfig, device: Any = None) -> TrainConfig:
    """Resolve the configuration for inference on few lines, whose programs must compile fast.

    It is that of `for_reading` with XLA's convolution instead of Winograd's on CPUs, unless ``model.conv`` is set.
    """
    model = config.model
    chosen = dataclasses.replace(model, conv="xla" if model.conv == "auto" else model.conv)
    return for_reading(dataclasses.replace(config, model=chosen), device)


def compile_step(
    config: TrainConfig,
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    mesh: Mesh,
    call: Callable[[Callable[[], jax.stages.Compiled]], jax.stages.Compiled] = lambda work: work(),
    *,
    quick: bool = False,
) -> Program:
    """Compile the train step for one batch shape.

    The new state reuses the memory and the shardings of the old one; ``info`` is replicated to every device.

    Args:
      config: configuration of the step; resolved for the mesh here (`for_training`).
      state: arrays, or shapes with shardings.
      batch: arrays, or shapes with shardings, to compile for.
      key: PRNG key of the run.
      mesh: device mesh of the run.
      call: calls the compiler, for example in another thread (`jaxcrnn.runs.signals.Notices.interruptible`).
      quick: compile with less optimization (`QUICK`).

    Returns:
      ``program(state, batch, key) -> (state, info)``.

    Raises:
      MemoryError: the program needs more memory than this process can have.
    """
    resolved = for_training(config, mesh)

    def step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, dict[str, Any]]:
        # Gathered once, to keep XLA from partitioning further products.
        return train_step(resolved, state._replace(params=gathered(mesh, state.params)), batch, key)

    shardings = jax.tree.map(lambda a: a.sharding, state), everywhere(mesh)
    jitted = jax.jit(step, donate_argnames="state", out_shardings=shardings)
    lowered = jitted.lower(state, batch, key)
    fast = QUICK.get(mesh.devices.flat[0].platform) if quick else None
    program = call(lambda: compiled(lowered, fast))
    _check_memory(program, mesh)
    return program


def compiled(lowered: jax.stages.Lowered, options: dict[str, Any] | None) -> jax.stages.Compiled:
    """Compile with options of XLA, or without those that this version of it does not have."""
    while options:
        try:
            return lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            unknown = next((name for name in options if name in str(error)), None)
            if unknown is None:
                raise
            options = {name: value for name, value in options.items() if name != unknown}
    return lowered.compile()


def _check_memory(program: jax.stages.Compiled, mesh: Mesh) -> None:
    """Check that a program for CPUs fits into memory; Linux grants what does not fit, and later kills the process.

    Raises:
      MemoryError: it does not fit.
    """
    if mesh.devices.flat[0].platform != "cpu" or (memory := _memory.limit()) is None:
        return
    use = program.memory_analysis()
    if use is not None and (needed := use.temp_size_in_bytes * len(mesh.local_devices)) > memory:
        raise MemoryError(f"it needs {_memory.size(needed)}, and at most {_memory.size(memory)} are available")


def cache_programs() -> None:
    """Enable jax's compilation cache in the user's cache folder, unless JAX_COMPILATION_CACHE_DIR is set."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))


@contextmanager
def uncached() -> Iterator[None]:
    """Disable the compilation cache in a context."""
    from jax.experimental.compilation_cache import compilation_cache

    before = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    try:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()  # the first compilation of a process decides whether the cache is used
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def trim_heap() -> bool:
    """Return freed memory to the system once, after a compilation whose memory no step needs again.

    Returns:
      Whether memory was returned; always False outside Linux and glibc.
    """
    if sys.platform != "linux":
        return False
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError):
        return False
