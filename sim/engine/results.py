"""Results: what steps have produced, and what follows from it.

Sequences get tokens, beams survive or are dropped, samples fork when their prompt is computed, and jobs finish.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from sim.engine.beams import parents
from sim.engine.jobs import NEVER, Job
from sim.engine.serving import Blocked

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.engine.arrivals import Arrivals
    from sim.engine.plan import Chunk, Plan
    from sim.engine.record import Record
    from sim.engine.serving import Serving
    from workloads.requests import Requests

REPORTS = 256
"""At most this many reports of progress; a progress bar cannot show more."""
by_ticket = attrgetter("ticket")


class Results:
    """Records what steps have produced, and lets finished jobs leave."""

    def __init__(
        self, requests: Requests, serving: Serving, arrivals: Arrivals, record: Record, lingers: bool, seed: int
    ) -> None:
        """Start before the first step.

        Args:
            requests: all requests of the run.
            serving: what is served.
            arrivals: learns which requests have finished, because others may follow them.
            record: receives the rows of requests, and events.
            lingers: whether finished jobs keep their memory until their batch ends.
            seed: for the choice of beams.

        """
        self._serving = serving
        self._arrivals = arrivals
        self._record = record
        self._lingers = lingers
        self._beam = requests.beam
        self._seed = seed
        self._often = -(-len(requests) // REPORTS)
        """Number of finished requests between two reports of progress."""
        self.progress: Callable[[int], None] | None = None
        """Called with the number of finished requests."""
        self.copied = 0
        """Tokens copied by forks since the last step began."""
        self.forked = False
        """Whether sequences have forked since the last step began, so that the next one may have blocks to copy."""

    def report(self) -> None:
        """Report progress, if anybody listens."""
        if self.progress is not None:
            self.progress(self._record.requests.counts["finished"])

    def book(self, plan: Plan, now: int) -> None:
        """Record what a step that ends at `now` has produced; then finished jobs leave, in running order."""
        serving = self._serving
        ended = []
        if plan.decodes:
            staying = serving.decoding.members[plan.decodes :]
            if staying:
                serving.growing.stay(staying)
            ended = serving.advance(1, now, staying)
            if self._beam:
                self._select_beams(len(serving.decoding) - len(staying))
        ended += [chunk.job for chunk in plan.chunks if self._book_chunk(chunk, now)]
        for job in sorted(ended, key=by_ticket) if len(ended) > 1 else ended:
            self._finish(job, now)
        if serving.blocked is Blocked.BUDGET:  # the next step has a budget of its own
            serving.unblock()
        self._end_batch()

    def book_leap(self, steps: int, now: int) -> None:
        """Record what a leap that ends at `now` has produced; then finished jobs leave."""
        for job in self._serving.advance(steps, now):
            self._finish(job, now)
        self._end_batch()

    def _select_beams(self, decodes: int) -> None:
        """Choose which beams survive, for every beam search among the first `decodes` sequences."""
        decoding = self._serving.decoding
        for job in dict.fromkeys(decoding.owners[:decodes]):
            if job.samples > 1:
                left = decoding.members[decoding.place(job)].end - decoding.clock
                if left:
                    chosen = parents(self._seed, job.index, job.output - left, job.samples)
                    self.copied += self._serving.select(job, chosen)
                    self.forked = True

    def _book_chunk(self, chunk: Chunk, now: int) -> bool:
        """Record a computed chunk; return whether it produced the last token of its job."""
        serving, job = self._serving, chunk.job
        job.recomputed += max(0, min(chunk.start + chunk.tokens, job.furthest) - chunk.start)
        job.computed = chunk.start + chunk.tokens
        job.furthest = max(job.furthest, job.computed)
        if job.computed < job.known:
            return False
        job.generated += 1
        if job.first_token == NEVER:
            job.first_token = now
        else:
            job.stalls.append(now - job.last_token)
            self._record.events.add(now, job.index, "recomputed", serving.slots(job))
        job.last_token = now
        if job.generated == job.output:
            serving.leave_prefilling(job)
            return True
        self.copied += serving.fork(job)
        self.forked |= job.samples > 1
        serving.start_decoding(job)
        return False

    def _finish(self, job: Job, now: int) -> None:
        job.finished = now
        self._record.requests.add(job, "finished")
        if self._record.requests.counts["finished"] % self._often == 0:
            self.report()
        self._arrivals.release(job.index, now)
        if self._lingers:
            self._serving.linger(job)
        else:
            self._serving.retire(job)

    def _end_batch(self) -> None:
        """Release the finished jobs of a static batch once its last job has finished."""
        serving = self._serving
        if serving.lingering and not serving.decoding and not serving.prefilling:
            for job in list(serving.lingering):
                serving.retire(job)
