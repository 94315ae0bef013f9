"""The cost model's named coefficients.

The metadata of each coefficient say what it is (`is`) and where its default comes from (`from`).
Defaults describe a modern engine with fused products under CUDA graphs, as measured on one H100 with
torch 2.11 and FlashInfer 0.5.3 on the Llama-3.1-8B geometry at a context of 1,024.  For other
devices and models they are assumptions, which `calibrate` replaces by a fit (`sim.costs.calibration`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from sim.errors import UserError, suggest
from workloads.values import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

REPLAYED = frozenset(
    {
        "memory_efficiency",
        "compute_efficiency",
        "overlap_loss",
        "step_overhead_s",
        "layer_overhead_s",
        "prefill_layer_s",
        "sequence_overhead_s",
        "captured_tokens",
        "attention_memory_efficiency",
        "attention_compute_efficiency",
        "paged_attention_overhead",
        "paged_block_overhead",
    }
)
"""Coefficients that describe captured steps.  They have no effect where a calibration has measured such steps, so
setting one of them turns the look-up of measured times off (`sim.costs.captured`)."""


def _coefficient(default: float, meaning: str, source: str, most: float = math.inf) -> float:
    value: float = field(default=default, metadata={"is": meaning, "from": source, "most": most})
    return value


@dataclass(frozen=True)
class Coefficients:
    """Shares of the device's peaks that are reached, and times that no peak explains (seconds, names end in _s)."""

    step_factor: float = _coefficient(
        1.0,
        "all steps take this many times as long as the rest says, as on another machine with the same device",
        "assumed 1; decodes on four machines with an H200 took 0.978 to 1.016 times as long as on a fifth",
    )
    wide_factor: float = _coefficient(
        1.0,
        "captured steps of 25 and more tokens that are not bound by compute take this many times as long besides",
        "assumed 1; 0.97 to 1.00 on four machines with an H200, as narrower steps take longer on some",
    )
    many_factor: float = _coefficient(
        1.0,
        "captured steps of 96 and more decodes take this many times as long besides, whatever bounds them",
        "assumed 1; 0.97 on an H200 beside another one with the 8B, whose decodes then draw much power",
    )
    compute_factor: float = _coefficient(
        1.0,
        "steps that are bound by compute (those that prefill, and all other captured ones) take this many times as "
        "long besides, as on another machine",
        "assumed 1; on those four, prefills took 1.00 to 1.02 times as long, whatever decodes did",
    )
    memory_efficiency: float = _coefficient(
        0.84,
        "share of memory bandwidth that matrix products reach",
        "fit: fused 8B products took 5.84 ms at batch 64 and 7.34 ms at 256",
    )
    compute_efficiency: float = _coefficient(
        0.807,
        "share of peak FLOP/s that matrix products reach",
        "measured: 798 of 989 TFLOP/s, bf16, 8192 x 8192 x 8192",
    )
    overlap_loss: float = _coefficient(
        0.33,
        "part of the shorter of memory and compute time that the longer does not hide; 0 is the ideal roofline",
        "the same fit",
    )
    attention_memory_efficiency: float = _coefficient(
        0.89,
        "share of memory bandwidth that attention reaches reading K/V",
        "fit: FlashInfer decode took 102 us a layer at batch 64 and 372 us at 256; the difference",
    )
    attention_compute_efficiency: float = _coefficient(
        0.5,
        "share of peak FLOP/s that attention reaches",
        "FlashAttention-3 paper, H100: 0.35 with FlashAttention-2 to 0.75 with 3",
    )
    repeated_reads_cached: float = _coefficient(
        0.0,
        "share of the K/V that decodes read again, as several sequences list the same blocks, that the L2 cache still "
        "has and device memory need not serve; 0 if what is shared does not fit there",
        "assumed: every read is served by device memory; `calibrate` measures it where decodes share prefixes",
        most=1.0,
    )
    step_overhead_s: float = _coefficient(
        0.61e-3,
        "host work, launches and sampling, a step",
        "fit: what remained of 1B and 8B steps under CUDA graphs, batch 1 to 256",
    )
    layer_overhead_s: float = _coefficient(
        20e-6,
        "norms, rotary embedding, launches and the latency of attention, a layer",
        "the same fit, 16 and 32 layers",
    )
    prefill_layer_s: float = _coefficient(
        0.0,
        "a layer in a step that prefills: chunks and decodes attend one after the other",
        "assumed: hidden behind the products of a larger step",
    )
    sequence_overhead_s: float = _coefficient(
        0.0, "host work for each scheduled sequence", "measured: that remainder did not grow with the batch"
    )
    prefill_host_s: float = _coefficient(
        0.0,
        "host work for a step: one that prefills and is replayed from a CUDA graph waits for as much of it as the step "
        "before does not hide; any step for all of it, if no step ran before or that was launched kernel by kernel",
        "assumed: hidden behind steps of a larger model; `calibrate` measures it in a run",
    )
    launch_layer_s: float = _coefficient(
        0.0,
        "launching one layer kernel by kernel, as steps with a prefill do that no CUDA graph replays; "
        "a floor under such a step",
        "assumed of modern engines: launches are hidden behind the kernels",
    )
    launch_beside_layer_s: float = _coefficient(
        0.0,
        "the same for attention of decodes, where some are in such a step: it has a kernel of its own",
        "assumed of modern engines: launches are hidden behind the kernels",
    )
    launch_lead_s: float = _coefficient(
        0.0,
        "host work before the first kernel of such a step, hidden by the step before unless the host waits for its end",
        "assumed of modern engines: hidden behind the step before",
    )
    captured_tokens: float = _coefficient(
        0.0,
        "prefill tokens up to which a step is replayed from a CUDA graph, not launched kernel by kernel",
        "assumed 0; `calibrate` enters what its runtime captures",
    )
    power_throttle: float = _coefficient(
        0.0,
        "share by which a step that prefills takes longer, if its prompts alone are bound by compute, where such steps "
        "have long drawn more power than the device may",
        "assumed 0; on seven H200s the 8B took 0.11 to 0.14 longer: 1.98 GHz fell to 1.44 to 1.67 at 710 to 870 W",
    )
    power_reserve_s: float = _coefficient(
        0.0,
        "how long the device may do so, from rest, before its clock begins to fall",
        "assumed 0, which matters only beside `power_throttle`; on an H200 0.02",
    )
    power_constant_s: float = _coefficient(
        0.04,
        "time constant of the average of power that the limit is of: how fast the clock falls, and the reserve returns",
        "measured on an H200: 0.04 with the 8B; matters only beside `power_throttle`",
    )
    power_slowdown: float = _coefficient(
        0.0,
        "share by which other steps, such as decodes, take longer behind so many of those that they no longer have any "
        "reserve; behind fewer as much less as the average of power is lower",
        "assumed 0; on seven H200s decodes of the 8B took up to 0.025 to 0.04 longer",
    )
    separate_launch_layer_s: float = _coefficient(
        0.0,
        "the same where attention goes sequence by sequence (growing tensors), under every step",
        "assumed: one kernel attends for the whole batch",
    )
    sequence_launch_layer_s: float = _coefficient(
        0.0,
        "the same for appending to the tensors of each of those sequences and attending to them",
        "assumed: one kernel attends for the whole batch",
    )
    recompute_launch_layer_s: float = _coefficient(
        0.0, "the same where nothing is cached, under every step", "assumed: hidden behind the products"
    )
    recompute_slowdown: float = _coefficient(
        0.0,
        "share by which a step takes longer where nothing is cached, if it is bound by compute: as all such steps are, "
        "the clock of a device at its power limit does not recover; nor are small kernels fused",
        "assumed 0; on an H200 0.34 for the 1B",
    )
    paged_attention_overhead: float = _coefficient(
        0.0,
        "extra time of decode attention that reads through a block table, as a fraction",
        "assumed of modern kernels; PagedAttention paper, Fig. 18a: 0.20 to 0.26 in 2023",
    )
    paged_block_overhead: float = _coefficient(
        0.0,
        "extra time of decode attention for each block of the table that it reads, in times that one slot takes",
        "assumed; `calibrate` measures it: FlashInfer on an H200 0.08 (8B) to 0.25 (1B), which matters at 1 slot only; "
        "for the kernel of the PagedAttention paper 3.68, if all of Fig. 18a's 0.23 at 16 slots is due to blocks "
        "(section 7.2: small ones leave the GPU idle)",
    )
    copy_efficiency: float = _coefficient(
        0.907, "share of memory bandwidth that copies reach, read and written", "measured: 3.04 of 3.35 TB/s"
    )
    naive_passes: float = _coefficient(
        4.0,
        "times a score crosses device memory in naive attention",
        "scores written and read, weights written and read: FlashAttention paper, algorithm 0",
    )
    allreduce_latency_s: float = _coefficient(
        10e-6, "time of an all-reduce beyond its traffic", "assumed: small messages over NVLink"
    )
    link_efficiency: float = _coefficient(0.8, "share of link bandwidth that an all-reduce reaches", "assumed")
    pcie_efficiency: float = _coefficient(
        0.8, "share of PCIe bandwidth that a swap reaches", "assumed: 25.6 of 32 GB/s"
    )
    swap_overhead_s: float = _coefficient(
        0.0,
        "a step that swaps, beyond its copies to or from the host",
        "assumed: copies are asynchronous; `calibrate` measures it",
    )
    transfer_overhead_s: float = _coefficient(
        3e-6,
        "time of a copy to or from the host beyond its bytes; a swapped block is one for K and one for V a layer",
        "assumed: a cudaMemcpyAsync; PagedAttention paper, section 7.3: many small transfers",
    )
    page_map_s: float = _coefficient(
        40e-6,
        "mapping one physical page of 2 MiB",
        "vAttention paper, table 3, as remembered: cuMemMap 2 us, cuMemSetAccess 38; pages are created at the start",
    )
    page_unmap_s: float = _coefficient(
        34e-6, "unmapping one physical page of 2 MiB", "vAttention paper, table 3, as remembered: cuMemUnmap"
    )
    small_page_map_s: float = _coefficient(
        8e-6,
        "mapping one physical page of 64 KiB, as a driver changed for it does",
        "vAttention paper, table 3, as remembered: vMemMap, which also gives access",
    )
    small_page_doubling_s: float = _coefficient(
        0.5e-6,
        "the same, more for each doubling of the page, below 2 MiB",
        "vAttention paper, table 3, as remembered: 8, 8.5 and 9 us at 64, 128 and 256 KiB; assumed to go on like that",
    )
    small_page_unmap_s: float = _coefficient(
        0.0,
        "unmapping one physical page below 2 MiB",
        "vAttention's source: its driver is not called, the next mapping replaces this one",
    )

    def changed(self, values: Mapping[str, Any], where: str) -> Coefficients:
        """Return a copy with `values` put in.  Raises UserError at the first unknown name or bad number."""
        known = {entry.name: entry.metadata["most"] for entry in fields(self)}
        for name, value in values.items():
            if name not in known:
                raise UserError(f"{where}: unknown coefficient {shown(name)}{suggest(name, known)}; see `list costs`")
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise UserError(f"{where}: {name}: {shown(value)} is not a number of at least 0")
            if name.endswith("_factor") and value == 0:
                raise UserError(f"{where}: {name}: is more than 0; steps that take no time are of no engine")
            if name.endswith("_efficiency") and value == 0:
                raise UserError(f"{where}: {name}: an efficiency is more than 0")
            if value > known[name]:
                raise UserError(f"{where}: {name}: {value:g} is more than {known[name]:g}, which is all")
        return replace(self, **{name: float(value) for name, value in values.items()})

    @classmethod
    def meaning(cls, name: str) -> str:
        """Say what a coefficient is."""
        return str(next(entry.metadata["is"] for entry in fields(cls) if entry.name == name))

    def explain(self) -> list[tuple[str, str]]:
        """Return every coefficient as a (name, value and meaning) row, which says if it is not the default."""
        rows = []
        for entry in fields(self):
            value = getattr(self, entry.name)
            source = entry.metadata["from"] if value == entry.default else f"set; default {entry.default:g}"
            rows.append((entry.name, f"{value:g}: {entry.metadata['is']} ({source})"))
        return rows
