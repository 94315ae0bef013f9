"""Two curves over the length of a sequence, measured and modelled: what a K/V cache saves, and what scores cost.

Without a cache every step recomputes all tokens, so the time of a token grows with the length.
Naive attention writes the scores of every pair to memory and FlashAttention does not, so the time
and memory of the former grow with the square of the length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from sim.costs.evidence import seconds as fitted_seconds
from sim.costs.load import Load
from sim.costs.model import CostModel
from sim.decode.device import DTYPES, finish
from sim.decode.grid import Extent, decode
from sim.decode.peaks import seconds_of
from sim.decode.scene import Patience
from sim.decode.testbed import stage_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sim.costs.calibration import Calibration
    from sim.costs.coefficients import Coefficients
    from sim.decode.model import Decoder
    from sim.devices import Device
    from sim.models.geometry import Geometry

    Row = dict[str, Any]

KERNELS = {"naive": SDPBackend.MATH, "flash": SDPBackend.FLASH_ATTENTION}
"""SDPA's kernels by what the cost model calls them."""
DECODES = 16
"""Sequences that decode at once in the attention curve: one alone does not fill a GPU."""
MOST_SCORES_GIB = 16.0
"""Naive attention is not asked for scores beyond this."""


def cache_curve(
    decoder: Decoder, found: Calibration, device: Device, lengths: Sequence[int], backend: str
) -> list[Row]:
    """Time the next token of one sequence with and without a cache.

    Args:
        decoder: the model.
        found: its calibration on the device.
        device: whose peaks that calibration refers to.
        lengths: tokens of the sequence before the step.
        backend: attends, with a cache.

    Returns:
        a row for each length and way: measured and simulated seconds of the step.

    """
    rows = []
    for kind, way in (("paged", "cached"), ("no-cache", "recomputed")):
        extent = Extent(seats=1, tokens=max(lengths) + 1, longest=max(lengths))
        stage = stage_for(decoder, kind, extent, backend, device)
        points = [stage.measure(decode(1, length, way), Patience(most=9, seconds=0.5)) for length in lengths]
        simulated = fitted_seconds(points, decoder.geometry, device, found.coefficients)
        rows += [
            {"way": way, "tokens": length, "measured_s": point.measured_s, "simulated_s": float(second)}
            for length, point, second in zip(lengths, points, simulated, strict=True)
        ]
        del stage
    return rows


def attention_curve(
    geometry: Geometry, device: Device, where: torch.device, coefficients: Coefficients, lengths: Sequence[int]
) -> Iterator[Row]:
    """Time one layer's attention, and take note of the memory it needs, with SDPA's math and flash kernels.

    Args:
        geometry: whose heads attend.
        device: for the cost model.
        where: on which device to run.
        coefficients: of the cost model.
        lengths: tokens of the sequence.

    Yields:
        a row for each length, phase and kernel; memory only on a GPU, beyond inputs and output.

    """
    for length in lengths:
        prefill = Load(length, length * (length + 1) // 2, length, 1, samples=1)
        decoding = Load(decode_seqs=DECODES, decode_context=DECODES * length, samples=DECODES)
        for phase, load, count in (("prefill", prefill, 1), ("decode", decoding, DECODES)):
            queries = length if phase == "prefill" else 1
            scores = count * geometry.heads * queries * length * geometry.element_bytes
            for name, kernel in KERNELS.items():
                if name == "naive" and scores > MOST_SCORES_GIB * 2**30:
                    continue
                model = CostModel(geometry, device, coefficients, attention="naive" if name == "naive" else "flash")
                row = {"phase": phase, "tokens": length, "sequences": count, "kernel": name}
                row |= _timed(geometry, where, queries, length, count, kernel)
                yield row | {
                    "simulated_s": model.attention_s(load) / geometry.layers,
                    "scores_bytes": scores if name == "naive" else 0,
                }


def _timed(geometry: Geometry, where: torch.device, queries: int, length: int, count: int, kernel: SDPBackend) -> Row:
    """Run one layer's attention with one of SDPA's kernels."""
    dtype = DTYPES[geometry.model.dtype]
    query = torch.randn((count, geometry.heads, queries, geometry.head_dim), dtype=dtype, device=where)
    key, value = torch.randn((2, count, geometry.heads, length, geometry.head_dim), dtype=dtype, device=where)
    on_gpu = where.type == "cuda"
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # else in fp32

    def attend() -> torch.Tensor:
        return scaled_dot_product_attention(query, key, value, is_causal=queries > 1)

    with sdpa_kernel(kernel), torch.inference_mode():
        measured = seconds_of(attend, where)
        if not on_gpu:
            return {"measured_s": measured}
        finish(where)
        torch.cuda.reset_peak_memory_stats(where)
        before = torch.cuda.memory_allocated(where)
        output = attend()
        finish(where)
        peak = torch.cuda.max_memory_allocated(where) - before - output.numel() * output.element_size()
        return {"measured_s": measured, "extra_bytes": peak}
