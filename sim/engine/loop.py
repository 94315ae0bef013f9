"""The serving loop: SimPy processes for arrivals and for the engine, one clock in nanoseconds.

The engine asks the scheduler for a plan, an executor how long it takes, advances the clock
and books what the step produced.  When the next plans are certain (every running sequence
decodes, nothing can be let in) it leaps over them (`sim.engine.leaping`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import simpy

from allocators.base import Ask, Mappings, Reason
from sim.engine.beams import parents
from sim.engine.jobs import NEVER, Job
from sim.engine.leaping import leap
from sim.engine.serving import Blocked, Serving, StalledError
from sim.telemetry import BlockLog, EventLog, RequestLog, Sink, Step, StepLog, step_row

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from allocators.base import Allocator
    from allocators.content import Content
    from sim.engine.executor import Executor
    from sim.engine.plan import Chunk, Plan
    from sim.schedulers import Scheduler
    from workloads.requests import Requests

INFINITY = float("inf")


def _spacing(requests: Requests, instants: int) -> int:
    """Nanoseconds between snapshots that spread `instants` of them over the arrivals; more time doubles it."""
    span = float(requests.arrival_s[-1]) if len(requests) else 0.0
    return max(1_000_000, int(span * 1e9) // max(1, instants))


class Outcome(NamedTuple):
    """What a run came to."""

    finished: int
    refused: int
    unfinished: int
    steps: int
    end_s: float


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
        instants: int = 256,
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
            seed: of the draws that the run itself makes: which beams live on.
            swap: preempt to the host rather than recompute.
            instants: snapshots of the block map to keep, at most.
            horizon_s: stop the clock there, unfinished requests and all.
            leaps: whether to leap over certain steps; the results are the same.

        """
        self.env = simpy.Environment(initial_time=0)
        self.requests = requests
        self.content = content
        self.scheduler = scheduler
        self.executor = executor
        self.serving = Serving(allocator, swap=swap)
        self.leaps = leaps
        self.seed = seed
        self.steps = 0
        self.log = StepLog(sink)
        self.request_log = RequestLog(len(requests))
        self.event_log = EventLog(sink)
        self.block_log = BlockLog(instants, _spacing(requests, instants))
        self._sink = sink
        self._horizon = INFINITY if horizon_s is None else round(horizon_s * 1e9)
        self._pending = len(requests)
        self._followers: dict[int, list[int]] = {}
        """Requests that arrive some time after another one has ended, by that one."""
        for index in np.flatnonzero(requests.after >= 0).tolist():
            self._followers.setdefault(int(requests.after[index]), []).append(index)
        self._arrived: list[Job] = []
        """Jobs that arrived since the queue was last looked at."""
        self._refused: list[Job] = []
        """... and those that were turned away."""
        self._bell = self.env.event()
        self._emitted = 0
        """When the decoding sequences got their last token."""
        self._uniform = True
        """Whether that is true of every one of them."""
        self._copied = 0
        """Tokens copied by forks since the last step began."""
        self._forked = False
        """Whether sequences have forked since the last step: the next one may have blocks to copy."""
        self._mapped = Mappings()
        """Pages mapped and unmapped until the last step began."""
        self._evicted = 0
        """Cached blocks evicted until the last step began."""
        self._leapt = 0

    def run(self, progress: Callable[[int], None] | None = None) -> Outcome:
        """Serve everything, write the telemetry, and say what came of it.

        What an executor raises ends the run; the telemetry up to then is written all the same.
        """
        self.env.process(self._arrivals())
        try:
            self.env.run(until=self.env.process(self._serve(progress)))
        finally:
            self._write()
        return Outcome(**self.request_log.counts, steps=self.steps, end_s=self.now / 1e9)

    def _write(self) -> None:
        """Write the telemetry; what has not finished is unfinished."""
        for job in [*self.serving.running.values(), *self.serving.waiting]:
            if job.finished == NEVER:
                self._settle(job)
                self.request_log.add(job, "unfinished")
        self.log.flush()
        self.event_log.flush()
        self.request_log.flush(self._sink, self.requests.prefix_groups())
        self.block_log.flush(self._sink)

    @property
    def now(self) -> int:
        """The clock, in nanoseconds."""
        return int(self.env.now)

    def _settle(self, job: Job) -> None:
        if job.rows and job.ticket not in self.serving.prefilling:
            place = self.serving.decoding.place(job)
            if place < len(self.serving.decoding):
                self.serving.decoding.settle(place)

    # -- arrivals --------------------------------------------------------------------------

    def _job(self, index: int) -> Job:
        """Make the job of a request that arrives now."""
        requests = self.requests
        samples = int(requests.samples[index]) if len(requests.samples) else 1
        return Job(
            index,
            self.now,
            int(requests.prompt_tokens[index]),
            int(requests.output_tokens[index]),
            samples,
            self.content(index),
        )

    def _arrivals(self) -> Generator[simpy.Event, object, None]:
        """Let requests arrive at their times; those that follow another one are released by its end."""
        followers = {index for released in self._followers.values() for index in released}
        for index in range(len(self.requests)):
            if index in followers:
                continue
            arrival = round(float(self.requests.arrival_s[index]) * 1e9)
            if arrival > self.now:
                yield self.env.timeout(arrival - self.now)
            self._arrive(index)

    def _follow(self, index: int) -> Generator[simpy.Event, object, None]:
        """Let a request arrive some time after the one that it follows has ended."""
        yield self.env.timeout(round(float(self.requests.delay_s[index]) * 1e9))
        self._arrive(index)

    def _release(self, ended: Job) -> None:
        for index in self._followers.get(ended.index, ()):
            self.env.process(self._follow(index))

    def _arrive(self, index: int) -> None:
        job = self._job(index)
        self._pending -= 1
        refusal = self._never(job)
        if refusal:
            job.reason = refusal
            self.request_log.add(job, "refused")
            self._refused.append(job)
            self._release(job)
        else:
            self._arrived.append(job)
        if not self._bell.triggered:
            self._bell.succeed()

    def _queue(self) -> None:
        """Queue what has arrived: by time, and at one instant in the order of the workload."""
        if self._arrived:
            if not self.serving.waiting:
                self.serving.unblock()
            self.serving.waiting.extend(sorted(self._arrived, key=lambda job: (job.arrival, job.index)))
            self._arrived.clear()
        if self._refused:
            for job in sorted(self._refused, key=lambda job: (job.arrival, job.index)):
                self.event_log.add(job.arrival, job.index, "refuse", job.final * job.samples, reason=job.reason)
            self._refused.clear()

    def _never(self, job: Job) -> str:
        """Say why a request can never run, or nothing; cut its output to the model's context."""
        limits = self.scheduler.limits
        budget = limits.max_num_batched_tokens if self.scheduler.has_budget else INFINITY
        if job.prompt >= limits.max_model_len:
            return Reason.LENGTH.value
        if not limits.chunked_prefill and job.prompt > budget:
            return "longer than a step's token budget"
        if job.samples > limits.max_num_seqs:
            return "more samples than seats"
        if job.samples > budget:
            return "more samples than a step's token budget"
        if job.prompt + job.output > limits.max_model_len:
            job.output = limits.max_model_len - job.prompt
            job.reason = "output cut at the model's context"
        allocator = self.serving.allocator
        output = job.output if allocator.oracle else None
        ask = Ask(job.content, job.prompt, job.prompt, output=output, samples=job.samples)
        refusal = allocator.never(ask, job.final)
        return refusal.reason.value if refusal else ""

    # -- the loop --------------------------------------------------------------------------

    def _serve(self, progress: Callable[[int], None] | None) -> Generator[simpy.Event, object, None]:
        env, serving, scheduler = self.env, self.serving, self.scheduler
        while True:
            while env.peek() <= self.now:  # all that happens at this instant comes first
                yield env.timeout(0)
            self._queue()
            if self.now >= self._horizon:
                return
            if not serving.running and not serving.waiting:
                if not self._pending:
                    return
                yield from self._idle()
                continue
            if self._certain() and (duration := self._leap()):
                yield env.timeout(duration)
                self._book_decodes()
            else:
                plan = scheduler.plan(serving)
                if plan.empty:
                    self._stalled(plan)
                yield env.timeout(self._start(plan))
                self._book(plan)
            if self.now >= self.block_log.due:
                self.block_log.take(self.now, serving)
            if progress is not None:
                progress(self.request_log.counts["finished"])

    def _certain(self) -> bool:
        """Whether the scheduler could only let every decoding sequence advance, with nothing else to book."""
        serving = self.serving
        searching = self.requests.beam and serving.seats > len(serving.running)
        to_pay = self._forked or serving.allocator.mappings() != self._mapped
        return self.leaps and self._uniform and not (to_pay or searching) and self.scheduler.steady(serving)

    def _idle(self) -> Generator[simpy.Event, object, None]:
        """Wait for the next arrival, or the horizon."""
        start = self.now
        row = step_row(Step(self.steps, start), self.serving, self.serving.ledger())  # before the arrival that ends it
        self._bell = self.env.event()
        if self._horizon < INFINITY:
            yield self._bell | self.env.timeout(int(self._horizon) - start)
        else:
            yield self._bell
        if self.now > start:
            self.log.add(row._replace(duration=self.now - start))

    def _stalled(self, plan: Plan) -> None:
        """Say who cannot go on, and why; only a scheduler or allocator that breaks its contract leads here."""
        head = self.serving.waiting[0] if self.serving.waiting else next(iter(self.serving.running.values()))
        why = plan.refusal or self.serving.refusal or self.serving.blocked or "nothing to run"
        raise StalledError(f"no progress: {head}: {why}")

    # -- one step --------------------------------------------------------------------------

    def _start(self, plan: Plan) -> int:
        """Run a plan and write its row; returns its duration."""
        serving, now = self.serving, self.now
        for loss in plan.losses:
            word = "swap_out" if loss.swapped else "preempt"
            self.event_log.add(now, loss.request, word, loss.slots, loss.cause, loss.reason.value)
        for job in plan.admitted:
            if job.scheduled == NEVER:
                job.scheduled = now
                job.cached = job.computed
            else:
                self.event_log.add(now, job.index, "swap_in" if job in plan.restored else "resume", serving.slots(job))
            self._uniform &= job.ticket in serving.prefilling  # else it came back from the host
        plan.copied_tokens += self._copied
        plan.mappings = self._new_mappings()
        self._mapped = serving.allocator.mappings()
        self._copied, self._forked = 0, False
        evicted, self._evicted = serving.allocator.evictions() - self._evicted, serving.allocator.evictions()
        duration = self.executor.run(plan, serving)
        prefill = sum(chunk.tokens for chunk in plan.chunks)
        serving.tokens += plan.decodes + prefill
        gap, gap_tokens = self._gaps(plan.decodes, now + duration)
        row = step_row(
            Step(self.steps, now, duration, gap=gap),
            serving,
            serving.ledger(),
            prefill_tokens=prefill,
            decode_tokens=plan.decodes,
            gap_tokens=gap_tokens,
            preemptions=len(plan.preempted),
            evicted=evicted,
        )
        self.log.add(row)
        self.steps += 1
        return duration

    def _new_mappings(self) -> Mappings:
        """Pages mapped and unmapped since the last step began."""
        now, before = self.serving.allocator.mappings(), self._mapped
        return Mappings(now.mapped - before.mapped, now.unmapped - before.unmapped)

    def _gaps(self, decodes: int, end: int) -> tuple[int, int]:
        """Time since the last token of most of the first `decodes` sequences, and of how many; others stall."""
        if not decodes:
            return 0, 0
        if self._uniform:
            return end - self._emitted, decodes
        decoding = self.serving.decoding
        gaps = end - decoding.column(decoding.LAST)[:decodes]
        values, counts = np.unique(gaps, return_counts=True)
        gap = int(values[counts.argmax()])
        for place in np.flatnonzero(gaps != gap).tolist():
            decoding.owners[place].stalls.append(int(gaps[place]))
        return gap, int(counts.max())

    def _book(self, plan: Plan) -> None:
        """Enter what a step produced, now that it has ended; then those that ended leave, in running order."""
        serving = self.serving
        ended = []
        if plan.decodes:
            self._advance(plan.decodes, 1)
            serving.context += plan.decodes
            self._uniform = plan.decodes == len(serving.decoding)
            self._emitted = self.now
            if self.requests.beam:
                self._select_beams(plan.decodes)
            ended = self._decoded()
        ended += [chunk.job for chunk in plan.chunks if self._book_chunk(chunk)]
        for job in sorted(ended, key=lambda job: job.ticket):
            self._finish(job)
        if serving.blocked is Blocked.BUDGET:  # the next step has a budget of its own
            serving.unblock()
        self._end_batch()

    def _select_beams(self, decodes: int) -> None:
        """Let the beams of every search that has just advanced fork and drop."""
        decoding = self.serving.decoding
        for job in dict.fromkeys(decoding.owners[:decodes]):
            if job.samples > 1:
                left = int(decoding.column(decoding.LEFT)[decoding.place(job)])
                if left:
                    chosen = parents(self.seed, job.index, job.output - left, job.samples)
                    self._copied += self.serving.select(job, chosen)
                    self._forked = True

    def _book_chunk(self, chunk: Chunk) -> bool:
        """Enter a chunk; returns whether it brought the last token of its job, which then runs no more."""
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
            self.event_log.add(now, job.index, "recomputed", serving.slots(job))
        job.last_token = now
        if job.generated == job.output:
            serving.leave_prefilling(job)
            return True
        self._copied += serving.fork(job)
        self._forked |= job.samples > 1
        if not serving.decoding:
            self._emitted, self._uniform = now, True
        self._uniform &= self._emitted == now
        serving.start_decoding(job)
        return False

    def _advance(self, decodes: int, steps: int) -> None:
        decoding = self.serving.decoding
        decoding.column(decoding.LENGTH)[:decodes] += steps
        decoding.column(decoding.LEFT)[:decodes] -= steps
        decoding.column(decoding.LAST)[:decodes] = self.now

    def _decoded(self) -> list[Job]:
        """Take jobs that decoded their last token out of the decoding set, and return them in running order."""
        decoding = self.serving.decoding
        left = decoding.column(decoding.LEFT)
        if left.min() > 0:
            return []
        jobs = list(dict.fromkeys(decoding.owners[place] for place in np.flatnonzero(left == 0).tolist()))
        for job in jobs:
            self.serving.leave_decoding(job)
        return jobs

    def _finish(self, job: Job) -> None:
        job.finished = self.now
        self.request_log.add(job, "finished")
        self._release(job)
        if self.scheduler.holds_finished:
            self.serving.linger(job)
        else:
            self.serving.retire(job)

    def _end_batch(self) -> None:
        """Let go of finished jobs that a batch-level scheduler has held until the last of their batch."""
        serving = self.serving
        if serving.lingering and not serving.decoding and not serving.prefilling:
            for job in list(serving.lingering):
                serving.retire(job)

    # -- many steps ------------------------------------------------------------------------

    def _leap(self) -> int:
        """Do as many pure-decode steps as are certain and write their rows; returns their duration, 0 if none is."""
        now = self.now
        until = min(self.env.peek(), self._horizon, self.block_log.due) - now
        leapt = leap(self.serving, self.executor, Step(self.steps, now, gap=now - self._emitted), until)
        if leapt is None:
            return 0
        self.log.leap(leapt.first, leapt.durations, leapt.changes)
        self.steps += leapt.steps
        self._leapt = leapt.steps
        self._evicted = self.serving.allocator.evictions()
        return leapt.duration

    def _book_decodes(self) -> None:
        """Enter what a leap produced, now that it has ended."""
        self._advance(len(self.serving.decoding), self._leapt)
        self._emitted = self.now
        for job in self._decoded():
            self._finish(job)
        self._end_batch()
