"""The record of a run: what the engine writes down while it serves, and what becomes of that in the end.

Four logs: steps, requests, what happened to their memory, and the block map.  (How these are stored is in
`sim.engine.telemetry` and `sim.engine.blockmap`.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.engine.blockmap import BlockLog
from sim.engine.jobs import NEVER
from sim.engine.stretch import NO_CHANGE
from sim.engine.telemetry import PLACE, EventLog, RequestLog, StepLog

if TYPE_CHECKING:
    from sim.engine.jobs import Job
    from sim.engine.serving import Serving
    from sim.engine.stretch import Change
    from sim.engine.telemetry import Sink
    from workloads.requests import Requests

SHORTEST = 1_000_000
"""Nanoseconds between snapshots of the block map, at least."""


class Record:
    """What one run leaves behind."""

    def __init__(self, requests: Requests, serving: Serving, sink: Sink, instants: int | None) -> None:
        """Begin the record of `serving`, which goes to `sink`; for `instants` see `BlockLog`."""
        self.steps = StepLog(sink, serving.allocator.capacity)
        self.requests = RequestLog()
        self.events = EventLog(sink)
        self.blocks = BlockLog(sink, instants, _spacing(requests, instants or 1))
        self._arriving = requests
        self._serving = serving
        self._sink = sink
        self._evicted = 0
        """Cached blocks evicted until the last step began."""

    def row(
        self,
        step: int,
        now: int,
        prefill: int,
        decodes: int,
        gap: int,
        gap_tokens: int,
        preemptions: int,
        since: Change = NO_CHANGE,
    ) -> tuple[int, ...]:
        """Fill in a `Step`: what is true while one runs; what memory has changed `since` is taken back.

        Its last three fields, about pages that are mapped, are 0.
        """
        serving = self._serving
        allocator = serving.allocator
        live, internal, external, usage = serving.shares()
        evicted, self._evicted = allocator.evictions() - self._evicted, allocator.evictions()
        held, cached, rounding, useless, lost, written, spared = since
        return (
            step,
            now,
            serving.seats,
            len(serving.waiting),
            prefill,
            decodes,
            gap,
            gap_tokens,
            live - written,
            usage.held - held,
            usage.cached - cached,
            usage.rounding - rounding,
            internal - useless,
            external,
            usage.saved - spared,
            usage.swapped,
            allocator.largest_hole() + held + cached,
            preemptions,
            evicted - lost,
            PLACE[serving.blocked],
            0 if allocator.recomputes else decodes * allocator.token_slots,
            decodes if allocator.rounds_up else 0,
            0,
            0,
            0,
        )

    def write(self) -> None:
        """Hand all of it to the sink; what has not finished is unfinished."""
        serving = self._serving
        for job in [*serving.running.values(), *serving.waiting]:
            if job.finished == NEVER:
                self._settle(job)
                self.requests.add(job, "unfinished")
        self.steps.flush()
        self.events.flush()
        self.requests.flush(self._sink, self._arriving.prefix_groups())
        self.blocks.flush()

    def _settle(self, job: Job) -> None:
        """Let a job know how far it has come, if it decodes."""
        decoding = self._serving.decoding
        if job.rows and job.ticket not in self._serving.prefilling:
            place = decoding.place(job)
            if place < len(decoding):
                decoding.settle(place)


def _spacing(requests: Requests, instants: int) -> int:
    """Nanoseconds between snapshots that spread `instants` of them over the arrivals; more time doubles it."""
    span = float(requests.arrival_s[-1]) if len(requests) else 0.0
    return max(SHORTEST, int(span * 1e9) // instants)
