"""Request-level batches: take what fits, run it to the end of its longest output, then take the next.

What FasterTransformer and plain `generate` do, and the baseline of Orca's and the
PagedAttention paper's figures: early finishers keep their memory until the batch ends.
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
