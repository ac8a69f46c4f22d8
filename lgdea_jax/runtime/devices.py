"""Accelerators: peaks, memory and bandwidth of one device, from the vendors' data sheets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

TERA, GIGA = 1e12, 1e9


@dataclasses.dataclass(frozen=True)
class Device:
    """One kind of accelerator.

    Attributes:
      name: ours, e.g. h100; kind: how JAX's `device_kind` begins.
      platform: tpu or cuda.
      peaks: dense matrix products, FLOP/s by operand type. `f32` is what JAX's default precision makes of float32
        (TF32 on GPUs, bfloat16 on TPUs), `f32_highest` full float32.
      bandwidth: of the main memory, bytes/s; memory: bytes (what data sheets call GB of memory is 2**30).
      source: the data sheet.
    """

    name: str
    kind: str
    platform: str
    peaks: Mapping[str, float]
    bandwidth: float
    memory: float
    source: str

    def peak(self, dtype: str) -> float:
        """FLOP/s of products of a type; of a type without a row, the slowest."""
        return self.peaks.get(dtype, min(self.peaks.values()))


def _gpu(name: str, kind: str, half: float, tf32: float, single: float, *, bandwidth: float, memory: float,
         source: str) -> Device:
    peaks = {"bf16": half, "f16": half, "s8": 2 * half, "u8": 2 * half, "f32": tf32, "f32_highest": single}
    return Device(name, kind, "cuda", {dtype: value * TERA for dtype, value in peaks.items()}, bandwidth * GIGA,
                  memory * 2**30, source)


def _tpu(name: str, kind: str, half: float, *, bandwidth: float, memory: float) -> Device:
    # Full float32 is six passes in bfloat16.
    peaks = {"bf16": half, "f32": half, "f32_highest": half / 6}
    return Device(name, kind, "tpu", {dtype: value * TERA for dtype, value in peaks.items()}, bandwidth * GIGA,
                  memory * 2**30, f"https://cloud.google.com/tpu/docs/{name}")


# The first whose kind fits is used, so longer names stand before shorter ones.
DEVICES = (
    _gpu("a100", "NVIDIA A100", 312, 156, 19.5, bandwidth=2039, memory=80,
         source="https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/nvidia-a100-datasheet.pdf"),
    _gpu("h100", "NVIDIA H100", 989, 494.5, 67, bandwidth=3350, memory=80,
         source="https://resources.nvidia.com/en-us-tensor-core/nvidia-tensor-core-gpu-datasheet"),
    _gpu("h200", "NVIDIA H200", 989, 494.5, 67, bandwidth=4800, memory=141,
         source="https://resources.nvidia.com/en-us-data-center-overview/hpc-datasheet-sc23-h200"),
    _tpu("v4", "TPU v4", 275, bandwidth=1228, memory=32),
    _tpu("v5e", "TPU v5 lite", 197, bandwidth=819, memory=16),
    _tpu("v5p", "TPU v5", 459, bandwidth=2765, memory=95),
    _tpu("v6e", "TPU v6 lite", 918, bandwidth=1640, memory=32),
)


def of_kind(device_kind: str) -> Device | None:
    """The device that JAX calls `device_kind`; None of one that is not in the table."""
    return next((device for device in DEVICES if device_kind.startswith(device.kind)), None)
