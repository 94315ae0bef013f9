"""Orca's iteration-level scheduling: first come, first served; requests join and leave between any two steps.

Each step runs every admitted request: the whole prompts of those just admitted and one token
of the others (selective batching).  Memory is left to the allocator: with the reservations of
the PagedAttention paper's Orca variants nothing is ever preempted; with an allocator that grows
on demand the newest request is (Yu et al., OSDI 2022, section 4).
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
class Orca(Scheduler):
    """Iteration-level FCFS with whole prompts."""

    kind: ClassVar[str] = "orca"
    fcfs: ClassVar[bool] = True
    has_budget: ClassVar[bool] = False

    def plan(self, serving: Serving) -> Plan:
        """Every decoding sequence advances; then the queue moves while seats and memory last."""
        plan = Plan()
        plan.decodes = self.advance(serving, plan, 0, len(serving.decoding))
        if not plan.preempted:
            self.let_in(serving, plan)
        return plan

    def let_in(self, serving: Serving, plan: Plan) -> None:
        """Admit whole prompts from the head of the queue."""
        serving.unblock()
        while serving.waiting and not plan.preempted:
            job = serving.waiting[0]
            if serving.seats + job.samples > self.limits.max_num_seqs:
                return serving.block(Blocked.SEATS)
            if job.host_rows:
                refusal = self.restore(serving, plan, job)
                if refusal is None:
                    plan.decodes += self.advance(serving, plan, plan.decodes, len(serving.decoding))
            else:
                hit = serving.lookup(job)
                refusal = self.admit(serving, plan, job, hit, job.known - hit.tokens, spare=self.watermark(serving))
            if refusal is not None:
                return serving.block(Blocked.MEMORY, refusal)
        return None
