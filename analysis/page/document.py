"""One run directory as the page's data: facts for the template, and one payload per allocator.

The allocators share a budget of rows and cells, so that a page of eight is not four times the size
of a page of two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.figures import COST, Allocator, bound, group, offered, percent_of
from analysis.metrics import good
from analysis.observed import SHARES, Columns, Observed
from analysis.page.blockmap import block_map
from analysis.page.divergence import divergences
from analysis.page.gantt import about_owners, everyone, gantt, kept, select
from analysis.page.notable import notable, waits
from analysis.page.style import HANDING_OUT
from analysis.page.ticks import ticks
from analysis.page.timeline import detail_windows, timeline
from analysis.page.words import Finding, contrast, findings, reserves
from analysis.parts import page_rows
from analysis.reading import Run, RunDirectory
from analysis.saturation import MEANINGS
from analysis.sustained import sustained
from analysis.together import Together, draws, slos

ROW_BUDGET = 24_000
CELL_BUDGET = 34_000_000
EXTRA_WINDOWS = 4
LATE = 0.7
"""Part of the time until the last arrival after which no load is steady any more: a warm-up is sought in 3/4 of it."""
SAME = 0.99
"""Share of the largest pool from which on another one counts as the same: what is no whole block is left over."""
BARS: tuple[tuple[str, str, str, float], ...] = (
    ("batch_size", "Batch, mean", "sequences", 1),
    ("throughput_rps", "Throughput", "requests/s", 1),
    ("goodput_rps", "Goodput, within the SLO", "requests/s", 1),
    ("normalized_latency_s.p50", "Latency per token, p50", "ms", 1e3),
    ("normalized_latency_s.p99", "Latency per token, p99", "ms", 1e3),
    ("ttft_s.p99", "Time to first token, p99", "s", 1),
    ("tpot_s.p50", "Time per output token, p50", "ms", 1e3),
    ("kv_efficiency", "Live / held", "%", 100),
    ("prefix_hit_rate", "Prefix hits", "%", 100),
    ("preemptions", "Preemptions", "", 1),
    (COST, "Cost of a million output tokens", "", 1),
)
"""Figures drawn as bars: name, title, unit, scale."""


def document(directory: RunDirectory) -> dict[str, Any]:
    """Reduce a run directory to what the page needs.

    Raises:
        RunDirectoryError: a file of the directory cannot be read.

    """
    allocators = group(directory.summary())
    firsts = {run.label: run for run in directory.runs if run.repeat == 0}
    runs = [firsts[one.label] for one in allocators]
    requests = [run.requests() for run in runs]
    steps = [run.lazy_steps for run in runs]
    served = draws(directory)
    parted = divergences(requests, steps, [served[run.label] for run in runs])
    extra = sorted({one.time_s for one in parted.values()})[:EXTRA_WINDOWS]
    windows = [detail_windows(each, extra) for each in steps]
    waited = [waits(*each) for each in zip(requests, steps, strict=True)]
    noted = [notable(*each) for each in zip(requests, steps, waited, strict=True)]
    chosen = select(
        requests,
        [window for each in windows for window in each],
        [*(one.request_id for one in parted.values()), *(one.request_id for each in noted for one in each)],
    )
    limits = slos(directory)
    columns = [
        _column(*each, chosen=chosen, slo=limits[each[0].label], share=len(runs))
        for each in zip(runs, allocators, requests, steps, windows, strict=True)
    ]
    for run, came, column, notes, queued in zip(runs, requests, columns, noted, waited, strict=True):
        column["facts"] |= {"draw": served[run.label], "notable": [one._asdict() for one in notes]}
        column["facts"] |= {"requests": len(came["request_id"])}
        column["payload"]["requests"] |= queued.packed(kept(came, chosen))
    left, right = _pair(directory, allocators)
    sizes = [run.pool_bytes for run in runs]
    same_pool = min(sizes) > SAME * max(sizes)
    labels = [one.label for one in allocators]
    rows = table(allocators)
    return {
        "facts": {
            "name": directory.name,
            "columns": [column["facts"] for column in columns],
            "pair": [labels.index(left.label), labels.index(right.label)],
            "bars": bars(allocators, directory.manifest.get("expect") or {}),
            "divergences": {f"{a},{b}": one._asdict() for (a, b), one in parted.items()},
            "requests": {"shown": len(chosen), "total": len(everyone(requests))},
        },
        "payloads": [column["payload"] for column in columns],
        "findings": [
            *findings(allocators, (left, right), same_pool=same_pool),
            *(Finding("result", words) for words in sustained(allocators)),
            *_unlike(served),
        ],
        "table": rows,
        "parts": page_rows(allocators),
        "offered": offered(allocators),
        "hero": _hero(rows, left, right, {run.label: int(run.facts["block_size"]) for run in runs}),
    }


def _unlike(served: Mapping[str, int]) -> list[Finding]:
    """Warn if not all runs served the same requests."""
    if len(set(served.values())) < 2:
        return []
    return [
        Finding(
            "warning",
            "These directories did not serve the same requests at the same times; their figures differ by that, too.",
        )
    ]


def _hero(
    rows: list[dict[str, Any]], left: Allocator, right: Allocator, block_sizes: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Rows of the two pools at the top: how each hands memory out, and the figure that the headline is about."""
    labels = list(dict.fromkeys((left.label, right.label)))
    chosen = [
        row | {"how": handing_out(row["kind"], block_sizes[label])}
        for label in labels
        for row in rows
        if row["label"] == label
    ]
    if left is right or reserves(left):
        return [row | {"figure": row["batch"], "unit": "sequences at once"} for row in chosen]
    return [row | {"figure": row["latency_p50"], "unit": "ms a token, median"} for row in chosen]


