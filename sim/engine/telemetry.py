"""Telemetry: the tables that a run writes, in columns and with bounded memory.

Steps are stored as integers, and a stretch of similar steps as its first row and the changes after it;
they become rows in bulk when they are streamed to Parquet.  A request is one row, written when it
leaves.  Every event that concerns the memory of a request is one row.  (`sim.engine.blockmap` samples the block map.)
"""

from __future__ import annotations

from array import array
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from sim.engine.books import demand_shares
from sim.engine.jobs import NEVER, Job
from sim.engine.partlog import PartLog
from sim.engine.serving import Blocked
from sim.engine.stretch import unpacked_all

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Ints = npt.NDArray[np.int64]

BLOCKED = tuple(Blocked)
PLACE = {blocked: place for place, blocked in enumerate(BLOCKED)}
SECONDS = {name: f"{name}_s" for name in ("start", "duration", "gap", "mapping_hidden", "mapping_exposed")}
STATUSES = ("finished", "refused", "unfinished")
EVENTS = ("preempt", "resume", "recomputed", "swap_out", "swap_in", "refuse")


class Sink(Protocol):
    """Receives the tables `requests`, `steps`, `events` and `blocks`, piece by piece."""

    def write(self, table: str, columns: Mapping[str, object]) -> None:
        """Append rows to a table."""


class Step(NamedTuple):
    """One step, or the first of a stretch of similar steps; times in nanoseconds, memory in token slots."""

    step: int
    start: int
    running: int
    waiting: int
    prefill_tokens: int
    decode_tokens: int
    gap: int
    gap_tokens: int
    live: int
    held: int
    cached: int
    rounding: int
    internal: int
    external: int
    shared_savings: int
    swapped: int
    largest_hole: int
    preemptions: int
    evicted: int
    blocked: int
    """Index in `BLOCKED`."""
    grows: int
    """By how many slots `live` grows with each further step of the stretch."""
    rounds: int = 0
    """By how many slots `rounding` shrinks with each further step."""
    mapped_pages: int = 0
    mapping_hidden: int = 0
    mapping_exposed: int = 0


_pack = Struct(f"={len(Step._fields)}q").pack
"""Packs the fields of a step into bytes, which is faster than appending them to an array one by one."""
_pack_request = Struct("=14q").pack
"""Packs the fields of a request."""


class StepLog:
    """The rows of steps.parquet, in order of time.

    Of a stretch of similar steps only the first is stored, with the duration of each step and the changes.  All rows
    are computed from that, for many stretches at once, when they are passed to the sink.
    """

    def __init__(self, sink: Sink, capacity: int, parts: Sequence[str], rows: int = 1 << 16) -> None:
        """Write to `sink` about every `rows` rows; `capacity` is that of the pool in token slots; `parts`: of a mix."""
        self.parts = PartLog(parts)
        self._sink = sink
        self._capacity = capacity
        self._most = rows
        self._clear()

    def _clear(self) -> None:
        self._firsts = bytearray()
        """Each a packed `Step`."""
        self._counts, self._durations = array("q"), array("q")
        self._changes, self._changed = array("q"), array("q")
        """`Stretch.changes` of all stretches, and how many of them each stretch has."""
        self._calls = array("q")
        """Pages mapped within stretches: four numbers each, as in `Stretch.calls`, with the row instead of the step."""

    def add(self, step: Sequence[int], duration: int) -> None:
        """Append one row; `step` has the fields of a `Step`."""
        self._firsts += _pack(*step)
        self._counts.append(1)
        self._changed.append(0)
        self._durations.append(duration)
        if len(self._durations) >= self._most:
            self.flush()

    def stretch(self, first: Sequence[int], durations: Ints, changes: Sequence[int], calls: Sequence[int] = ()) -> None:
        """Append a row for each of `durations`.

        Args:
            first: the fields of a `Step`: the state before the changes of the first step.
            durations: int64[n], nanoseconds.
            changes: see `Stretch.changes`.
            calls: see `Stretch.calls`.

        """
        if calls:
            begin = len(self._durations)
            for place in range(0, len(calls), 4):
                self._calls.append(begin + calls[place])
                self._calls.extend(calls[place + 1 : place + 4])
        self._changes.extend(changes)
        self._changed.append(len(changes))
        self._firsts += _pack(*first)
        self._counts.append(len(durations))
        self._durations.frombytes(durations.tobytes())
        if len(self._durations) >= self._most:
            self.flush()

    def flush(self) -> None:
        """Pass the rows to the sink."""
        counts, durations = np.array(self._counts, np.int64), np.array(self._durations, np.int64)
        begin = counts.cumsum() - counts
        which = np.repeat(np.arange(len(counts)), counts)
        nth = np.arange(len(durations)) - begin[which]
        firsts = np.frombuffer(self._firsts, np.int64).reshape(-1, len(Step._fields))
        rows = np.repeat(np.ascontiguousarray(firsts.T), counts, axis=1)
        columns: dict[str, Ints] = dict(zip(Step._fields, rows, strict=True))
        passed = durations.cumsum() - durations
        columns["step"] += nth
        columns["start"] += passed - passed[begin][which]
        columns["gap"] = np.where((nth == 0) | (columns["gap_tokens"] == 0), columns["gap"], durations)
        columns["live"] += nth * columns.pop("grows")
        columns["rounding"] -= nth * columns.pop("rounds")
        calls, *amounts = np.array(self._calls, np.int64).reshape(-1, 4).T
        for name, amount in zip(("mapped_pages", "mapping_hidden", "mapping_exposed"), amounts, strict=True):
            columns[name][calls] += amount
        free = columns["held"] + columns["cached"]
        self._apply_changes(columns, begin, which)
        held = columns.pop("held")
        columns["reserved"] = held - columns["rounding"] - columns["live"] - columns["internal"]
        columns["free"] = self._capacity - held - columns["cached"] - columns["external"]
        demand_shares(columns)
        columns["largest_hole"] -= held + columns["cached"] - free
        columns["duration"] = durations
        written = {SECONDS.get(name, name): _typed(name, values) for name, values in columns.items()}
        self._sink.write("steps", written | self.parts.flush(counts))
        self._clear()

    def _apply_changes(self, columns: dict[str, Ints], begin: Ints, which: Ints) -> None:
        """Add up the changes within each stretch; evictions count only for their own step."""
        if not self._changes:
            return
        rows, fields, amounts = unpacked_all(np.array(self._changes, np.int64))
        rows += np.repeat(begin, np.array(self._changed))
        for field, name in enumerate(("held", "cached", "rounding", "internal", "evicted", "live", "shared_savings")):
            some = (fields == field).nonzero()[0]
            if not len(some):
                continue
            change = np.zeros(len(which), np.int64)
            np.add.at(change, rows[some], amounts[some])
            if name != "evicted":
                total = change.cumsum()
                change = total - (total - change)[begin][which]
            columns[name] += change


