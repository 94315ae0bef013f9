"""The cost model's named coefficients, and the calibration file that holds fitted ones.

Each field says in its metadata what it is and where its default comes from.  Defaults describe
a modern engine (fused kernels, CUDA graphs) as measured on one H100 with torch 2.11 and
FlashInfer 0.5.3; on other devices they are an assumption that `calibrate` can replace.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from sim.errors import UserError, suggest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def _coefficient(default: float, meaning: str, source: str) -> float:
    value: float = field(default=default, metadata={"is": meaning, "from": source})
    return value


@dataclass(frozen=True)
class Coefficients:
    """Fractions of the device's peaks that are reached, and times that no peak explains."""

    memory_efficiency: float = _coefficient(
        0.87, "share of memory bandwidth reached by matrix products and copies", "H100: 8B products at batch 64 and 256"
    )
    compute_efficiency: float = _coefficient(
        0.807, "share of peak FLOP/s reached by matrix products", "H100: 798 of 989 TFLOP/s on 8192 x 8192 in bf16"
    )
    overlap_loss: float = _coefficient(
        0.45,
        "part of the shorter of compute and memory time that the longer does not hide; 0 is the roofline",
        "H100: 8B products at batch 64 and 256",
    )
    attention_memory_efficiency: float = _coefficient(
        0.89, "share of memory bandwidth reached reading K/V", "H100: FlashInfer decode, batch 64 to 256"
    )
    attention_compute_efficiency: float = _coefficient(
        0.5, "share of peak FLOP/s reached by attention", "FlashAttention-3 paper: between FA2 and FA3 on H100"
    )
    attention_layer_s: float = _coefficient(
        12e-6, "time of an attention call beyond its traffic, a layer", "H100: FlashInfer decode, batch 64 to 256"
    )
    step_overhead_s: float = _coefficient(
        0.87e-3, "host work, launches, norms and sampling, a step", "H100: 8B step at batch 64 and 256"
    )
    sequence_overhead_s: float = _coefficient(
        0.0, "host work for each scheduled sequence", "H100: no growth with batch"
    )
    allreduce_latency_s: float = _coefficient(10e-6, "latency of an all-reduce, two a layer", "assumed")
    link_efficiency: float = _coefficient(0.8, "share of link bandwidth an all-reduce reaches", "assumed")
    pcie_efficiency: float = _coefficient(0.8, "share of PCIe bandwidth a swap reaches", "assumed")
    transfer_overhead_s: float = _coefficient(0.0, "time of a host transfer beyond its bytes", "assumed")
    page_map_s: float = _coefficient(40e-6, "mapping one physical page", "vAttention paper")
    page_unmap_s: float = _coefficient(40e-6, "unmapping one physical page", "vAttention paper")
    paged_attention_overhead: float = _coefficient(
        0.0,
        "extra time of attention through a block table, as a fraction",
        "modern kernels; PagedAttention Fig. 18a: 0.2",
    )
    naive_passes: float = _coefficient(
        4.0, "times a score crosses device memory in naive attention", "write and read scores, write and read weights"
    )

    def changed(self, values: Mapping[str, Any], where: str) -> Coefficients:
        """Return a copy with `values` put in.  Raises UserError at the first unknown name or bad number."""
        known = {entry.name for entry in fields(self)}
        for name, value in values.items():
            if name not in known:
                raise UserError(f"{where}: unknown coefficient {name!r}{suggest(name, known)}")
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
                raise UserError(f"{where}: {name}: {value!r} is not a number of at least 0")
        return replace(self, **{name: float(value) for name, value in values.items()})


def load_calibration(path: Path) -> Coefficients:
    """Read the coefficients of a calibration file: `{"schema": 1, "coefficients": {name: number}}`."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict) or content.get("schema") != 1 or not isinstance(content.get("coefficients"), dict):
        raise UserError(f'{path}: not a calibration file (wanted {{"schema": 1, "coefficients": {{...}}}})')
    return Coefficients().changed(content["coefficients"], str(path))
