"""Devices that are not at hand, for the compiler: `h100x8` or `v5e:4x4` to what JAX compiles for.

TPUs need libtpu, GPUs the CUDA plug-in; neither needs a device or a driver (the extra `aot`).
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax

from lgdea_jax.errors import UserError, choose, pip_line
from lgdea_jax.runtime.devices import DEVICES, Device

# Module that compiles for a platform, and its name for people.
NEEDS = {"tpu": ("libtpu", "libtpu"), "cuda": ("jax_plugins.xla_cuda12", "the CUDA plug-in of JAX")}
# libtpu asks a server of the cloud what it runs on unless it is told.
TPU_ENVIRONMENT = {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_MIN_LOG_LEVEL": "3",
                   "TPU_ACCELERATOR_TYPE": "v5litepod-4", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
# Settings of the compiler, tried in turn until one compiles. Triton's products are tuned on the device; without one it
# takes tiles at random, and may find none. Its fused softmax and norms fail for some small shapes (jaxlib 0.10.2).
OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "tpu": ({},),
    "cuda": ({"xla_gpu_enable_triton_gemm": False},
             {"xla_gpu_enable_triton_gemm": False, "xla_disable_hlo_passes": "triton-softmax-rewriter"})}
GPUS_OF_A_HOST = 8


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A GPU for XLA's `GpuTargetConfigProto`: what the generation has, and what the product has."""

    compute: int  # Major version of the compute capability; the minor one is 0.
    cores: int
    units: int  # Single-precision units of a core.
    shared: int  # Bytes of a core's shared memory.
    shared_most: int  # Of it, that one block may use.
    cache: int  # Bytes of the second level.
    gigahertz: float
    name: str  # As the driver gives it.


# https://docs.nvidia.com/cuda/cuda-c-programming-guide, technical specifications per compute capability; the data
# sheets of the products.
GPUS = {
    "a100": Sizes(8, 108, 64, 164 * 1024, 163 * 1024, 40 * 2**20, 1.41, "NVIDIA A100-SXM4-80GB"),
    "h100": Sizes(9, 132, 128, 228 * 1024, 227 * 1024, 50 * 2**20, 1.98, "NVIDIA H100 80GB HBM3"),
    "h200": Sizes(9, 132, 128, 228 * 1024, 227 * 1024, 50 * 2**20, 1.98, "NVIDIA H200"),
}


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices to compile for.

    Attributes:
      text: as the user wrote it; device: of the table; shape: of the grid of TPUs, or (number of GPUs,).
    """

    text: str
    device: Device
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Devices."""
        return math.prod(self.shape)


def read_targets(text: str) -> list[Target]:
    """ "v5e:2x2,h100x8" to targets.

    Raises:
      UserError: an unknown device, or a number that it does not come in.
    """
    return [read_target(part.strip()) for part in text.split(",") if part.strip()]


def read_target(text: str) -> Target:
    """One target: a TPU with its grid (v5e:4x4), a GPU (h100), or several on one or more hosts (h100x8, h100x16).

    Raises:
      UserError: as of `read_targets`.
    """
    found = re.fullmatch(r"(v\w+):(\d+(?:x\d+)*)|(\w*?[a-z]\d+)(?:x(\d+))?", text)
    known = {device.name: device for device in DEVICES}
    name = (found[1] or found[3]) if found else text
    device = known[choose("device of dry_run_on", name, known)]
    if (device.platform == "tpu") != bool(found and found[1]):
        example = f"{name}:2x2" if device.platform == "tpu" else f"{name}x8"
        raise UserError(f"dry_run_on={text}: write {example}")
    shape = tuple(int(size) for size in (found[2] or "1" if found[1] else found[4] or "1").split("x"))
    count = math.prod(shape)
    if device.platform == "cuda" and count > GPUS_OF_A_HOST and count % GPUS_OF_A_HOST:
        raise UserError(f"dry_run_on={text}: at most {GPUS_OF_A_HOST} GPUs, or whole hosts of {GPUS_OF_A_HOST}")
    if not count:
        raise UserError(f"dry_run_on={text}: at least one device")
    return Target(text, device, shape)


def missing(target: Target) -> str:
    """What must be installed to compile for a target, with the command; "" if it is there."""
    module, name = NEEDS[target.device.platform]
    try:
        there = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        there = False
    return "" if there else f"dry_run_on={target.text} needs {name}: {pip_line('aot')}"


def devices_of(target: Target) -> Sequence[Any]:
    """The devices of a target, as JAX takes them in a mesh.

    Raises:
      UserError: the compiler for them is not installed, or knows no such grid.
    """
    if line := missing(target):
        raise UserError(line)
    from jax.experimental import topologies

    try:
        if target.device.platform == "tpu":
            for name, value in TPU_ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            topology = topologies.get_topology_desc(platform="tpu", topology_name=target.text)
        else:
            hosts = max(1, target.count // GPUS_OF_A_HOST)
            topology = topologies.get_topology_desc(
                platform="cuda", target_config=target_config(target.device),
                topology=f"{hosts}x{target.count // hosts}x1")
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        raise UserError(f"dry_run_on={target.text}: {' '.join(str(error).split())[:200]}") from None
    return topology.devices


def target_config(device: Device) -> str:
    """A GPU as XLA's compiler wants it described: the text form of its `GpuTargetConfigProto`."""
    sizes = GPUS[device.name]
    numbers = {
        "threads_per_block_limit": 1024, "threads_per_warp": 32, "shared_memory_per_block": 48 * 1024,
        "shared_memory_per_core": sizes.shared, "shared_memory_per_block_optin": sizes.shared_most,
        "threads_per_core_limit": 2048, "core_count": sizes.cores, "fpus_per_core": sizes.units,
        "block_dim_limit_x": 2**31 - 1, "block_dim_limit_y": 2**16 - 1, "block_dim_limit_z": 2**16 - 1,
        "thread_dim_limit_x": 1024, "thread_dim_limit_y": 1024, "thread_dim_limit_z": 64,
        "registers_per_core_limit": 2**16, "registers_per_block_limit": 2**16,
        "memory_bandwidth": int(device.bandwidth), "device_memory_size": int(device.memory),
        "l2_cache_size": sizes.cache, "clock_rate_ghz": sizes.gigahertz,
    }
    fields = "\n".join(f"  {name}: {value}" for name, value in numbers.items())
    return (f"gpu_device_info {{\n{fields}\n  cuda_compute_capability {{ major: {sizes.compute} minor: 0 }}\n"
            f'  name: "{sizes.name}"\n}}\nplatform_name: "CUDA"\ndnn_version_info {{ major: 9 minor: 10 patch: 0 }}\n'
            f'device_description_str: "{sizes.name}"\n')
