"""vLLM's V1 scheduler: one token budget, decodes first, prefill in chunks, preemption by recompute.

Running requests get what they still have to compute, in order, as far as the budget lasts: one
token if they decode, a chunk if they prefill.  A request that lacks slots takes those of the
newest.  The queue moves only if nothing was preempted; it is first come, first served, and its
head is never overtaken (vLLM 0.33, v1/core/sched/scheduler.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from allocators.compiled import mypyc_attr
from sim.engine.plan import Chunk, Plan
from sim.engine.scheduler import Scheduler
from sim.engine.serving import Blocked

if TYPE_CHECKING:
    from sim.engine.jobs import Job
    from sim.engine.serving import Serving


@mypyc_attr(allow_interpreted_subclasses=True)
class VllmV1(Scheduler):
    """Token budget, chunked prefill, decodes first, preempt the newest."""

    kind: ClassVar[str] = "vllm-v1"
    fcfs: ClassVar[bool] = True
    chunks: ClassVar[bool] = True

    def plan(self, serving: Serving) -> Plan:
        """Fill one step within `max_num_batched_tokens`."""
        plan = Plan()
        budget = self._run_on(serving, plan, self.limits.max_num_batched_tokens)
        if not plan.preempted:
            self._let_in(serving, plan, budget)
        return plan

    def steady(self, serving: Serving) -> bool:
        """Whether nothing prefills, the head of the queue is stuck and the budget covers every decode."""
        return super().steady(serving) and len(serving.decoding) <= self.limits.max_num_batched_tokens

    def _run_on(self, serving: Serving, plan: Plan, budget: int) -> int:
        """Plan the running jobs in order: spans of decodes between the jobs that prefill.  Returns the budget left."""
        decoding = serving.decoding
        done = 0
        for job in list(serving.prefilling.values()):
            upto = decoding.before(job.ticket)
            done, budget, short = self._decode(serving, plan, done, upto, budget)
            if short or job.ticket not in serving.prefilling:  # out of budget, or preempted by one before it
                return 0
            tokens = min(job.known - job.computed, self._cap(serving, job), budget)
            if tokens <= 0 or (tokens := self._make_room(serving, plan, job, tokens)) <= 0:
                return 0
            plan.chunks.append(Chunk(job, job.computed, tokens))
            budget -= tokens
        _, budget, short = self._decode(serving, plan, done, len(decoding), budget)
        return 0 if short else budget

    def _decode(self, serving: Serving, plan: Plan, done: int, upto: int, budget: int) -> tuple[int, int, bool]:
        """Let decoding sequences `[done, upto)` advance; returns how far, the budget left, and if it stopped short."""
        want, members = min(upto, done + budget), serving.decoding.members
        while done < want < upto and members[want - 1].owner is members[want].owner:  # a job's samples go together
            want -= 1
        went = self.advance(serving, plan, done, want)
        plan.decodes = done + went
        return done + went, budget - went, done + went < upto

    def _cap(self, serving: Serving, job: Job) -> int:
        """Most tokens of one prompt per step; a request that is alone has no cap."""
        cap = self.limits.long_prefill_token_threshold
        return cap if cap and len(serving.running) + len(serving.waiting) > 1 else job.known

    @staticmethod
    def _make_room(serving: Serving, plan: Plan, job: Job, tokens: int) -> int:
        """Find slots for a chunk, preempting from the tail; 0 if the job had to preempt itself."""
        while (refusal := serving.extend(job, tokens, plan)) is not None:
            if serving.preempt(plan, job, refusal) is job:
                plan.refusal = refusal
                return 0
        return tokens

    def _let_in(self, serving: Serving, plan: Plan, budget: int) -> None:
        limits = self.limits
        serving.unblock()
        while serving.waiting and not plan.preempted:
            job = serving.waiting[0]
            if serving.seats + job.samples > limits.max_num_seqs:
                return serving.block(Blocked.SEATS)
            if budget <= 0:
                return serving.block(Blocked.BUDGET)
            if job.host_rows:
                refusal = self.restore(serving, plan, job)
                if refusal is None:
                    budget = self._go_on(serving, plan, job, budget)
                    continue
                return serving.block(Blocked.MEMORY, refusal)
            hit = serving.lookup(job)
            tokens = min(job.known - hit.tokens, self._cap(serving, job))
            if tokens > budget and not limits.chunked_prefill:
                if not plan.empty:
                    return serving.block(Blocked.BUDGET)
                budget = tokens  # a preempted request may have outgrown any budget: it gets a step of its own
            whole, spare = job.known if limits.full_prompt_gate else 0, self.watermark(serving)
            refusal = self.admit(serving, plan, job, hit, min(tokens, budget), whole=whole, spare=spare)
            if refusal is not None:
                return serving.block(Blocked.MEMORY, refusal)
            budget -= plan.chunks[-1].tokens
        return None

    def _go_on(self, serving: Serving, plan: Plan, job: Job, budget: int) -> int:
        """Let a job that came back from the host compute in this step; returns the budget left."""
        if job.ticket in serving.prefilling:
            tokens = min(job.known - job.computed, self._cap(serving, job), budget)
            if serving.extend(job, tokens, plan) is None:
                plan.chunks.append(Chunk(job, job.computed, tokens))
                budget -= tokens
            return budget
        if plan.decodes + len(job.rows) == len(serving.decoding):
            went = self.advance(serving, plan, plan.decodes, len(serving.decoding))
            plan.decodes += went
            budget -= went
        return budget
