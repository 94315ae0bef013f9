"""Request-level batches: admit what fits, run it until the longest output is done, then admit the next batch.

This is what FasterTransformer and plain `generate` do, and the baseline in Orca's and the
PagedAttention paper's figures: requests that finish early keep their memory until the batch ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from allocators.compiled import mypyc_attr
from sim.engine.plan import Plan
from sim.engine.serving import Blocked
from sim.schedulers.orca import Orca

if TYPE_CHECKING:
    from sim.engine.serving import Serving


@mypyc_attr(allow_interpreted_subclasses=True)
class Static(Orca):
    """Whole batches, one after the other."""

    kind: ClassVar[str] = "static"
    holds_finished: ClassVar[bool] = True

    def plan(self, serving: Serving) -> Plan:
        """Run the batch on; take a new one only when there is none."""
        plan = Plan()
        if serving.running:
            plan.decodes = self.advance(serving, plan, 0, len(serving.decoding))
        else:
            self.let_in(serving, plan)
        if serving.waiting and not plan.preempted and not plan.empty:
            serving.block(Blocked.ORDER)
        return plan
