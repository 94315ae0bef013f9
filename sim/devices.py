"""GPUs, as their datasheets describe them, and the user's own."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.errors import UserError, suggest
from workloads.values import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

GIB = 2**30
DEVICES = Path(__file__).parent / "data" / "devices.toml"
MOST = 1e9
"""No device has so many GiB, TB/s or TFLOP/s."""
FAR = 10
"""Times the most of all shipped devices, beyond which a figure looks like a slip of the unit."""
NEEDED = ("memory_gib", "bandwidth_tbps", "bf16_tflops")
"""What a device without a shipped name must say."""


@dataclass(frozen=True)
class Device:
    """One GPU.  Rates are peaks."""

    name: str
    memory_bytes: int
    """What a program can allocate: the total of cudaMemGetInfo, less than nvidia-smi shows."""
    bandwidth: float
    """Device memory, bytes a second."""
    flops: Mapping[str, float]
    """Dense floating-point operations a second by dtype."""
    pcie_bandwidth: float
    """To and from the host, one direction, bytes a second."""
    link_bandwidth: float
    """To the other GPUs of the host, one direction, bytes a second."""
    source: str
    """Where the figures come from."""
    multiprocessors: int = 132
    """Of one GPU; only how attention is split depends on it (`sim.costs.splitting`).  Those of an H100 if not known."""
    kv_memory_bytes: int | None = None
    """Memory of the K/V cache on this GPU where the user gives it; None for what weights and activations leave."""
    price_per_hour: float | None = None
    """What it costs, where the user says; none is shipped."""

    def peak(self, dtype: str) -> float:
        """Dense floating-point operations a second for `dtype`; bf16's rate where there is no unit for it."""
        return self.flops.get(dtype, self.flops["bf16"])

    def doubts(self) -> list[str]:
        """Say which figures are so far above those of all shipped GPUs that another unit may be meant."""
        shipped = shipped_devices().values()
        figures = {
            "memory_gib": (self.memory_bytes / GIB, max(one.memory_bytes for one in shipped) / GIB),
            "bandwidth_tbps": (self.bandwidth / 1e12, max(one.bandwidth for one in shipped) / 1e12),
            "bf16_tflops": (self.peak("bf16") / 1e12, max(one.peak("bf16") for one in shipped) / 1e12),
        }
        return [
            f"device: {key} {given:,.10g} is {given / most:,.0f} times that of any GPU listed: look at its unit"
            for key, (given, most) in figures.items()
            if given > FAR * most
        ]

    def explain(self) -> list[tuple[str, str]]:
        """What is assumed of the device, as (what, how much) rows."""
        rates = ", ".join(f"{dtype} {rate / 1e12:g}" for dtype, rate in self.flops.items())
        price = [] if self.price_per_hour is None else [("price", f"{self.price_per_hour:g} a GPU and hour")]
        return [
            ("device", f"{self.name} ({self.source})"),
            ("GPU memory", f"{self.memory_bytes / GIB:.2f} GiB"),
            ("memory bandwidth", f"{self.bandwidth / 1e12:g} TB/s"),
            ("peak TFLOP/s", rates),
            ("host link", f"{self.pcie_bandwidth / 1e9:g} GB/s"),
            ("GPU link", f"{self.link_bandwidth / 1e9:g} GB/s"),
            *price,
        ]


def shipped_devices() -> dict[str, Device]:
    """Devices that come with the simulator, by name."""
    table = tomllib.loads(DEVICES.read_text(encoding="utf-8"))
    return {
        name: Device(
            name=name,
            memory_bytes=round(row["memory_gib"] * GIB),
            bandwidth=row["bandwidth_tbps"] * 1e12,
            flops={dtype: rate * 1e12 for dtype, rate in row["tflops"].items()},
            pcie_bandwidth=row["pcie_gbps"] * 1e9,
            link_bandwidth=row["link_gbps"] * 1e9,
            source=row["source"],
            multiprocessors=row["multiprocessors"],
        )
        for name, row in table.items()
    }


CHANGES: Mapping[str, Callable[[Device, float], Device]] = {
    "memory_gib": lambda device, value: replace(device, memory_bytes=round(value * GIB)),
    "bandwidth_tbps": lambda device, value: replace(device, bandwidth=value * 1e12),
    "bf16_tflops": lambda device, value: replace(
        device, flops={**device.flops, "bf16": value * 1e12, "fp16": value * 1e12}
    ),
    "fp8_tflops": lambda device, value: replace(device, flops={**device.flops, "fp8": value * 1e12}),
    "fp32_tflops": lambda device, value: replace(device, flops={**device.flops, "fp32": value * 1e12}),
    "pcie_gbps": lambda device, value: replace(device, pcie_bandwidth=value * 1e9),
    "link_gbps": lambda device, value: replace(device, link_bandwidth=value * 1e9),
    "kv_memory_gib": lambda device, value: replace(device, kv_memory_bytes=round(value * GIB)),
    "multiprocessors": lambda device, value: replace(device, multiprocessors=round(value)),
    "price_per_hour": lambda device, value: replace(device, price_per_hour=value),
}
"""What a user may say of a device, by its key in workload files (`kv_memory_gib` for each GPU)."""


def resolve_device(spec: str | Mapping[str, Any]) -> Device:
    """Find a device and vary it.

    Args:
        spec: a shipped name; or a mapping of `name` and any keys of `CHANGES`; without a name at least `memory_gib`,
            `bandwidth_tbps` and `bf16_tflops`.

    Raises:
        UserError: in one line.

    """
    values = {"name": spec} if isinstance(spec, str) else spec
    known = ("name", *CHANGES)
    for key in values:
        if key not in known:
            raise UserError(f"device: unknown key {shown(key)}{suggest(key, known)}; known are {', '.join(known)}")
    device = _named(values["name"]) if "name" in values else _custom(values)
    for key, change in CHANGES.items():
        if key in values:
            device = change(device, _positive(values[key], key))
    return device


def _named(name: object) -> Device:
    devices = shipped_devices()
    device = devices.get(str(name).lower())
    if device is None:
        known = f"known are {', '.join(devices)}"
        raise UserError(
            f"device: {shown(name)} is not known{suggest(name, devices)}; {known}, or give {', '.join(NEEDED)}"
        )
    return device


def _custom(values: Mapping[str, Any]) -> Device:
    missing = [key for key in NEEDED if key not in values]
    if missing:
        raise UserError(f"device: {', '.join(missing)} missing (give a name, or {', '.join(NEEDED)})")
    return Device("custom", 0, 0.0, {}, 32e9, 32e9, "given by the user; PCIe generation 4 unless said")


def _positive(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MOST:
        raise UserError(f"device: {key}: {shown(value)} is not a positive number up to {MOST:.0e}")
    return float(value)
