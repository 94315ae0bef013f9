"""Finds which shipped device a GPU is; for any other device, measures its peaks."""

from __future__ import annotations

import re
import time
from statistics import median
from typing import TYPE_CHECKING

import torch

from sim.decode.device import finish, free_bytes
from sim.devices import GIB, shipped_devices

if TYPE_CHECKING:
    from collections.abc import Callable

COPIED = {"cuda": 1 << 30, "cpu": 1 << 26}
"""Bytes of the copy that measures bandwidth: far more than any cache holds."""
SIDE = {"cuda": 8192, "cpu": 512}
"""Rows of the square matrices whose product measures arithmetic."""
REPEATS = 7


def shipped_name(device: str) -> str | None:
    """Find the shipped device that a GPU's own name means, such as h100-80gb for NVIDIA H100 80GB HBM3."""
    words = set(re.split(r"[^a-z0-9]+", device.lower()))
    return next((name for name in shipped_devices() if set(name.split("-")) <= words), None)


def peaks_of(device: torch.device) -> dict[str, float]:
    """Measure what describes a device in a workload file.

    That is memory_gib, bandwidth_tbps, bf16_tflops and, of a GPU, multiprocessors.  Bandwidth counts the bytes that a
    copy reads and writes.  Arithmetic is that of bf16 on a GPU, and on a CPU of fp32, in which models run there.
    """
    source = torch.ones(COPIED[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copying = seconds_of(lambda: target.copy_(source), device)
    side, dtype = SIDE[device.type], torch.bfloat16 if device.type == "cuda" else torch.float32
    matrix = torch.randn((side, side), dtype=dtype, device=device)
    multiplying = seconds_of(lambda: matrix @ matrix, device)
    units = {}
    if device.type == "cuda":
        units["multiprocessors"] = torch.cuda.get_device_properties(device).multi_processor_count
    return {
        "memory_gib": round(free_bytes(device) / GIB, 2),
        "bandwidth_tbps": float(f"{2 * len(source) / copying / 1e12:.4g}"),
        "bf16_tflops": float(f"{2 * side**3 / multiplying / 1e12:.4g}"),
        **units,
    }


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Time some work on a device: the median of `REPEATS` times, after one that does not count."""
    times = []
    for _ in range(REPEATS + 1):
        finish(device)
        began = time.perf_counter()
        work()
        finish(device)
        times.append(time.perf_counter() - began)
    return median(times[1:])
