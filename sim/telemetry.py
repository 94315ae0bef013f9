"""Telemetry: what a run leaves behind, columnar and bounded.

Steps are written into a fixed buffer of int64 columns (a leap of many steps in a few
slice assignments) and streamed to parquet when it fills.  Requests are one row each,
written when they leave.  What happens to their memory besides is one row an event.  The
block map is sampled: when the snapshots exceed their bound,
every second one is dropped and the interval doubles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from sim.engine.jobs import NEVER, Job
from sim.engine.serving import Blocked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allocators.ledger import Ledger
    from sim.engine.serving import Serving

Table = dict[str, npt.NDArray[np.generic]]
BLOCKED = tuple(Blocked)
MOST_RUNS = 1_000_000
"""Runs of blocks that the snapshots of one run hold in all (40 bytes each)."""
STATUSES = ("finished", "refused", "unfinished")
EVENTS = ("preempt", "resume", "recomputed", "swap_out", "swap_in", "refuse")


class Sink(Protocol):
    """Takes the columns of `requests`, `steps`, `events` and `blocks` as they fill."""

    def write(self, table: str, columns: Mapping[str, object]) -> None:
        """Append rows to a table."""


class Step(NamedTuple):
    """One row of steps.parquet in integers: nanoseconds and token slots."""

    step: int
    start: int
    duration: int = 0
    running: int = 0
    waiting: int = 0
    prefill_tokens: int = 0
    decode_tokens: int = 0
    gap: int = 0
    gap_tokens: int = 0
    live: int = 0
    reserved: int = 0
    internal: int = 0
    rounding: int = 0
    cached: int = 0
    external: int = 0
    free: int = 0
    shared_savings: int = 0
    swapped: int = 0
    largest_hole: int = 0
    preemptions: int = 0
    evicted: int = 0
    blocked: int = 0


_AT = {name: place for place, name in enumerate(Step._fields)}
_SECONDS = {"start": "start_s", "duration": "duration_s", "gap": "gap_s"}
_WIDE = {"step", "live", "reserved", "internal", "rounding", "cached", "external", "free", "shared_savings", "swapped"}


class StepLog:
    """The rows of steps.parquet, in order of time."""

    def __init__(self, sink: Sink, rows: int = 1 << 16) -> None:
        """Stream to `sink` every `rows` rows."""
        self._sink = sink
        self._buffer: npt.NDArray[np.int64] = np.zeros((len(Step._fields), rows), np.int64)
        self._used = 0

    def add(self, step: Step) -> None:
        """Append one row."""
        if self._used == self._buffer.shape[1]:
            self.flush()
        self._buffer[:, self._used] = step
        self._used += 1

    def leap(self, first: Step, durations: npt.NDArray[np.int64], changes: dict[str, npt.NDArray[np.int64]]) -> None:
        """Append a row for each of `durations`: like `first`, but for the columns in `changes`."""
        done = 0
        while done < len(durations):
            if self._used == self._buffer.shape[1]:
                self.flush()
            count = min(len(durations) - done, self._buffer.shape[1] - self._used)
            rows = self._buffer[:, self._used : self._used + count]
            rows[:] = np.array(first, np.int64)[:, None]
            for name, values in changes.items():
                rows[_AT[name]] = values[done : done + count]
            self._used += count
            done += count

    def flush(self) -> None:
        """Hand the buffered rows to the sink."""
        rows = self._buffer[:, : self._used]
        columns: dict[str, object] = {}
        for name, values in zip(Step._fields, rows, strict=True):
            if name in _SECONDS:
                columns[_SECONDS[name]] = values / 1e9
            elif name == "blocked":
                columns[name] = (values.astype(np.int8), BLOCKED)
            else:
                columns[name] = values.astype(np.int64 if name in _WIDE or name == "largest_hole" else np.int32)
        self._sink.write("steps", columns)
        self._used = 0


class RequestLog:
    """The rows of requests.parquet, written as requests leave and ordered when the run ends."""

    _NAMES = (
        "request_id",
        "arrival_s",
        "prompt_tokens",
        "output_tokens",
        "samples",
        "generated_tokens",
        "scheduled_s",
        "first_token_s",
        "finish_s",
        "cached_tokens",
        "recomputed_tokens",
        "swapped_blocks",
        "preemptions",
        "status",
    )

    def __init__(self, count: int) -> None:
        """Expect `count` requests."""
        self._rows: npt.NDArray[np.int64] = np.full((count, len(self._NAMES)), NEVER, np.int64)
        self._reasons: dict[int, str] = {}
        self._stalls: dict[int, list[int]] = {}
        self.counts = dict.fromkeys(STATUSES, 0)

    def add(self, job: Job, status: str) -> None:
        """Write the row of a request that leaves."""
        self._rows[job.index] = (
            job.index,
            job.arrival,
            job.prompt,
            job.wanted,
            job.samples,
            job.generated,
            job.scheduled,
            job.first_token,
            job.finished,
            job.cached,
            job.recomputed,
            job.swapped_blocks,
            job.preemptions,
            STATUSES.index(status),
        )
        if job.reason:
            self._reasons[job.index] = job.reason
        if job.stalls:
            self._stalls[job.index] = job.stalls
        self.counts[status] += 1

    def flush(self, sink: Sink, prefix_groups: npt.NDArray[np.int64]) -> None:
        """Write the rows of all requests that have arrived, in order of their ids."""
        arrived = np.flatnonzero(self._rows[:, 0] != NEVER)
        rows = self._rows[arrived]
        columns: dict[str, object] = {}
        for name, values in zip(self._NAMES, rows.T, strict=True):
            if name.endswith("_s"):
                columns[name] = np.where(values == NEVER, np.nan, values / 1e9)
            elif name == "status":
                columns[name] = (values.astype(np.int8), STATUSES)
            elif name == "request_id":
                columns[name] = values
            else:
                columns[name] = values.astype(np.int16 if name == "samples" else np.int32)
        words = ("", *sorted(set(self._reasons.values())))
        codes = np.zeros(len(self._rows), np.int8)
        for index, reason in self._reasons.items():
            codes[index] = words.index(reason)
        columns["reason"] = (codes[arrived], words)
        columns["prefix_group"] = prefix_groups[arrived].astype(np.int32)
        counts = np.zeros(len(self._rows), np.int64)
        for index, stalls in self._stalls.items():
            counts[index] = len(stalls)
        values = [gap for index in sorted(self._stalls) for gap in self._stalls[index]]
        columns["stall_s"] = (np.append(0, np.cumsum(counts[arrived])), np.array(values, np.int64) / 1e9)
        sink.write("requests", columns)


class EventLog:
    """The rows of events.parquet, in order of time."""

    def __init__(self, sink: Sink, rows: int = 1 << 16) -> None:
        """Stream to `sink` every `rows` rows."""
        self._sink = sink
        self._most = rows
        self._rows: list[tuple[int, int, int, int, int]] = []
        self._reasons: list[str] = []

    def add(self, now: int, index: int, event: str, slots: int, cause: int = -1, reason: str = "") -> None:
        """Append a row: at `now` nanoseconds, `event` (one of `EVENTS`) happened to request `index`."""
        self._rows.append((now, index, EVENTS.index(event), slots, cause))
        self._reasons.append(reason)
        if len(self._rows) == self._most:
            self.flush()

    def flush(self) -> None:
        """Hand the rows to the sink."""
        time, index, event, slots, cause = np.array(self._rows, np.int64).reshape(-1, 5).T
        words = ("", *sorted(set(self._reasons) - {""}))
        reasons = np.array([words.index(reason) for reason in self._reasons], np.int8)
        columns = {"time_s": time / 1e9, "request_id": index, "event": (event.astype(np.int8), EVENTS)}
        self._sink.write("events", {**columns, "slots": slots, "cause": cause, "reason": (reasons, words)})
        self._rows, self._reasons = [], []


class BlockLog:
    """Snapshots of who owns which block, as runs of blocks alike, at most `instants` of them."""

    def __init__(self, instants: int, first_interval: int = 1_000_000) -> None:
        """Keep at most `instants` snapshots (0 for none), at first `first_interval` nanoseconds apart."""
        self._instants = instants
        self._interval = first_interval
        self._snapshots: list[tuple[int, npt.NDArray[np.int64]]] = []
        self.due: float = 0 if instants else float("inf")
        """Next instant at which a snapshot is wanted."""

    def take(self, now: int, serving: Serving) -> None:
        """Take a snapshot of the block map."""
        self._snapshots.append((now, block_runs(serving)))
        while len(self._snapshots) > self._instants or self._crowded():
            self._snapshots = self._snapshots[::2]
            self._interval *= 2
        self.due = now + self._interval

    def _crowded(self) -> bool:
        """Whether the snapshots hold too many runs, as they do where blocks are single slots."""
        return len(self._snapshots) > 1 and sum(runs.shape[1] for _, runs in self._snapshots) > MOST_RUNS

    def flush(self, sink: Sink) -> None:
        """Write all snapshots."""
        times = [np.full(runs.shape[1], now / 1e9) for now, runs in self._snapshots]
        joined = np.concatenate([np.zeros((5, 0), np.int64), *(runs for _, runs in self._snapshots)], axis=1)
        columns: dict[str, object] = {"time_s": np.concatenate([np.zeros(0), *times])}
        for name, values in zip(("block", "count", "request_id", "references", "slack"), joined, strict=True):
            columns[name] = values.astype(np.int64 if name == "request_id" else np.int32)
        sink.write("blocks", columns)


def block_runs(serving: Serving) -> npt.NDArray[np.int64]:
    """Describe the block map: int64[5, runs] of first block, blocks, owner, references, empty slots."""
    allocator = serving.allocator
    table = allocator.table
    owner = np.full(allocator.num_blocks + 1, -2, np.int64)
    references = np.zeros(allocator.num_blocks + 1, np.int64)
    slack = np.zeros(allocator.num_blocks + 1, np.int64)
    rows, lengths, owners = _held(serving)
    if len(rows):
        count = table.count[rows]
        there = np.arange(width := int(count.max())) < count[:, None]
        blocks = table.blocks[rows, :width][there].astype(np.int64)
        empty = allocator.block_size - allocator.columns.filled(lengths, width, allocator.block_size)[there]
        owner[blocks] = np.broadcast_to(owners[:, None], there.shape)[there]
        references += np.bincount(blocks, minlength=len(references))
        slack[blocks] = empty
    padded, padding = allocator.padding()
    if len(padding):
        owners_of = np.full(len(table.count), -2, np.int64)
        owners_of[rows] = owners
        owner[padding] = owners_of[padded]
        slack[padding] = allocator.block_size
    cached = allocator.cached_blocks()
    owner[cached[references[cached] == 0]] = -1
    owner[0] = -2
    alike = (np.diff(owner[1:], prepend=-3) == 0) & (np.diff(references[1:], prepend=0) == 0)
    start = np.flatnonzero(~alike) + 1
    stop = np.append(start[1:], allocator.num_blocks + 1)
    total = np.append(0, np.cumsum(slack))
    used = owner[start] != -2
    start, stop = start[used], stop[used]
    return np.stack([start, stop - start, owner[start], references[start], total[stop] - total[start]])


def _held(serving: Serving) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of all running sequences, their lengths and owners; the lowest id comes last and so owns what is shared."""
    decoding = serving.decoding
    lengths = dict(zip(decoding.column(decoding.ROW).tolist(), decoding.column(decoding.LENGTH).tolist(), strict=True))
    held = [
        # Room of samples to come is empty: they fork when the first token is out.
        (row, lengths.get(row, job.computed if row == job.rows[0] or job.generated > 1 else 0), job.index)
        for job in sorted(serving.running.values(), key=lambda job: -job.index)
        for row in job.rows
    ]
    rows, counts, owners = np.array(held, np.int64).reshape(-1, 3).T
    return rows, counts, owners


def step_row(row: Step, serving: Serving, ledger: Ledger, **counts: int) -> Step:
    """Fill in what is true while a step runs; `counts` are columns too."""
    return row._replace(
        running=serving.seats,
        waiting=len(serving.waiting),
        live=ledger.live,
        reserved=ledger.reserved,
        internal=ledger.internal,
        rounding=ledger.rounding,
        cached=ledger.cached,
        external=ledger.external,
        free=ledger.free,
        shared_savings=ledger.shared_savings,
        swapped=ledger.swapped,
        largest_hole=serving.allocator.largest_hole(),
        blocked=BLOCKED.index(serving.blocked),
        **counts,
    )
