"""Devices that XLA can compile for although they are not present: slices of TPUs, and NVIDIA GPUs."""

from __future__ import annotations

import math
import os
import re
from typing import Any, NamedTuple

import jax

from jaxcrnn._text import first_line
from jaxcrnn.errors import UserError

# GiB of memory per chip (from Google's documentation of Cloud TPU), libtpu's name of a slice, and cores per chip.
_TPUS = {
    "v4": (32, "v4-{cores}", 2),
    "v5e": (16, "v5litepod-{chips}", 1),
    "v5p": (95, "v5p-{cores}", 2),
    "v6e": (32, "v6e-{chips}", 1),
}


class _Gpu(NamedTuple):
    """What XLA must know of a GPU; all have compute capability 9.0 and 132 multiprocessors.

    Attributes:
      name: name of the product.
      memory: bytes of memory that the driver reports.
      bandwidth: bytes per second.
    """

    name: str
    memory: int
    bandwidth: int


_GPUS = {
    "h100": _Gpu("NVIDIA H100 80GB HBM3", 84_942_979_072, 3_352_320_000_000),
    "h200": _Gpu("NVIDIA H200", 143_771 * 2**20, 4_800_000_000_000),
}
_USED = 0.75  # share of a GPU's memory that jax allocates by default
# The fields of XLA's GpuTargetConfigProto, with the limits that CUDA's documentation states for compute capability 9.0.
_TARGET = """
gpu_device_info {{
  cuda_compute_capability {{ major: 9 }}
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  l2_cache_size: 52428800 device_memory_size: {gpu.memory} memory_bandwidth: {gpu.bandwidth}
}}
platform_name: "CUDA"
runtime_version {{ major: 12 minor: 8 }}
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{gpu.name}"
"""


def find(name: str | None) -> tuple[list[Any], int | None]:
    """Return the devices of a name, and the bytes of memory of each if known.

    Args:
      name: generation and topology of TPUs, such as ``"v5e:2x2"``; a GPU, such as ``"h100"``, or several of one
        machine, such as ``"h100:8"``; default: the devices of this machine.

    Raises:
      UserError: the name is unknown, or the compiler for these devices is not installed.
    """
    if not name:
        devices = jax.devices()
        stats = devices[0].memory_stats() or {}
        return devices, stats.get("bytes_limit")
    kind, _, shape = name.partition(":")
    if kind in _GPUS and re.fullmatch(r"(:[1-9]\d*)?", name[len(kind) :]):
        return _gpus(name, _GPUS[kind], int(shape or 1))
    if kind in _TPUS and re.fullmatch(r"\d+(x\d+){1,2}", shape):
        return _tpus(name, kind, shape)
    raise UserError(
        f"--device {name}: expected a TPU generation ({', '.join(_TPUS)}) and topology, such as v5e:2x2, or a GPU "
        f"({', '.join(_GPUS)}) and the number of them, such as h100:8; drop --device for the devices of this machine"
    )


def _tpus(name: str, kind: str, shape: str) -> tuple[list[Any], int]:
    memory, slice_name, cores = _TPUS[kind]
    chips = math.prod(map(int, shape.split("x")))
    # Otherwise libtpu would wait for the machine's metadata server.
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_ACCELERATOR_TYPE": slice_name.format(chips=chips, cores=chips * cores),
    }
    needs = "no TPU compiler, or an unknown topology", "it needs the extra 'tpu' and an existing topology"
    devices = _topology(name, needs, "tpu", name)
    return devices, memory * 2**30


def _gpus(name: str, gpu: _Gpu, count: int) -> tuple[list[Any], int]:
    shape = f"1x1x{count}"  # slices, machines and GPUs of each
    target = _TARGET.format(gpu=gpu)
    needs = "no CUDA compiler", "it needs the extra 'cuda'"
    devices = _topology(name, needs, "cuda", shape, topology=shape, target_config=target)
    return devices, int(_USED * gpu.memory)


def _topology(name: str, needs: tuple[str, str], platform: str, shape: str, **options: str) -> list[Any]:
    jax.config.update("jax_platforms", "cpu")  # keeps jax from looking for the described device
    jax.devices()  # registers the compilers
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(platform=platform, topology_name=shape, **options).devices)
    except Exception as error:  # compilers raise several types
        why = first_line(error)[:160]
        raise UserError(f"--device {name}: {needs[0]} ({why}); {needs[1]}") from None
