"""Cost models to ask, and loads to ask them for."""

from __future__ import annotations

from typing import Any

from sim.costs.coefficients import Coefficients
from sim.costs.load import Load
from sim.costs.model import CostModel
from sim.devices import resolve_device
from sim.models.geometry import resolve_model

H100 = resolve_device("h100-80gb")
LLAMA = resolve_model("llama-3.1-8b")
REPLAYED = Coefficients(captured_tokens=512.0)
"""Of an engine whose small prefills are replayed from CUDA graphs."""
ROOFLINE = Coefficients(
    memory_efficiency=1.0,
    compute_efficiency=1.0,
    overlap_loss=0.0,
    attention_memory_efficiency=1.0,
    attention_compute_efficiency=1.0,
    layer_overhead_s=0.0,
    step_overhead_s=0.0,
    transfer_overhead_s=0.0,
    copy_efficiency=1.0,
    link_efficiency=1.0,
    pcie_efficiency=1.0,
    allreduce_latency_s=0.0,
)
"""The peaks and nothing else, so that times can be computed by hand."""


def model(spec: str | dict[str, Any], device: str = "h100-80gb", **more: Any) -> CostModel:
    """Return the cost model of a geometry on a device."""
    return CostModel(resolve_model(spec), resolve_device(device), more.pop("coefficients", None), **more)


def decode(batch: int, context: int) -> Load:
    """`batch` sequences that each read `context` tokens."""
    return Load(decode_seqs=batch, decode_context=batch * context, samples=batch)


def prompt(tokens: int, start: int = 0, count: int = 1) -> Load:
    """`count` chunks of `tokens` tokens after `start` others."""
    return Load(
        prefill_tokens=count * tokens,
        prefill_pairs=count * (tokens * start + tokens * (tokens + 1) // 2),
        prefill_context=count * (start + tokens),
        prefill_seqs=count,
        samples=count,
    )