def _typed(name: str, values: Ints) -> object:
    if name in SECONDS:
        return values / 1e9
    if name == "blocked":
        return values.astype(np.int8), BLOCKED
    return values


class RequestLog:
    """The rows of requests.parquet, added as requests leave and sorted when the run ends."""

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

    def __init__(self) -> None:
        """Start empty."""
        self._rows = bytearray()
        """Each a packed row of the columns in `_NAMES`."""
        self._reasons: dict[int, str] = {}
        self._stalls: dict[int, list[int]] = {}
        self.counts = dict.fromkeys(STATUSES, 0)

    def add(self, job: Job, status: str) -> None:
        """Add the row of a request that leaves."""
        self._rows += _pack_request(
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

    def flush(self, sink: Sink, known: Callable[[Ints], Mapping[str, object]]) -> None:
        """Write the rows of all requests that have arrived, in order of their ids; `known` are `Requests.known`."""
        rows = np.frombuffer(self._rows, np.int64).reshape(-1, len(self._NAMES))
        rows = rows[np.argsort(rows[:, 0])]
        ids = rows[:, 0]
        columns: dict[str, object] = {}
        for name, values in zip(self._NAMES, rows.T, strict=True):
            if name.endswith("_s"):
                columns[name] = np.where(values == NEVER, np.nan, values / 1e9)
            elif name == "status":
                columns[name] = (values.astype(np.int8), STATUSES)
            else:
                columns[name] = values
        words = ("", *sorted(set(self._reasons.values())))
        codes = np.zeros(len(ids), np.int8)
        for index, reason in self._reasons.items():
            codes[ids.searchsorted(index)] = words.index(reason)
        columns["reason"] = (codes, words)
        columns |= known(ids)
        counts = np.zeros(len(ids), np.int64)
        stalled = sorted(self._stalls)
        counts[ids.searchsorted(stalled)] = [len(self._stalls[index]) for index in stalled]
        values = np.fromiter((gap for index in stalled for gap in self._stalls[index]), np.int64)
        columns["stall_s"] = (np.append(0, np.cumsum(counts)), values / 1e9)
        sink.write("requests", columns)


class EventLog:
    """The rows of events.parquet, in order of time."""

    def __init__(self, sink: Sink, rows: int = 1 << 16) -> None:
        """Write to `sink` every `rows` rows."""
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
        """Pass the rows to the sink."""
        time, index, event, slots, cause = np.array(self._rows, np.int64).reshape(-1, 5).T
        words = ("", *sorted(set(self._reasons) - {""}))
        reasons = np.array([words.index(reason) for reason in self._reasons], np.int8)
        columns = {"time_s": time / 1e9, "request_id": index, "event": (event.astype(np.int8), EVENTS)}
        self._sink.write("events", {**columns, "slots": slots, "cause": cause, "reason": (reasons, words)})
        self._rows, self._reasons = [], []