def handing_out(kind: str, block_size: int) -> str:
    """Say how an allocator of a kind hands memory out; nothing of one that is not ours."""
    slots = "one token slot" if block_size == 1 else f"{block_size:,} token slots"
    return HANDING_OUT.get(kind, "").format(slots=slots)


def _pair(directory: RunDirectory, allocators: list[Allocator]) -> tuple[Allocator, Allocator]:
    """Choose the two columns shown first; of joined directories, one allocator in both of them."""
    if isinstance(directory, Together):
        first, second = (group(part.summary()) for part in directory.parts[:2])
        shared = [one.label for one in first if any(one.label == other.label for other in second)]
        known = {one.label: one for one in allocators}
        if shared:
            label = next((one.label for one in first if one.kind == "paged" and one.label in shared), shared[0])
            one, two = (known[f"{label} ({part.path.name})"] for part in directory.parts[:2])
            return one, two
    return contrast(allocators)


def _column(
    run: Run,
    allocator: Allocator,
    requests: Columns,
    steps: Columns,
    windows: list[tuple[float, float]],
    *,
    chosen: Any,
    slo: Mapping[str, float | None],
    share: int,
) -> dict[str, Any]:
    blocks, events = run.blocks(), run.events()
    size = int(run.facts["block_size"])
    time = timeline(steps, ROW_BUDGET // max(share, 6), windows)
    raster = block_map(blocks, int(run.facts["num_blocks"]), size, CELL_BUDGET // max(share, 4)) if blocks else None
    parts = run.facts.get("parts") or []
    bars_of = gantt(requests, chosen, blocks, events, misses(requests, steps, slo), parts)
    marks = ticks(steps, requests, events)
    entry = allocator.entries[0]
    return {
        "facts": {
            "until": time.until,
            "label": allocator.label,
            "kind": allocator.kind,
            "scheduler": allocator.scheduler,
            "verdict": str(allocator.verdict),
            "capacity": run.capacity,
            "block_size": size,
            "num_blocks": int(run.facts["num_blocks"]),
            "slot_bytes": float(run.facts["block_bytes"]) / size,
            "ledger": entry["ledger"],
            "steady": entry["steady"] and [entry["steady"]["from_s"], entry["steady"]["until_s"]],
            "rows": {"shown": len(time.rows), "total": time.total},
            "events": {"counts": marks.counts, "kept": marks.kept, "exact": marks.exact, "reasons": marks.reasons},
            "reasons": bars_of.reasons,
            "parts": parts,
            "groups": int(np.max(requests["prefix_group"], initial=-1)) + 1,
            "map": None
            if raster is None
            else {"shown": len(raster.instants), "recorded": raster.snapshots, "stride": raster.stride},
        },
        "payload": {
            "steps": time.data,
            "requests": bars_of.data,
            "events": marks.data,
            "map": None if raster is None else raster.packed() | about_owners(raster.owners, requests, parts),
        },
    }


def misses(requests: Columns, steps: Columns, slo: Mapping[str, float | None]) -> npt.NDArray[np.bool_]:
    """Tell which requests missed a limit of the SLO, or never finished although there is one: all but goodput's."""
    if not any(slo.values()):
        return np.zeros(len(requests["request_id"]), np.bool_)
    return ~good(Observed(requests, steps, 1, slo))


def bars(allocators: list[Allocator], expected: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Figures of all allocators with intervals, percentages of ideal and published values.

    What was published as a range, or as a multiple of another run's, stands in the table of such figures alone
    (`analysis.published`).
    """
    drawn = []
    for name, title, unit, scale in BARS:
        rows = []
        for one in allocators:
            ideal = bound(allocators, one)
            low, high, basis = spread(one, name)
            given = expected.get(one.label, {}).get(name)
            plain = given if isinstance(given, Mapping) else {"value": given}
            published = None if plain.get("over") else plain.get("value")
            rows.append(
                {
                    "value": _finite(scale * one.mean(name)),
                    "low": _finite(scale * low),
                    "high": _finite(scale * high),
                    "basis": basis,
                    "ideal": _finite(percent_of(one, ideal, name)),
                    "published": None if published is None else scale * published,
                }
            )
        if any(row["value"] for row in rows):
            drawn.append({"name": name, "title": title, "unit": unit, "rows": rows})
    return drawn


def spread(one: Allocator, name: str) -> tuple[float, float, str]:
    """95 % interval of a figure: over replications, else by the bootstrap within the run, else none."""
    if len(one.entries) > 1:
        interval = one.interval(name)
        return interval.low, interval.high, "replications"
    head, _, quantile = name.partition(".")
    value = one.entries[0]["metrics"].get(head)
    if isinstance(value, Mapping) and value.get("ci95"):
        low, high = value["ci95"][quantile or "mean"]
        return (float("nan"), float("nan"), "") if low is None else (float(low), float(high), "requests")
    return float("nan"), float("nan"), ""


def table(allocators: list[Allocator]) -> list[dict[str, Any]]:
    """Rows of the table at the top of the page."""
    return [
        {
            "label": one.label,
            "kind": one.kind,
            "scheduler": one.scheduler,
            "verdict": str(one.verdict),
            "meaning": MEANINGS[one.verdict],
            "shares": {name: _finite(one.mean(f"share.{name}")) or 0.0 for name in SHARES},
            "batch": one.mean("batch_size"),
            "peak": one.mean("batch_size.peak"),
            "batch_of_ideal": percent_of(one, bound(allocators, one), "batch_size"),
            "throughput": one.mean("throughput_rps"),
            "steady": _steady(one),
            "throughput_of_ideal": percent_of(one, bound(allocators, one), "throughput_rps"),
            "latency_p50": 1e3 * one.mean("normalized_latency_s.p50"),
            "latency_p99": 1e3 * one.mean("normalized_latency_s.p99"),
            "ttft_p50": one.mean("ttft_s.p50"),
            "ttft_p99": one.mean("ttft_s.p99"),
            "tpot_p50": 1e3 * one.mean("tpot_s.p50"),
            "tpot_p99": 1e3 * one.mean("tpot_s.p99"),
            "preemptions": one.mean("preemptions"),
            "efficiency": 100 * one.mean("kv_efficiency"),
            "finished": one.count("finished"),
            "total": one.count("total"),
            "refused": one.count("refused"),
            "unfinished": one.count("unfinished"),
        }
        for one in allocators
    ]


def _steady(one: Allocator) -> float:
    """Requests that left a second while the load was steady, over the replications in which it was; NaN if in none."""
    steady = [entry for entry in one.entries if (when := entry["steady"]) and when["from_s"] <= LATE * when["until_s"]]
    return Allocator(one.label, steady).mean("steady.throughput_rps")


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
