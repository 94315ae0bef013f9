"""The interface of schedulers: pure decisions, without a clock.

`plan` looks at the queue and the running jobs and decides what one step runs.  It changes `Serving`
only through its methods (admit, extend, preempt, restore).  This module also has what all schedulers
share: growing the decoding sequences, and preempting the newest jobs until the others fit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from allocators.compiled import mypyc_attr
from sim.engine.plan import Chunk, MoveKind, Plan
from sim.engine.serving import Blocked, Serving
from sim.limits import Limits

if TYPE_CHECKING:
    from allocators.answers import Hit, Refusal
    from sim.engine.jobs import Job


@mypyc_attr(allow_interpreted_subclasses=True)
class Scheduler(ABC):
    """Decides what each step runs."""

    kind: ClassVar[str]
    fcfs: ClassVar[bool] = False
    """Whether requests are served first come, first served, so that an arrival changes nothing while the head of the
    queue is blocked.  The engine leaps over such arrivals; for other schedulers it plans anew after each."""
    holds_finished: ClassVar[bool] = False
    """Whether finished jobs keep their memory until the whole batch has finished."""
    chunks: ClassVar[bool] = False
    """Whether it can compute a prompt over several steps, and does unless `Limits.chunked_prefill` is false."""
    has_budget: ClassVar[bool] = True
    """Whether `Limits.max_num_batched_tokens` bounds a step."""

    def __init__(self, limits: Limits) -> None:
        """Schedule within `limits`."""
        self.limits = limits

    @abstractmethod
    def plan(self, serving: Serving) -> Plan:
        """Decide one step: grow and preempt running jobs, admit waiting ones.

        Where the head of the queue has to wait, say by `serving.block` for what (and before, by `serving.unblock`, that
        it may no longer have to): reports tell users, and the engine then leaps over steps in which nothing can change.
        """

    def steady(self, serving: Serving) -> bool:
        """Return whether `plan` would only let every decoding sequence advance, if there is memory.

        If True, it stays so until a job finishes or is released, or, unless `fcfs`, one arrives; until then the engine
        may leap over steps.
        """
        if serving.prefilling or not serving.decoding:
            return False
        return not serving.waiting or self.settled(serving)

    @staticmethod
    def settled(serving: Serving) -> bool:
        """Whether the head of the queue is blocked, and growing decodes cannot change that."""
        if serving.blocked is Blocked.MEMORY:
            return serving.allocator.settled
        return serving.blocked is not Blocked.NOTHING

    def watermark(self, serving: Serving) -> int:
        """Blocks that admission must leave free: as in vLLM, a share of all blocks, the null block included."""
        return int(self.limits.watermark * (serving.allocator.num_blocks + 1)) if serving.running else 0

    @staticmethod
    def advance(serving: Serving, plan: Plan, first: int, last: int) -> int:
        """Give the decoding sequences `[first, last)` their next slot, preempting the newest jobs until they fit.

        Returns:
            How many of them continue; fewer than asked for if some of them were preempted.

        """
        members = serving.decoding.members
        start = first
        while first < (end := min(last, len(members))):
            first, growth = serving.growing.grow(first, end)
            if growth.copies:
                plan.move(MoveKind.COPY, growth.copies)
            plan.copied_tokens += growth.copied
            if growth.refusal is not None and serving.lingering:
                serving.retire(serving.lingering[-1])
            elif growth.refusal is not None:
                needy = members[first].owner
                if serving.preempt(plan, needy, growth.refusal) is needy:
                    plan.refusal = growth.refusal
                    return min(first, len(members)) - start
        return first - start

    @staticmethod
    def admit(
        serving: Serving, plan: Plan, job: Job, hit: Hit, tokens: int, *, whole: int = 0, spare: int = 0
    ) -> Refusal | None:
        """Admit a waiting job and plan a chunk of `tokens` tokens that follow its prefix hit."""
        refusal = serving.admit(job, hit, hit.tokens + tokens, whole=whole, spare=spare)
        if refusal is None:
            plan.admitted.append(job)
            plan.chunks.append(Chunk(job, job.computed, tokens))
        return refusal

    def restore(self, serving: Serving, plan: Plan, job: Job) -> Refusal | None:
        """Bring a waiting job back from the host, if there is also room for its next tokens."""
        refusal = serving.restore(job, plan, self.watermark(serving) + job.samples if serving.running else 0)
        if refusal is None:
            plan.admitted.append(job)
        return refusal
