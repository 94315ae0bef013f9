"""The loop of the reference engine: arrivals, a step, what it produced, again."""

from __future__ import annotations

from bisect import insort
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from allocators.answers import Mappings, Reason
from sim.engine.beams import parents
from sim.engine.jobs import NEVER, StalledError
from sim.engine.loop import Outcome
from sim.reference.policies import POLICIES
from sim.reference.records import Records, Snapshots
from sim.reference.requests import Request
from sim.reference.room import Room, Step
from sim.reference.wording import as_plan, as_serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from allocators.base import Allocator
    from allocators.content import Content
    from sim.engine.executor import Executor
    from sim.engine.telemetry import Sink
    from sim.reference.policies import Policy
    from sim.schedulers import Scheduler
    from workloads.requests import Requests


class ReferenceEngine:
    """Serves as `sim.engine.loop.Engine` does, and takes and leaves the same."""

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
    ) -> None:
        """Make an engine that has not started; the arguments are those of `Engine`.

        Only the kind and the limits of `scheduler` are used; its policy is implemented again here.
        """
        self.requests = requests
        self.content = content
        self.limits = scheduler.limits
        self.policy: Policy = POLICIES[scheduler.kind](scheduler.limits)
        self.whole_batches = scheduler.kind == "static"
        self.has_budget = scheduler.kind in ("vllm-v0", "vllm-v1")
        self.executor = executor
        self.sink = sink
        self.room = Room(allocator, swap=swap)
        self.seed = seed
        self.horizon = None if horizon_s is None else round(horizon_s * 1e9)
        self.now = 0
        self.steps = 0
        self.copied = 0
        """Tokens copied by forks, to be paid for by the next step."""
        self.mapped = Mappings()
        """Pages mapped and unmapped until the last step began."""
        self.to_come: list[tuple[int, int]] = []
        """When which request arrives, in that order; who follows another one is entered when that one ends."""
        self.followers: dict[int, list[int]] = defaultdict(list)
        for index in range(len(requests)):
            after = int(requests.after[index]) if len(requests.after) else -1
            if after < 0:
                self.to_come.append((nanoseconds(requests.arrival_s[index]), index))
            else:
                self.followers[after].append(index)
        span = int(float(requests.arrival_s[-1]) * 1e9) if len(requests) else 0
        span = span if self.horizon is None else min(span, self.horizon)
        self.records = Records(Snapshots(instants, max(1_000_000, span // (instants or 1))), requests.parts)
        self.prefix_groups = requests.prefix_groups()
        self.counts: Counter[str] = Counter()
        self.lost: set[tuple[int, int]] = set()
        """Requests that lost their memory in steps without work, and the tokens that each had generated."""
        self.before = 1
        """Nanoseconds of the last step after it had its pages."""
        self.unhidden = True
        """Whether no step runs while the host prepares the next."""

    # -- the loop ----------------------------------------------------------------------------

    def run(self, progress: Callable[[int], None] | None = None) -> Outcome:
        """Serve everything, write the telemetry, and say what came of it."""
        room = self.room
        while True:
            while self.to_come and self.to_come[0][0] <= self.now:
                self.arrive(*self.to_come.pop(0))
            if self.horizon is not None and self.now >= self.horizon:
                break
            if not room.running and not room.waiting:
                if not self.to_come:
                    break
                self.idle()
                continue
            self.step()
            self.records.snapshot(self.now, room)
            if progress is not None:
                progress(self.counts["finished"])
        for request in [*room.running, *room.waiting]:
            if request.finished == NEVER:
                self.leave(request, "unfinished")
        self.records.write(self.sink)
        counts = {status: self.counts[status] for status in ("finished", "refused", "unfinished")}
        return Outcome(**counts, steps=self.steps, end_s=self.now / 1e9)

    def arrive(self, arrival: int, index: int) -> None:
        """Queue a request, or refuse it."""
        requests = self.requests
        output = int(requests.output_tokens[index])
        samples = int(requests.samples[index]) if len(requests.samples) else 1
        prompt = int(requests.prompt_tokens[index])
        part = requests.parts[int(requests.part[index])] if requests.parts else None
        request = Request(index, arrival, prompt, output, output, samples, self.content(index), part)
        why = self.never(request)
        if why:
            request.reason = why
            self.leave(request, "refused")
            final = (request.prompt + request.output - 1) * request.samples
            self.records.happened(arrival, request, "refuse", final, -1, why)
            self.release_followers(request, arrival)
        else:
            self.room.waiting.append(request)

    def never(self, request: Request) -> str:
        """Say why a request can never run, or nothing; cut its output to the model's context."""
        limits = self.limits
        if request.prompt >= limits.max_model_len:
            return Reason.LENGTH.value
        if self.has_budget and not limits.chunked_prefill and request.prompt > limits.max_num_batched_tokens:
            return "longer than a step's token budget"
        if request.samples > limits.max_num_seqs:
            return "more samples than seats"
        if self.has_budget and request.samples > limits.max_num_batched_tokens:
            return "more samples than a step's token budget"
        if request.prompt + request.output > limits.max_model_len:
            request.output = limits.max_model_len - request.prompt
            request.reason = "output cut at the model's context"
        ask = self.room.ask(request, request.prompt)._replace(samples=request.samples)
        refusal = self.room.allocator.never(ask, request.final)
        return refusal.reason.value if refusal is not None else ""

    def leave(self, request: Request, status: str) -> None:
        """Write the row of a request that is done with, one way or another."""
        self.counts[status] += 1
        self.records.left(request, status, int(self.prefix_groups[request.index]))

    def release_followers(self, ended: Request, now: int) -> None:
        """Let those that follow a request arrive, each in its own time."""
        for index in self.followers[ended.index]:
            insort(self.to_come, (now + nanoseconds(self.requests.delay_s[index]), index))

    def idle(self) -> None:
        """Wait for the next arrival, or the horizon."""
        until = self.to_come[0][0]
        if self.horizon is not None:
            until = min(until, self.horizon)
        self.records.step(self.steps, self.now, until - self.now, self.room, None)
        self.now = until
        self.unhidden = True

    # -- one step ----------------------------------------------------------------------------

    def step(self) -> None:
        """Plan a step, run it, and write its row."""
        room = self.room
        step = self.policy.plan(room)
        lost = {(loss[0].index, loss[0].generated) for loss in step.losses}
        if not step.work and lost <= self.lost:
            head = [*room.waiting, *room.running][0]
            raise StalledError(
                f"no progress: {head}: {step.lacking or step.refusal or step.blocked or 'nothing to run'}"
            )
        if not step.work:
            self.lost |= lost
        for loss in step.losses:
            self.records.happened(self.now, *loss)
        for request in step.admitted:
            if request.scheduled == NEVER:
                request.scheduled = self.now
                request.cached = request.computed
            else:
                word = "swap_in" if request in step.restored else "resume"
                self.records.happened(self.now, request, word, room.slots(request), -1, "")
        step.copied_tokens += self.copied
        self.copied = 0
        now = room.allocator.mappings()
        step.mappings = now.since(self.mapped)
        self.mapped = now
        plan = as_plan(step)
        plan.start = self.now
        plan.before, plan.unhidden = self.before, self.unhidden
        duration = self.executor.run(plan, as_serving(room))
        self.before = duration - plan.exposed
        self.unhidden = plan.waited
        step.hidden, step.exposed = plan.hidden, plan.exposed
        gaps = self.gaps(step, self.now + duration)
        gap = usual([gap for gap, _ in gaps])
        alike = [request for each, request in gaps if each == gap]
        self.records.step(self.steps, self.now, duration, room, step, len(gaps), gap, alike)
        for each, request in gaps:
            if each != gap:
                request.stalls.append(each)
        self.steps += 1
        self.now += duration
        self.book(step)

    # -- what a step produced ------------------------------------------------------------------

    def book(self, step: Step) -> None:
        """Enter what a step produced, in running order; then those that ended let go of their memory."""
        room = self.room
        worked = [request for request in room.running if request in step.work]
        for request in worked:
            if request.decoding:
                self.book_decode(request)
            else:
                self.book_chunk(request, step.work[request])
        for request in worked:
            if request.finished == self.now:
                self.finish(request)
        if len(room.finished) == len(room.running):
            for request in list(room.finished):
                room.retire(request)

    def book_decode(self, request: Request) -> None:
        """Every sequence has one more token in the cache and one more known."""
        for sequence in request.sequences:
            sequence.tokens += 1
        request.furthest = request.computed
        self.book_token(request)
        if self.requests.beam and request.samples > 1 and request.finished == NEVER:
            chosen = parents(self.seed, request.index, request.generated, request.samples)
            self.copied += self.room.select(request, chosen)

    def book_chunk(self, request: Request, tokens: int) -> None:
        """A part of the known tokens is in the cache; the last part yields a token."""
        start = request.computed
        request.recomputed += max(0, min(start + tokens, request.furthest) - start)
        request.sequences[0].tokens += tokens
        request.furthest = max(request.furthest, request.computed)
        if request.computed < request.known:
            return
        if request.last_token != NEVER:
            request.stalls.append(self.now - request.last_token)
            self.records.happened(self.now, request, "recomputed", self.room.slots(request), -1, "")
        self.book_token(request)
        if request.finished == NEVER:
            self.copied += self.room.fork(request)
            request.decoding = True

    def book_token(self, request: Request) -> None:
        """Count a token of every sample, perhaps the last."""
        request.generated += 1
        request.last_token = self.now
        if request.first_token == NEVER:
            request.first_token = self.now
        if request.generated == request.output:
            request.finished = self.now

    def finish(self, request: Request) -> None:
        """Let go of the memory of a request that has ended, or let it linger until its batch has."""
        self.leave(request, "finished")
        self.release_followers(request, self.now)
        if self.whole_batches:
            self.room.finished.append(request)
        else:
            self.room.retire(request)

    @staticmethod
    def gaps(step: Step, end: int) -> list[tuple[int, Request]]:
        """Time between the last token and the one at `end` of every sequence that decodes, and whose it is."""
        decoding = [request for request in step.work if request.decoding]
        return [(end - request.last_token, request) for request in decoding for _ in request.sequences]


def nanoseconds(seconds: float) -> int:
    """Turn seconds into the engine's clock."""
    return round(float(seconds) * 1e9)


def usual(gaps: list[int]) -> int:
    """Return the gap that most have, the smallest of several such; 0 if there is none."""
    counts = Counter(gaps)
    return min(counts, key=lambda gap: (-counts[gap], gap), default=0)
