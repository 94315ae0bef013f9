"""A snapshot for PyTorch's memory viewer (pytorch.org/memory_viz): the pool as one segment.

The viewer was made for the CUDA caching allocator; the block map fits it well.  The pool
is a segment, a KV block an allocation; what of a block is empty shows as rounding
(`requested_size < size`); the frames on hover name the request and the block.  Its limits
are kept to: plain types only, pickle protocol 4, and one event of category "unknown",
without which its page stays blank.  Its x-axis counts events, not seconds.

Events are the differences between consecutive snapshots of the block map, so allocations
that came and went between two snapshots are not seen.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from analysis.export.errors import ExportError
from analysis.metrics import Columns
from analysis.reading import Run, RunDirectory

BASE = 1 << 40
"""Address of the pool; block b starts at BASE + (b - 1) * block_bytes."""
EVENTS = 15_000
"""The viewer draws so many allocations; the window is cut there."""
NOBODY, CACHED = -2, -1
Ints: TypeAlias = npt.NDArray[np.int64]
Plain: TypeAlias = dict[str, Any]


def write(directory: RunDirectory, folder: Path, labels: list[str], window: tuple[float, float]) -> list[Path]:
    """Write `<run>.snapshot.pickle` for the first replication of every label that has a block map."""
    written = []
    for run in directory.runs:
        blocks = run.blocks() if run.label in labels and run.repeat == 0 else None
        if blocks is None or not len(blocks["time_s"]):
            continue
        target = folder / f"{run.facts['dir']}.snapshot.pickle"
        with target.open("wb") as file:
            pickle.dump(snapshot(run, blocks, window), file, protocol=4)
        written.append(target)
    if not written:
        raise ExportError(f"{directory.path}: no block map was recorded; run it with telemetry.blocks: sampled")
    return written


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
        raise ExportError(f"{run.label}: no snapshot of the block map between {window[0]:g} and {window[1]:g} s")
    pool = {"addr": BASE, "size": size * count, "stream": 0, "frames": _frames("kvsim", 0, f"KV pool of {run.label}")}
    trace: list[Plain] = [
        {"action": "segment_alloc", "time_us": round(instants[0] * 1e6), "category": "unknown", **pool}
    ]
    refusals = _refusals(run, window, size)
    owner, filled = np.full(count, NOBODY, np.int64), np.zeros(count, np.int64)
    for instant in instants.tolist():
        if len(trace) > EVENTS:
            break
        while refusals and refusals[0]["time_us"] <= instant * 1e6:
            free = int(np.count_nonzero(owner == NOBODY)) * size
            trace.append({**refusals.pop(0), "device_free": free})
        rows = np.arange(*np.searchsorted(times, (instant, np.nextafter(instant, np.inf))))
        now, filled = _state(blocks, rows, count, int(run.facts["block_size"]))
        stamp = round(instant * 1e6)
        changed = np.flatnonzero(now != owner)
        for block in changed[owner[changed] != NOBODY].tolist():
            freed = _event(block, int(owner[block]), size, stamp)
            trace += [{**freed, "action": "free_requested"}, {**freed, "action": "free_completed"}]
        trace += [
            {**_event(block, int(now[block]), size, stamp), "action": "alloc"}
            for block in changed[now[changed] != NOBODY].tolist()
        ]
        owner = now
    slot_bytes = size // int(run.facts["block_size"])
    return {"segments": [_segment(run, owner, filled, size, slot_bytes)], "device_traces": [trace]}


def _state(blocks: Columns, rows: Ints, count: int, block_size: int) -> tuple[Ints, Ints]:
    """Owner and filled slots of every block at one snapshot."""
    owner, filled = np.full(count, NOBODY, np.int64), np.zeros(count, np.int64)
    columns = (blocks[name][rows].tolist() for name in ("block", "count", "request_id", "slack"))
    for first, length, request, slack in zip(*columns, strict=True):
        run = slice(first - 1, first - 1 + length)
        owner[run] = request
        filled[run] = np.clip(length * block_size - slack - np.arange(length) * block_size, 0, block_size)
    return owner, filled


def _event(block: int, request: int, size: int, stamp: int) -> Plain:
    who = "cached" if request == CACHED else f"request-{request}"
    return {
        "addr": BASE + block * size,
        "size": size,
        "stream": 0,
        "time_us": stamp,
        "frames": _frames(who, block + 1, "block"),
        "category": who,
    }


def _frames(filename: str, line: int, name: str) -> list[Plain]:
    return [{"filename": filename, "line": line, "name": name}]


def _refusals(run: Run, window: tuple[float, float], size: int) -> list[Plain]:
    """Refused requests as out-of-memory events, by time."""
    requests = run.requests(("request_id", "arrival_s", "prompt_tokens", "output_tokens", "status", "reason"))
    arrived = np.asarray(requests["arrival_s"], np.float64)
    rows = np.flatnonzero((requests["status"] == "refused") & (arrived >= window[0]) & (arrived <= window[1]))
    return [
        {
            "action": "oom",
            "addr": 0,
            "size": -(
                -int(requests["prompt_tokens"][row] + requests["output_tokens"][row]) // int(run.facts["block_size"])
            )
            * size,
            "stream": 0,
            "time_us": round(float(arrived[row]) * 1e6),
            "frames": _frames(f"request-{requests['request_id'][row]}", 0, str(requests["reason"][row])),
        }
        for row in rows.tolist()
    ]


def _segment(run: Run, owner: Ints, filled: Ints, size: int, slot_bytes: int) -> Plain:
    """The pool at the end of the window; free blocks side by side are one."""
    listed: list[Plain] = []
    for block, request in enumerate(owner.tolist()):
        if request == NOBODY:
            if listed and listed[-1]["state"] == "inactive":
                listed[-1]["size"] += size
                listed[-1]["requested_size"] += size
                continue
            part = {"state": "inactive", "requested_size": size, "frames": []}
        else:
            who = "cached" if request == CACHED else f"request-{request}"
            part = {
                "state": "active_allocated",
                "requested_size": int(filled[block]) * slot_bytes,
                "frames": _frames(who, block + 1, "block"),
            }
        listed.append({"address": BASE + block * size, "size": size, **part})
    active = sum(part["size"] for part in listed if part["state"] == "active_allocated")
    return {
        "device": 0,
        "address": BASE,
        "total_size": size * int(run.facts["num_blocks"]),
        "stream": 0,
        "segment_type": "large",
        "allocated_size": active,
        "active_size": active,
        "requested_size": sum(part["requested_size"] for part in listed if part["state"] == "active_allocated"),
        "frames": _frames("kvsim", 0, f"KV pool of {run.label}"),
        "blocks": listed,
    }
