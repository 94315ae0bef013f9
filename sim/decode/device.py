"""The device that decodes: which one, what it can hold, and when it has finished."""

from __future__ import annotations

import gc
import os
import platform
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from sim.errors import UserError
from sim.pool import gib

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Number formats in which weights and K/V can be held."""


def resolve(name: str) -> torch.device:
    """Find a device by `cpu`, `cuda`, `cuda:N`, or `auto` (CUDA where there is one).  Raises UserError."""
    usable = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if usable else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: no such device; give cpu, cuda or cuda:N") from None
    if device.type not in {"cpu", "cuda"}:
        raise UserError(f"--device {name}: K/V is kept on cpu or cuda only")
    if device.type == "cuda" and not usable:
        raise UserError(f"--device {name}: torch {torch.__version__} sees no CUDA GPU here; use --device cpu")
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise UserError(f"--device {name}: there are {torch.cuda.device_count()} CUDA GPUs, numbered from 0")
    return device


def name_of(device: torch.device) -> str:
    """Name the device for people: the GPU's model, or the processor's architecture."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU {platform.machine()}"


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated: of the GPU, or of the machine's memory."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def demand_memory(device: torch.device, parts: Mapping[str, int]) -> None:
    """Raise UserError unless `parts` (what -> bytes) fit together in what is free on the device."""
    need, free = sum(parts.values()), free_bytes(device)
    if need > free:
        what = ", ".join(f"{part} {gib(size)}" for part, size in parts.items())
        raise UserError(
            f"{name_of(device)} has {gib(free)} free, {gib(need - free)} too little for {what}; "
            "a smaller device.kv_memory_gib, model or dtype would help"
        )


def release(device: torch.device) -> None:
    """Give memory that nobody refers to any more back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def finish(device: torch.device) -> None:
    """Wait until all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def as_served() -> Iterator[None]:
    """Have the host work as an engine's does while steps are timed.

    On one thread, as what it computes is too little to share; and without looking for garbage through all that is
    loaded, which would hold it up for many steps.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        torch.set_num_threads(threads)


def moved(array: npt.NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """Put an array on a device: on the CPU the very same memory, else copied through pinned memory, unwaited."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
