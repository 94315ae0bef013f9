"""One run directory as the page's data: facts for the template, and one payload per allocator.

The allocators share a budget of rows and cells, so that a page of eight is not four times the size
of a page of two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.figures import Allocator, group, offered
from analysis.metrics import good
from analysis.observed import Columns, Observed
from analysis.page.blockmap import block_map
from analysis.page.divergence import divergences
from analysis.page.gantt import about_owners, everyone, gantt, kept, select
from analysis.page.notable import notable, waits
from analysis.page.overview import bars, table
from analysis.page.style import HANDING_OUT
from analysis.page.ticks import ticks
from analysis.page.timeline import detail_windows, timeline
from analysis.page.words import Finding, contrast, findings, reserves
from analysis.parts import page_rows
from analysis.reading import Run, RunDirectory
from analysis.sustained import sustained
from analysis.together import Together, draws, slos

ROW_BUDGET = 24_000
CELL_BUDGET = 34_000_000
EXTRA_WINDOWS = 4
SAME = 0.99
"""Share of the largest pool from which on another one counts as the same: what is no whole block is left over."""


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
