"""GPUs, as their datasheets describe them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from sim.errors import UserError, suggest

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB, GIB = 2**20, 2**30


@dataclass(frozen=True)
class Device:
    """One GPU.  Rates are peaks; what of them is reached is the cost model's business."""

    name: str
    memory_bytes: int
    """What CUDA can hand out."""
    bandwidth: float
    """Device memory, bytes a second."""
    flops: Mapping[str, float]
    """Dense floating-point operations a second by dtype."""
    pcie_bandwidth: float
    """To the host, one direction, bytes a second."""
    link_bandwidth: float
    """To the other GPUs of the host, one direction, bytes a second."""
    source: str
    kv_memory_bytes: int | None = None
    """Memory given to the K/V cache, if the user says; else what weights and activations leave."""

    def peak(self, dtype: str) -> float:
        """Dense floating-point operations a second for `dtype`; where there is no such unit, bf16's rate."""
        return self.flops.get(dtype, self.flops["bf16"])


@cache
def shipped_devices() -> dict[str, Device]:
    """Devices that come with the simulator, by name."""
    table = tomllib.loads((resources.files("sim") / "data" / "devices.toml").read_text())
    return {
        name: Device(
            name,
            row["memory_mib"] * MIB,
            row["bandwidth_tbps"] * 1e12,
            {dtype: rate * 1e12 for dtype, rate in row["tflops"].items()},
            row["pcie_gbps"] * 1e9,
            row["link_gbps"] * 1e9,
            row["source"],
        )
        for name, row in table.items()
    }


def resolve_device(spec: str | Mapping[str, Any]) -> Device:
    """Find a device and vary it.

    Args:
        spec: a shipped name; or a mapping with `name`, or without one all of `memory_gib`, `bandwidth_tbps` and
            `bf16_tflops`, and any of those and `kv_memory_gib`, `pcie_gbps`, `link_gbps`.

    Raises:
        UserError: in one line.

    """
    if isinstance(spec, str):
        spec = {"name": spec}
    known = ("name", "memory_gib", "bandwidth_tbps", "bf16_tflops", "pcie_gbps", "link_gbps", "kv_memory_gib")
    for key, value in spec.items():
        if key not in known:
            raise UserError(f"device: unknown key {key!r}{suggest(key, known)}")
        if key != "name" and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0):
            raise UserError(f"device: {key}: {value!r} is not a positive number")
    if "name" in spec:
        devices = shipped_devices()
        name = str(spec["name"]).lower()
        if name not in devices:
            raise UserError(f"device: {name!r} is not known{suggest(name, devices)}; known are {', '.join(devices)}")
        device = devices[name]
    else:
        missing = [key for key in ("memory_gib", "bandwidth_tbps", "bf16_tflops") if key not in spec]
        if missing:
            raise UserError(
                f"device: {missing[0]} is missing (give a name, or memory_gib, bandwidth_tbps and bf16_tflops)"
            )
        device = Device("custom", 0, 0.0, {}, 32e9, 32e9, "given by the user")
    if "memory_gib" in spec:
        device = replace(device, memory_bytes=round(spec["memory_gib"] * GIB))
    if "bandwidth_tbps" in spec:
        device = replace(device, bandwidth=spec["bandwidth_tbps"] * 1e12)
    if "bf16_tflops" in spec:
        rate = spec["bf16_tflops"] * 1e12
        device = replace(device, flops={**device.flops, "bf16": rate, "fp16": rate})
    if "pcie_gbps" in spec:
        device = replace(device, pcie_bandwidth=spec["pcie_gbps"] * 1e9)
    if "link_gbps" in spec:
        device = replace(device, link_bandwidth=spec["link_gbps"] * 1e9)
    if "kv_memory_gib" in spec:
        device = replace(device, kv_memory_bytes=round(spec["kv_memory_gib"] * GIB))
    return device
