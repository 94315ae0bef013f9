"""What the engine serves at one instant: the waiting queue, the running jobs, and their memory.

Schedulers decide and `Serving` acts: each method moves a job between the queue, prefill, decode
and the end, calls the allocator, and updates the sums that the ledger and the cost model need, so
that these never loop over the batch.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from allocators.answers import MISS, Ask, Hit, Refusal, Swap
from allocators.base import Allocator
from sim.engine.cycle import Cycle
from sim.engine.decoding import Decoding
from sim.engine.growing import Calendar, Growing
from sim.engine.jobs import Job
from sim.engine.mapping import Mapping
from sim.engine.plan import Loss, MoveKind
from sim.engine.roll import Roll
from sim.engine.samples import Samples
from sim.engine.shifting import Shifting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.engine.decoding import Sequence as Stream
    from sim.engine.plan import Plan
    from workloads.requests import Requests


class Blocked(StrEnum):
    """What keeps the head of the queue waiting."""

    NOTHING = ""
    MEMORY = "memory"
    SEATS = "seats"
    BUDGET = "budget"
    ORDER = "order"


class Serving(Samples):
    """The queue, the running jobs and the allocator of one engine."""

    def __init__(self, allocator: Allocator, requests: Requests | None = None, *, swap: bool = False) -> None:
        """Start empty.

        Args:
            allocator: gives memory to the jobs.
            requests: all that may come, if they may be a mix.
            swap: whether preempted jobs are swapped to the host, if the allocator can do that.

        """
        super().__init__(allocator)
        self.swap = allocator.free_preemption or (swap and allocator.swaps)
        self.waiting: deque[Job] = deque()
        self.prefilling: dict[int, Job] = {}
        """The running jobs that do not decode yet, by ticket."""
        self.decoding = Decoding(requests)
        self.growing = _growing(allocator, self.decoding)
        self.blocked = Blocked.NOTHING
        self.context = 0
        """Tokens in the cache, over the decoding sequences."""
        self._tickets = 0

    # -- admission -------------------------------------------------------------------------

    def lookup(self, job: Job) -> Hit:
        """Find the longest cached prefix of a waiting job."""
        return MISS if job.host_rows else self.allocator.lookup(job.content, job.known)

    def admit(self, job: Job, hit: Hit, tokens: int, *, whole: int = 0, spare: int = 0) -> Refusal | None:
        """Give a waiting job memory for `tokens` tokens and let it run; if refused, nothing changes.

        Afterwards `job.computed` tokens, those of the hit, are in the cache; the caller plans a chunk for the others.

        Args:
            job: waits; the head of the queue, unless the scheduler lets others pass.
            hit: its cached prefix.
            tokens: token slots to take, those of the hit included.
            whole: as `Ask.whole`.
            spare: as `Ask.spare`.

        """
        allocator = self.allocator
        output = job.output if allocator.oracle else None
        ask = Ask(job.content, job.prompt, tokens, hit, whole, spare, output, job.samples)
        rows: list[int] = []
        while len(rows) < (1 if allocator.shares else job.samples):
            grant = allocator.admit(ask._replace(samples=job.samples - len(rows)) if rows else ask)
            if isinstance(grant, Refusal):
                for row in reversed(rows):
                    allocator.release(row)
                return grant
            rows.append(grant.row)
        job.rows = rows
        job.computed = hit.tokens
        job.furthest = max(job.furthest, job.computed)
        self._seat(job)
        self.prefilling[job.ticket] = job
        self.tokens += hit.tokens
        for row in rows:
            self.internal += self.waste(row, job)
        return None

    def restore(self, job: Job, plan: Plan, spare: int = 0) -> Refusal | None:
        """Bring a waiting job back from the host and let it run; if refused, nothing changes."""
        swaps = self.allocator.swap_in_group(job.host_rows, spare)
        if isinstance(swaps, Refusal):
            return swaps
        job.rows, job.host_rows = self._moved(MoveKind.IN, swaps, job, plan), ()
        plan.restored.append(job)
        self._seat(job)
        self.internal += sum(self.waste(row, job) for row in job.rows)
        if job.generated and job.computed == job.known - 1:
            self.tokens += job.computed * len(job.rows)
            self.start_decoding(job)
        else:
            self.tokens += job.computed
            self.prefilling[job.ticket] = job
        return None

    def _moved(self, kind: MoveKind, swaps: Sequence[Swap], job: Job, plan: Plan) -> list[int]:
        """Record the blocks moved by swapping a job; return its rows on the other side."""
        moves = [move for swap in swaps for move in swap.moves]
        plan.move(kind, moves)
        job.moved = True
        if not self.allocator.free_preemption:
            job.swapped_blocks += len(moves)
            plan.swapped_blocks += len(moves)
        return [swap.row for swap in swaps]

    def _seat(self, job: Job) -> None:
        try:
            self.waiting.remove(job)
        except ValueError:
            raise ValueError(f"{job} is not waiting, so it cannot be admitted") from None
        self._tickets += 1
        job.ticket = self._tickets
        self.running[job.ticket] = job
        self.seats += job.samples

    # -- running ---------------------------------------------------------------------------

    def extend(self, job: Job, tokens: int, plan: Plan) -> Refusal | None:
        """Make room for the next `tokens` tokens of a prefilling job; block copies for this are added to the plan."""
        before = sum(self.waste(row, job) for row in job.rows)
        refusal = None
        for row in job.rows:
            growth = self.allocator.grow(np.array([row]), np.array([job.computed + tokens]))
            plan.move(MoveKind.COPY, growth.copies)
            plan.copied_tokens += growth.copied
            if (refusal := growth.refusal) is not None:
                break
        self.internal += sum(self.waste(row, job) for row in job.rows) - before
        return refusal

    def start_decoding(self, job: Job) -> None:
        """Move a job from prefill to decode; all its known tokens except the last are computed."""
        slots = self.allocator.table.slots
        self.prefilling.pop(job.ticket, None)
        for row in job.rows:
            self.internal -= self.waste(row, job)
            self.growing.begin(self.decoding.insert(job, row, slots.item(row)))
        self.context += job.computed * len(job.rows)

    def advance(self, steps: int, now: int, staying: Sequence[Stream] = ()) -> list[Job]:
        """Let `steps` steps pass, the last of them ending at `now`, in which decoding sequences grow by a token each.

        Args:
            steps: number of steps.
            now: nanoseconds.
            staying: the last sequences in running order that do not take part, if any.

        Returns:
            The jobs that have ended, in running order; they no longer count as decoding.

        """
        decoding = self.decoding
        self.context += (len(decoding.members) - len(staying)) * steps
        ended = decoding.advance(steps, now, staying)
        if not ended:
            return []
        jobs = [ended[0].owner] if len(ended) == 1 else list(dict.fromkeys(each.owner for each in ended))
        for job in jobs:
            self.leave_decoding(job)
        return jobs

    def preempt(self, plan: Plan, needy: Job, lacking: Refusal) -> Job:
        """Take the memory of the newest running job, which `needy` lacks, and put that job at the front of the queue.

        Returns:
            The preempted job, which may be `needy` itself.

        """
        ticket, job = self.running.popitem()
        slots = self.slots(job)
        if ticket in self.prefilling:
            self.leave_prefilling(job)
        else:
            if self.swap:
                self.growing.tell(self.decoding.members[self.decoding.place(job) :])
            self.leave_decoding(job)
        self.seats -= job.samples
        if not (self.swap and self._swap_out(job, plan)):
            for row in reversed(job.rows):
                self.allocator.release(row)
            job.computed = 0
            if job.samples > 1:  # one prefill cannot restore outputs that differ, so they are generated again
                job.generated = 0
        job.rows = ()
        job.preemptions += 1
        self.waiting.appendleft(job)
        plan.preempted.append(job)
        plan.losses.append(Loss(job.index, slots, bool(job.host_rows), needy.index, lacking.reason))
        self.unblock()
        return job

    def _swap_out(self, job: Job, plan: Plan) -> bool:
        swaps = self.allocator.swap_out_group(job.rows)
        if isinstance(swaps, Refusal):  # the host is full
            return False
        job.host_rows = self._moved(MoveKind.OUT, swaps, job, plan)
        return True

    def leave_decoding(self, job: Job) -> None:
        """Stop decoding all sequences of a job; it keeps their memory."""
        place = self.decoding.place(job)
        self.decoding.settle(place)
        for _ in job.rows:
            self.growing.leave(self.decoding.remove(place))
        self.context -= job.computed * len(job.rows)
        self.tokens -= job.computed * len(job.rows)

    def linger(self, job: Job) -> None:
        """Keep the memory of a finished job until its batch ends."""
        self.lingering.append(job)
        tokens, empty = self.left_by(job)
        self.tokens += tokens
        self.internal += empty

    def leave_prefilling(self, job: Job) -> None:
        """Stop prefilling a job; it keeps its memory."""
        del self.prefilling[job.ticket]
        self.tokens -= job.computed
        self.internal -= sum(self.waste(row, job) for row in job.rows)

    def retire(self, job: Job) -> None:
        """Release the memory of a finished job, which neither prefills nor decodes any more."""
        if job in self.lingering:
            self.lingering.remove(job)
            tokens, empty = self.left_by(job)
            self.tokens -= tokens
            self.internal -= empty
        for row in reversed(job.rows):
            self.allocator.release(row)
        self.seats -= job.samples
        del self.running[job.ticket]
        job.rows = ()
        self.unblock()

    # -- standing still --------------------------------------------------------------------

    def block(self, why: Blocked, refusal: Refusal | None = None) -> None:
        """Record what keeps the head of the queue waiting."""
        self.blocked, self.refusal = why, refusal

    def unblock(self) -> None:
        """Forget what blocked the head of the queue, because something has changed."""
        self.blocked, self.refusal = Blocked.NOTHING, None


def _growing(allocator: Allocator, decoding: Decoding) -> Growing:
    """Choose how the decoding sequences of an allocator grow."""
    if allocator.regular:
        turning = Mapping if allocator.rounds_up else Cycle if allocator.leaves_behind is None else Shifting
        return turning(allocator, decoding)
    notice = allocator.notice
    return Roll(allocator, decoding) if notice is None else Calendar(allocator, decoding, notice)
