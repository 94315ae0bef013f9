"""vLLM's first scheduler: prefill before decode, preemption by swap or recompute.

A step is either a prefill of whole prompts from the queue, as many as the token budget, seats
and memory (less a watermark) allow, or one decode of everything that runs.  A decode that lacks
a slot preempts the newest request; preempted requests come back before any new one is admitted
(PagedAttention paper, section 4.5; vLLM 0.6.6, core/scheduler.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from allocators.compiled import mypyc_attr
from sim.engine.plan import Plan
from sim.engine.scheduler import Scheduler
from sim.engine.serving import Blocked

if TYPE_CHECKING:
    from sim.engine.serving import Serving


@mypyc_attr(allow_interpreted_subclasses=True)
class VllmV0(Scheduler):
    """Prefill first, then decode; never both in a step."""

    kind: ClassVar[str] = "vllm-v0"
    fcfs: ClassVar[bool] = True

    def plan(self, serving: Serving) -> Plan:
        """Prefill if a prompt can be let in, else decode."""
        plan = Plan()
        self._prefill(serving, plan)
        if not plan.chunks:
            plan.decodes = self.advance(serving, plan, 0, len(serving.decoding))
            if not plan.preempted:
                self._swap_in(serving, plan)
        return plan

    def steady(self, serving: Serving) -> bool:
        """See `Scheduler.steady`; a swapped-out head that cut a prefill step short may come back in the next one."""
        return serving.blocked is not Blocked.ORDER and super().steady(serving)

    def _prefill(self, serving: Serving, plan: Plan) -> None:
        serving.unblock()
        budget = self.limits.max_num_batched_tokens
        while serving.waiting:
            job = serving.waiting[0]
            if job.host_rows:
                return serving.block(Blocked.ORDER)
            if serving.seats + job.samples > self.limits.max_num_seqs:
                return serving.block(Blocked.SEATS)
            hit = serving.lookup(job)
            tokens = job.known - hit.tokens
            if tokens > budget and plan.chunks:  # the first may exceed it: a preempted request may have outgrown it
                return serving.block(Blocked.BUDGET)
            refusal = self.admit(serving, plan, job, hit, tokens, spare=self.watermark(serving))
            if refusal is not None:
                return serving.block(Blocked.MEMORY, refusal)
            budget -= tokens
        return None

    def _swap_in(self, serving: Serving, plan: Plan) -> None:
        while serving.waiting and serving.waiting[0].host_rows and not plan.preempted:
            job = serving.waiting[0]
            if serving.seats + job.samples > self.limits.max_num_seqs:
                return serving.block(Blocked.SEATS)
            refusal = self.restore(serving, plan, job)
            if refusal is not None:
                return serving.block(Blocked.MEMORY, refusal)
            plan.decodes += self.advance(serving, plan, plan.decodes, len(serving.decoding))
            serving.unblock()
        return None
