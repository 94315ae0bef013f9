"""The serving loop: one SimPy process, one clock in nanoseconds.

The engine asks the scheduler for a plan and an executor for its duration, advances the clock,
and books what the step produced.  When the next plans are certain (every running sequence
decodes, nothing can be admitted) it leaps over them (`sim.engine.leaping`).

Nothing can interrupt the engine while it is busy, so it runs ahead of SimPy's clock, and waits
for that only when it is idle.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

import simpy

from allocators.answers import Mappings
from allocators.compiled import mypyc_attr
from sim.engine.arrivals import Arrivals
from sim.engine.beams import parents
from sim.engine.intake import job_of, never_runs
from sim.engine.jobs import NEVER, Job
from sim.engine.leaping import leap
from sim.engine.record import Record
from sim.engine.serving import Blocked, Serving, StalledError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from allocators.base import Allocator
    from allocators.content import Content
    from sim.engine.executor import Executor
    from sim.engine.plan import Chunk, Plan
    from sim.engine.scheduler import Scheduler
    from sim.engine.telemetry import Sink
    from workloads.requests import Requests

INFINITY = float("inf")
by_ticket = attrgetter("ticket")
WORTHWHILE = 2
"""As many steps cost about as much one by one as in a leap."""
REPORTS = 256
"""How often progress is reported at most: a bar shows no more."""


class Outcome(NamedTuple):
    """What a run came to."""

    finished: int
    refused: int
    unfinished: int
    steps: int
    end_s: float


@mypyc_attr(allow_interpreted_subclasses=True)
class Engine:
    """One serving engine: an allocator, a scheduler and an executor, and the requests it serves."""

    def __init__(
        self,
        requests: Requests,
        content: Callable[[int], Content],
        allocator: Allocator,
        scheduler: Scheduler,
        executor: Executor,
        sink: Sink,
        *,
        seed: int = 0,
        swap: bool = False,
        instants: int | None = 256,
        horizon_s: float | None = None,
        leaps: bool = True,
    ) -> None:
        """Make an engine that has not started.

        Args:
            requests: what arrives.
            content: makes the content of request i, for the prefix cache.
            allocator: a fresh allocator, changed by the run.
            scheduler: decides each step.
            executor: runs each step.
            sink: takes the telemetry.
            seed: for the draws of the run itself (which beams live on).
            swap: preempt to the host rather than recompute.
            instants: snapshots of the block map to keep, at most; None for one after every step.
            horizon_s: stop the clock there, unfinished requests and all.
            leaps: whether to leap over certain steps; the results are the same.

        """
        self.env = simpy.Environment(initial_time=0)
        self.now = 0
        """The clock, in nanoseconds."""
        self.requests = requests
        self.content = content
        self.scheduler = scheduler
        self.executor = executor
        self.serving = Serving(allocator, swap=swap)
        self.leaps = leaps
        self.seed = seed
        self.steps = 0
        self.arrivals = Arrivals(requests)
        self.record = Record(requests, self.serving, sink, instants)
        self._horizon: int | float = INFINITY if horizon_s is None else round(horizon_s * 1e9)
        self._copied = 0
        """Tokens copied by forks since the last step began."""
        self._forked = False
        """Whether sequences have forked since the last step, so that the next one may have blocks to copy."""
        self._mapped = Mappings()
        """Pages mapped and unmapped before the last step began."""
        self._pace = 1
        """Nanoseconds of the last step."""
        self._lost: set[tuple[int, int]] = set()
        """Requests preempted by plans that did nothing else, and the tokens that each had generated."""
        self._decoded_alone = False
        """Whether the last step ran decodes and nothing else."""
        self._exposed = 0
        """Nanoseconds that the last step waited for its pages."""
        self._progress: Callable[[int], None] | None = None
        self._often = -(-len(requests) // REPORTS)
        """Requests that finish between two reports of progress."""

    def run(self, progress: Callable[[int], None] | None = None) -> Outcome:
        """Serve everything, write the telemetry, and return the outcome.

        What an executor raises ends the run; the telemetry up to then is written all the same.  That of an
        interrupted run is not: the interrupt may have come in the middle of a row.
        """
        self._progress = progress
        self._tell()
        try:
            self.env.run(until=self.env.process(self._serve()))
        except Exception:
            self.record.write()
            raise
        self.record.write()
        self._tell()
        return Outcome(**self.record.requests.counts, steps=self.steps, end_s=self.now / 1e9)

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self.record.requests.counts["finished"])

    # -- arrivals --------------------------------------------------------------------------

    def _let_arrive(self) -> None:
        """Queue the requests that have come by now, or refuse them."""
        arrivals, serving, now = self.arrivals, self.serving, self.now
        while arrivals.soonest <= now:
            arrival, index = arrivals.take()
            job = job_of(self.requests, index, arrival, self.content(index))
            refusal = never_runs(job, self.scheduler, serving.allocator)
            if refusal:
                job.reason = refusal
                self.record.requests.add(job, "refused")
                self.record.events.add(arrival, index, "refuse", job.final * job.samples, reason=refusal)
                arrivals.release(index, arrival)
            else:
                if not serving.waiting:
                    serving.unblock()
                serving.waiting.append(job)

    # -- the loop --------------------------------------------------------------------------

    def _serve(self) -> Generator[simpy.Event, object, None]:
        env, serving, scheduler, arrivals = self.env, self.serving, self.scheduler, self.arrivals
        blocks = self.record.blocks
        while True:
            now = self.now
            if arrivals.soonest <= now:
                self._let_arrive()
            if now >= self._horizon:
                return
            if not serving.running and not serving.waiting:
                if not arrivals.pending:
                    return
                self.now += self._idle()
                yield env.timeout(self.now - env.now)
                continue
            if self._certain() and (leapt := self._leap()):
                steps, duration = leapt
                self.now += duration
                self._book_decodes(steps)
            else:
                plan = scheduler.plan(serving)
                if plan.empty:
                    self._make_way(plan)
                self.now += self._start(plan)
                self._book(plan)
            if self.now >= blocks.due:
                blocks.take(self.now, serving)

    def _certain(self) -> bool:
        """Whether the next several plans are certain: every decoding sequence advances, and nothing else happens."""
        serving = self.serving
        if not self.leaps or not self.scheduler.steady(serving) or serving.decoding.apart:
            return False
        if serving.lingering and serving.allocator.leaves_behind is not None and serving.allocator.usage().saved:
            return False  # what a window leaves behind may then be of use to finished jobs alone
        searching = self.requests.beam and serving.seats > len(serving.running)
        return not (self._forked or searching) and serving.allocator.mappings() == self._mapped

    def _idle(self) -> int:
        """Write the row of an idle gap, which lasts until the next arrival or the horizon; returns its length."""
        now = self.now
        duration = int(min(self.arrivals.soonest, self._horizon)) - now
        self.record.steps.add(self.record.row(self.steps, now, 0, 0, 0, 0, 0), duration)
        return duration

    def _make_way(self, plan: Plan) -> None:
        """Let a plan do nothing but preempt, if that leads any further than it did before.

        The last sequence may have to make way for itself, where what others have left is too scattered for it.
        """
        lost = {(job.index, job.generated) for job in plan.preempted}
        if lost <= self._lost:
            self._stalled(plan)
        self._lost |= lost

    def _stalled(self, plan: Plan) -> None:
        """Raise, naming who cannot go on and why; reached only if a scheduler or allocator breaks its contract."""
        head = self.serving.waiting[0] if self.serving.waiting else next(iter(self.serving.running.values()))
        why = plan.refusal or self.serving.refusal or self.serving.blocked or "nothing to run"
        raise StalledError(f"no progress: {head}: {why}")

    # -- one step --------------------------------------------------------------------------

    def _start(self, plan: Plan) -> int:
        """Run a plan and write its row; returns its duration."""
        serving, now = self.serving, self.now
        self._note(plan)
        plan.copied_tokens += self._copied
        self._copied, self._forked = 0, False
        allocator = serving.allocator
        mapped, before = allocator.mappings(), self._mapped
        called = mapped != before
        if called:
            plan.mappings = mapped.since(before)
            self._mapped = mapped
        plan.start = now
        plan.behind = self._pace if self._decoded_alone else 0
        plan.before = self._pace - self._exposed
        duration = self._pace = self.executor.run(plan, serving)
        self._decoded_alone, self._exposed = not plan.chunks, plan.exposed
        prefill = 0
        for chunk in plan.chunks:
            prefill += chunk.tokens
        serving.tokens += plan.decodes + prefill
        gap, gap_tokens = serving.decoding.gap(plan.decodes, now + duration)
        row = self.record.row(self.steps, now, prefill, plan.decodes, gap, gap_tokens, len(plan.preempted))
        if called:
            row = (*row[:-3], plan.mappings.mapped, plan.hidden, plan.exposed)
        self.record.steps.add(row, duration)
        self.steps += 1
        return duration

    def _note(self, plan: Plan) -> None:
        """Record which requests lost memory for a plan, and which start or resume with it."""
        serving, now, events = self.serving, self.now, self.record.events
        for loss in plan.losses:
            word = "swap_out" if loss.swapped else "preempt"
            events.add(now, loss.request, word, loss.slots, loss.cause, loss.reason.value)
        for job in plan.admitted:
            if job.scheduled == NEVER:
                job.scheduled = now
                job.cached = job.computed
            else:
                events.add(now, job.index, "swap_in" if job in plan.restored else "resume", serving.slots(job))

    def _book(self, plan: Plan) -> None:
        """Book what a step produced, now that it has ended; then finished jobs leave, in running order."""
        serving = self.serving
        ended = []
        if plan.decodes:
            staying = serving.decoding.members[plan.decodes :]
            if staying:
                serving.growing.stay(staying)
            ended = serving.advance(1, self.now, staying)
            if self.requests.beam:
                self._select_beams(len(serving.decoding) - len(staying))
        ended += [chunk.job for chunk in plan.chunks if self._book_chunk(chunk)]
        for job in sorted(ended, key=by_ticket) if len(ended) > 1 else ended:
            self._finish(job)
        if serving.blocked is Blocked.BUDGET:  # the next step has a budget of its own
            serving.unblock()
        self._end_batch()

    def _select_beams(self, decodes: int) -> None:
        """Fork and drop the beams of every search among the first `decodes` sequences, which have just advanced."""
        decoding = self.serving.decoding
        for job in dict.fromkeys(decoding.owners[:decodes]):
            if job.samples > 1:
                left = decoding.members[decoding.place(job)].end - decoding.clock
                if left:
                    chosen = parents(self.seed, job.index, job.output - left, job.samples)
                    self._copied += self.serving.select(job, chosen)
                    self._forked = True

    def _book_chunk(self, chunk: Chunk) -> bool:
        """Book a chunk; returns whether it produced the last token of its job, which then stops running."""
        serving, job, now = self.serving, chunk.job, self.now
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
            self.record.events.add(now, job.index, "recomputed", serving.slots(job))
        job.last_token = now
        if job.generated == job.output:
            serving.leave_prefilling(job)
            return True
        self._copied += serving.fork(job)
        self._forked |= job.samples > 1
        serving.start_decoding(job)
        return False

    def _finish(self, job: Job) -> None:
        job.finished = self.now
        self.record.requests.add(job, "finished")
        if self.record.requests.counts["finished"] % self._often == 0:
            self._tell()
        self.arrivals.release(job.index, job.finished)
        if self.scheduler.holds_finished:
            self.serving.linger(job)
        else:
            self.serving.retire(job)

    def _end_batch(self) -> None:
        """Release the finished jobs that a batch-level scheduler holds until the last one of their batch."""
        serving = self.serving
        if serving.lingering and not serving.decoding and not serving.prefilling:
            for job in list(serving.lingering):
                serving.retire(job)

    # -- many steps ------------------------------------------------------------------------

    def _leap(self) -> tuple[int, int] | None:
        """Do as many pure-decode steps as are certain and write their rows; returns their number and duration.

        None if there are too few of them to be worth it, given that steps take about as long as the last one.
        """
        serving, now = self.serving, self.now
        until = min(self.arrivals.soonest, self._horizon, self.record.blocks.due) - now
        if until <= WORTHWHILE * self._pace or serving.decoding.soonest() <= WORTHWHILE:
            return None
        leapt = leap(serving, self.executor, until, self._pace - self._exposed)
        if leapt is None:
            return None
        durations, total, found = leapt
        steps, count = len(durations), len(serving.decoding)
        gap = now + int(durations[0]) - serving.decoding.emitted
        serving.tokens += count  # those of the first step
        row = self.record.row(self.steps, now, 0, count, gap, count, 0, found.total)
        self.record.steps.stretch(row, durations, found.changes, found.calls)
        if found.calls:
            self._mapped = serving.allocator.mappings()
        serving.tokens += count * (steps - 1)
        self.steps += steps
        self._pace, self._decoded_alone, self._exposed = int(durations[-1]), True, 0
        return steps, total

    def _book_decodes(self, steps: int) -> None:
        """Book what a leap produced, now that it has ended."""
        for job in self.serving.advance(steps, self.now):
            self._finish(job)
        self._end_batch()
