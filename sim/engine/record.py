"""The record of a run: what the engine writes down while it serves.

There are four logs: steps, requests, events that concern their memory, and the block map.
(`sim.engine.telemetry` and `sim.engine.blockmap` store them.)
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


class Record:
    """The logs of one run."""

    def __init__(self, requests: Requests, serving: Serving, sink: Sink, instants: int | None, horizon: float) -> None:
        """Begin the record of `serving`, to be written to `sink`, of `horizon` nanoseconds; `instants`: `BlockLog`."""
        last = 1e9 * float(requests.arrival_s[-1]) if len(requests) else 0.0
        self.steps = StepLog(sink, serving.allocator.capacity, requests.parts)
        self.requests = RequestLog()
        self.events = EventLog(sink)
        self.blocks = BlockLog(sink, instants, int(min(last, horizon)))
        self._arriving = requests
        self._serving = serving
        self._sink = sink
        self._evicted = 0
        """Cached blocks evicted before the last step."""

    def row(
        self,
        step: int,
        now: int,
        prefill: int,
        decodes: int,
        end: int,
        preemptions: int,
        since: Change = NO_CHANGE,
    ) -> tuple[int, ...]:
        """Return the fields of a `Step` for the present state, which must be added to `steps` next.

        Its last three fields, which concern mapped pages, are 0.

        Args:
            step: its number.
            now: when it begins, nanoseconds.
            prefill: tokens that chunks compute.
            decodes: sequences that decode.
            end: when it ends, nanoseconds.
            preemptions: jobs preempted by its plan.
            since: changes that later steps of a leap have already made, and that are subtracted.

        """
        serving = self._serving
        allocator = serving.allocator
        gap, gap_tokens = serving.decoding.gap(decodes, end)
        if self._arriving.parts:
            self.steps.parts.add(serving.decoding.by_part(decodes, end - gap))
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
        """Write everything to the sink; requests that have not finished are recorded as unfinished."""
        serving = self._serving
        for job in [*serving.running.values(), *serving.waiting]:
            if job.finished == NEVER:
                self._settle(job)
                self.requests.add(job, "unfinished")
        self.steps.flush()
        self.events.flush()
        self.requests.flush(self._sink, self._arriving.known)
        self.blocks.flush()

    def _settle(self, job: Job) -> None:
        """Update the progress of a job, if it decodes."""
        decoding = self._serving.decoding
        if job.rows and job.ticket not in self._serving.prefilling:
            place = decoding.place(job)
            if place < len(decoding):
                decoding.settle(place)
