"""A snapshot for PyTorch's memory viewer (pytorch.org/memory_viz): the pool as one segment.

The viewer was made for the CUDA caching allocator; the block map fits it well.  The pool
is a segment, a KV block (or a contiguous reservation) an allocation; what of a block is empty shows as rounding
(`requested_size < size`); the frames on hover name the request and the block.  Its limits
are kept to: plain types only, pickle protocol 4, and one event of category "unknown",
without which its page stays blank.  Its x-axis counts events, not seconds.

Events are the differences between consecutive snapshots of the block map, so allocations
that came and went between two snapshots are not seen.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from analysis.export.errors import ExportError
from analysis.observed import Columns
from analysis.reading import Run, RunDirectory
from analysis.whole import whole

BASE = 1 << 40
"""Address of the pool; block b starts at BASE + (b - 1) * block_bytes."""
EVENTS = 15_000
"""The viewer draws so many allocations; the window is cut at the snapshot that comes to more, and that is said."""
NOBODY, CACHED = -2, -1
Plain: TypeAlias = dict[str, Any]


def write(
    directory: RunDirectory,
    folder: Path,
    labels: list[str],
    window: tuple[float, float],
    note: Callable[[str], object],
) -> list[Path]:
    """Write `<run>.snapshot.pickle` for the first replication of every label that has a block map."""
    written = []
    for run in directory.runs:
        blocks = run.blocks() if run.label in labels and run.repeat == 0 else None
        if blocks is None or not len(blocks["time_s"]):
            continue
        target = folder / _name(run)
        with whole(target) as part, part.open("wb") as file:
            made = snapshot(run, blocks, window)
            pickle.dump(made, file, protocol=4)
        last, end = made["device_traces"][0][-1]["time_us"] / 1e6, min(window[1], run.end)
        if len(made["device_traces"][0]) > EVENTS:
            note(
                f"{run.label}: only up to {last:.6g} s of {end:.6g} s, as the viewer draws no more events than "
                f"{EVENTS:,}; --after {last:.6g} shows what follows"
            )
        written.append(target)
    if not written:
        recorded = (directory.manifest.get("workload") or {}).get("telemetry") or {}
        why = "run it with telemetry.blocks: sampled" if recorded.get("blocks") == "off" else "nothing held a block"
        raise ExportError(f"{directory.path}: no block map was recorded; {why}")
    return written


def files(directory: RunDirectory, labels: list[str]) -> list[str]:
    """Names of the files that are written, if there is a block map for each."""
    return [_name(run) for run in directory.runs if run.label in labels and run.repeat == 0]


def _name(run: Run) -> str:
    return f"{run.facts['dir']}.snapshot.pickle"


def snapshot(run: Run, blocks: Columns, window: tuple[float, float]) -> Plain:
    """Make the snapshot as plain Python values.

    Raises:
        ExportError: no snapshot of the block map lies in the window.

    """
    size, count = int(run.facts["block_bytes"]), int(run.facts["num_blocks"])
    times = np.asarray(blocks["time_s"], np.float64)
    instants = np.unique(times)
    instants = instants[(instants >= window[0]) & (instants <= window[1])]
    if not len(instants):
        raise ExportError(
            f"{run.label}: none of the snapshots of the block map, from {times.min():g} to {times.max():g} s, is in "
            "that time; --after and --until give another"
        )
    pool = {"addr": BASE, "size": size * count, "stream": 0, "frames": _frames("kvsim", 0, f"KV pool of {run.label}")}
    trace: list[Plain] = [
        {"action": "segment_alloc", "time_us": round(instants[0] * 1e6), "category": "unknown", **pool}
    ]
    refusals = _refusals(run, window, size)
    held: dict[Piece, int] = {}
    for instant in instants.tolist():
        if len(trace) > EVENTS:
            break
        while refusals and refusals[0]["time_us"] <= instant * 1e6:
            free = (count - sum(piece.blocks for piece in held)) * size
            trace.append({**refusals.pop(0), "device_free": free})
        rows = slice(*np.searchsorted(times, (instant, np.nextafter(instant, np.inf))).tolist())
        now = _pieces(blocks, rows, int(run.facts["block_size"]))
        stamp = round(instant * 1e6)
        for piece in sorted(held.keys() - now.keys()):
            freed = _event(piece, size, stamp)
            trace += [{**freed, "action": "free_requested"}, {**freed, "action": "free_completed"}]
        trace += [{**_event(piece, size, stamp), "action": "alloc"} for piece in sorted(now.keys() - held.keys())]
        held = now
    return {"segments": [_segment(run, held, size)], "device_traces": [trace]}


class Piece(NamedTuple):
    """What the viewer sees as one allocation: a KV block, or a whole reservation where blocks are single slots."""

    first: int
    """Physical block, from 1."""
    blocks: int
    request: int
    """Owner; CACHED if it is only kept for reuse."""

    @property
    def who(self) -> str:
        """Owner in words."""
        return "cached" if self.request == CACHED else f"request-{self.request}"


def _pieces(blocks: Columns, rows: slice, block_size: int) -> dict[Piece, int]:
    """Pieces of one snapshot and the slots filled in each."""
    found: dict[Piece, int] = {}
    columns = (blocks[name][rows].tolist() for name in ("block", "count", "request_id", "slack"))
    for first, length, request, slack in zip(*columns, strict=True):
        filled = length * block_size - slack
        if block_size == 1:
            found[Piece(first, length, request)] = filled
            continue
        for place in range(length):
            found[Piece(first + place, 1, request)] = min(max(filled - place * block_size, 0), block_size)
    return found


def _event(piece: Piece, size: int, stamp: int) -> Plain:
    return {
        "addr": BASE + (piece.first - 1) * size,
        "size": piece.blocks * size,
        "stream": 0,
        "time_us": stamp,
        "frames": _frames(piece.who, piece.first, "block"),
        "category": piece.who,
    }


def _frames(filename: str, line: int, name: str) -> list[Plain]:
    return [{"filename": filename, "line": line, "name": name}]


def _refusals(run: Run, window: tuple[float, float], size: int) -> list[Plain]:
    """Refused requests as out-of-memory events, by time."""
    names = ("request_id", "arrival_s", "prompt_tokens", "output_tokens", "samples", "status", "reason")
    requests = run.requests(names)
    arrived = np.asarray(requests["arrival_s"], np.float64)
    rows = np.flatnonzero((requests["status"] == "refused") & (arrived >= window[0]) & (arrived <= window[1]))
    # the last token said is not stored; as events.parquet counts what a request would need in the end
    ends = np.asarray(requests["prompt_tokens"], np.int64) + requests["output_tokens"] - 1
    blocks = -(-ends * requests["samples"] // int(run.facts["block_size"]))
    return [
        {
            "action": "oom",
            "addr": 0,
            "size": int(blocks[row]) * size,
            "stream": 0,
            "time_us": round(float(arrived[row]) * 1e6),
            "frames": _frames(f"request-{requests['request_id'][row]}", 0, str(requests["reason"][row])),
        }
        for row in rows.tolist()
    ]


def _segment(run: Run, held: dict[Piece, int], size: int) -> Plain:
    """The pool at the end of the window, free stretches between the pieces."""
    count, slot_bytes = int(run.facts["num_blocks"]), size // int(run.facts["block_size"])
    listed: list[Plain] = []
    place = 1
    for piece in [*sorted(held), Piece(count + 1, 0, NOBODY)]:
        if piece.first > place:
            free = (piece.first - place) * size
            address = BASE + (place - 1) * size
            listed.append({"address": address, "size": free, "requested_size": free, "state": "inactive", "frames": []})
        if piece.request != NOBODY:
            listed.append(
                {
                    "address": BASE + (piece.first - 1) * size,
                    "size": piece.blocks * size,
                    "requested_size": held[piece] * slot_bytes,
                    "state": "active_allocated",
                    "frames": _frames(piece.who, piece.first, "block"),
                }
            )
        place = piece.first + piece.blocks
    active = sum(part["size"] for part in listed if part["state"] == "active_allocated")
    return {
        "device": 0,
        "address": BASE,
        "total_size": size * count,
        "stream": 0,
        "segment_type": "large",
        "allocated_size": active,
        "active_size": active,
        "requested_size": sum(filled * slot_bytes for filled in held.values()),
        "frames": _frames("kvsim", 0, f"KV pool of {run.label}"),
        "blocks": listed,
    }
