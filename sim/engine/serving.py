"""What the engine serves at one instant: the waiting queue, the running jobs, and their memory.

Schedulers decide, `Serving` does: each verb moves a job between queue, prefill, decode and
gone, calls the allocator, and keeps the sums that the ledger and the cost model need, so
that neither loops over the batch.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from allocators.answers import MISS, Ask, Hit, Reason, Refusal, Swap, Usage
from allocators.base import Allocator
from allocators.ledger import Ledger, split
from sim.engine.cycle import Cycle
from sim.engine.decoding import Decoding
from sim.engine.growing import Calendar, Growing, Roll
from sim.engine.jobs import NEVER, Job
from sim.engine.plan import Loss, MoveKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from allocators.table import Ints
    from sim.engine.decoding import Sequence as Stream
    from sim.engine.plan import Plan


class Blocked(StrEnum):
    """What keeps the head of the queue waiting."""

    NOTHING = ""
    MEMORY = "memory"
    SEATS = "seats"
    BUDGET = "budget"
    ORDER = "order"


class Serving:
    """Queue, running jobs and allocator, changed by one scheduler and one engine."""

    def __init__(self, allocator: Allocator, *, swap: bool = False) -> None:
        """Serve from `allocator`; with `swap`, preempted jobs go to the host if it has one, else recompute."""
        self.allocator = allocator
        self.swap = allocator.free_preemption or (
            swap and type(allocator).swap_out_group is not Allocator.swap_out_group
        )
        self.waiting: deque[Job] = deque()
        self.running: dict[int, Job] = {}
        """By ticket, hence in running order."""
        self.prefilling: dict[int, Job] = {}
        """The running jobs that do not decode yet, by ticket."""
        self.decoding = Decoding()
        self.growing = _growing(allocator, self.decoding)
        self.lingering: list[Job] = []
        """Finished jobs whose memory a batch-level scheduler still holds."""
        self.blocked = Blocked.NOTHING
        self.refusal: Refusal | None = None
        """Why memory blocks the head of the queue, when it does."""
        self.tokens = 0
        """Tokens in the cache over all running sequences, lingering ones included."""
        self.context = 0
        """... over the decoding ones only."""
        self.internal = 0
        """Held slots that no sequence will ever use, but for those of decoding sequences."""
        self.seats = 0
        """Running sequences, lingering ones included."""
        self._tickets = 0

    # -- admission -------------------------------------------------------------------------

    def lookup(self, job: Job) -> Hit:
        """Tokens of a waiting job that are in the cache.  Changes nothing."""
        return MISS if job.host_rows else self.allocator.lookup(job.content, job.known)

    def admit(self, job: Job, hit: Hit, tokens: int, *, whole: int = 0, spare: int = 0) -> Refusal | None:
        """Give the head of the queue memory for `tokens` tokens and let it run; on refusal nothing changes.

        The caller plans the chunk; `job.computed` is what it need not compute.
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
        """Bring a swapped job back to the device; on refusal nothing changes."""
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
        """Enter what swapping a job has moved; returns its rows on the other side."""
        moves = [move for swap in swaps for move in swap.moves]
        plan.move(kind, moves)
        if not self.allocator.free_preemption:
            job.swapped_blocks += len(moves)
            plan.swapped_blocks += len(moves)
        return [swap.row for swap in swaps]

    def _seat(self, job: Job) -> None:
        self.waiting.popleft()
        self._tickets += 1
        job.ticket = self._tickets
        self.running[job.ticket] = job
        self.seats += job.samples

    def waste(self, row: int, job: Job) -> int:
        """Slots a row holds beyond what its sequence will ever use."""
        slots = int(self.allocator.table.slots[row])
        final = job.prompt + job.output - 1
        return slots - final if slots > final else 0

    def slots(self, job: Job) -> int:
        """Token slots the rows of a job hold, shared ones once a row."""
        return sum(self.allocator.table.slots[list(job.rows)].tolist())

    # -- running ---------------------------------------------------------------------------

    def extend(self, job: Job, tokens: int, plan: Plan) -> Refusal | None:
        """Make room for the next `tokens` tokens of a prefilling job; what must be copied for that goes to the plan."""
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

    def fork(self, job: Job) -> int:
        """Give a prefilled job a row for each of its samples; returns tokens to be copied for that."""
        copied = 0
        if len(job.rows) < job.samples:
            rows = list(job.rows)
            while len(rows) < job.samples:
                grant = self.allocator.fork(rows[0])
                if isinstance(grant, Refusal):
                    raise StalledError(f"{job} cannot fork: {grant}")
                rows.append(grant.row)
                copied += grant.copied
                self.internal += self.waste(grant.row, job)
            job.rows = rows
        elif not self.allocator.recomputes:
            copied = (job.samples - 1) * job.computed
        self.tokens += (job.samples - 1) * job.computed
        return copied

    def select(self, job: Job, parents: Sequence[int]) -> int:
        """Let each of a decoding job's sequences continue that of `parents[i]`; returns tokens to be copied.

        Where blocks are shared, sequences that are continued more than once fork and those that nobody continues
        are released; elsewhere they keep their reservations and K/V is copied between them.
        """
        place = self.decoding.place(job)
        sequences = self.decoding.members[place : place + len(parents)]
        repeated = len(parents) - len(set(parents))
        if self.allocator.recomputes:
            return 0
        if not self.allocator.shares:
            return repeated * self.decoding.length(sequences[0])
        self.growing.tell(sequences)
        for sequence in sequences:
            self.growing.leave(sequence)
        rows, copied = [], 0
        for rank, parent in enumerate(parents):
            if parent in parents[:rank]:
                grant = self.allocator.fork(job.rows[parent])
                if isinstance(grant, Refusal):
                    raise StalledError(f"{job} cannot fork: {grant}")
                rows.append(grant.row)
                copied += grant.copied
            else:
                rows.append(job.rows[parent])
        for dropped in set(range(len(job.rows))) - set(parents):
            self.allocator.release(job.rows[dropped])
        job.rows = rows
        self.decoding.rename(place, rows)
        for sequence in sequences:
            sequence.slots = int(self.allocator.table.slots[sequence.row])
            self.growing.begin(sequence)
        return copied

    def start_decoding(self, job: Job) -> None:
        """Move a job whose known tokens but the last are all computed from prefill to decode."""
        slots = self.allocator.table.slots
        self.prefilling.pop(job.ticket, None)
        for row in job.rows:
            self.internal -= self.waste(row, job)
            self.growing.begin(self.decoding.insert(job, row, int(slots[row])))
        self.context += job.computed * len(job.rows)

    def advance(self, steps: int, now: int, staying: Sequence[Stream] = ()) -> list[Job]:
        """Let the decoding sequences but those `staying` behind, the last of them, be `steps` tokens longer.

        Returns:
            the jobs that have ended, in running order; they have left the decoding set.

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

    def repeated(self, decodes: int) -> int:
        """K/V tokens that the first `decodes` decoding sequences share, once for each that has them but one."""
        if not self.allocator.repeated():  # by any rows: as ever, where nobody shares
            return 0
        others = [each.row for each in self.decoding.members[decodes:]]
        for job in (*self.prefilling.values(), *self.lingering):
            others += job.rows
        return self.allocator.repeated(others)

    def preempt(self, plan: Plan, needy: Job, lacking: Refusal) -> Job:
        """Take the memory of the last running job, which `needy` lacks, and put it at the front of the queue."""
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
            if job.samples > 1:  # one prefill cannot bring back outputs that differ: they are generated anew
                job.generated = 0
        job.rows = ()
        if not self.allocator.free_preemption:
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
        """Take all of a job's sequences out of the decoding set; their memory stays."""
        place = self.decoding.place(job)
        self.decoding.settle(place)
        for _ in job.rows:
            self.growing.leave(self.decoding.remove(place))
        self.context -= job.computed * len(job.rows)
        self.tokens -= job.computed * len(job.rows)

    def linger(self, job: Job) -> None:
        """Keep a finished job's memory until its batch ends."""
        self.lingering.append(job)
        tokens, empty = self._left_by(job)
        self.tokens += tokens
        self.internal += empty

    def _left_by(self, job: Job) -> tuple[int, int]:
        """Tokens that a finished job leaves in the cache, and slots that it leaves empty."""
        tokens = job.computed * (len(job.rows) if job.output > 1 else 1)  # with its first token it had not yet forked
        return tokens, sum(int(self.allocator.table.slots[row]) for row in job.rows) - tokens

    def leave_prefilling(self, job: Job) -> None:
        """Take a job out of the prefilling set; its memory stays."""
        del self.prefilling[job.ticket]
        self.tokens -= job.computed
        self.internal -= sum(self.waste(row, job) for row in job.rows)

    def retire(self, job: Job) -> None:
        """Release a finished job that has left the prefilling or decoding set."""
        if job in self.lingering:
            self.lingering.remove(job)
            tokens, empty = self._left_by(job)
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
        """Remember what keeps the head of the queue waiting."""
        self.blocked, self.refusal = why, refusal

    def unblock(self) -> None:
        """Forget it: something has changed that may let the head in."""
        self.blocked, self.refusal = Blocked.NOTHING, None

    def ledger(self) -> Ledger:
        """Where every slot is now."""
        live, internal, stranded, usage = self.shares()
        written = live - usage.states + usage.saved + usage.dropped
        return split(self.allocator.capacity, usage, written, internal, stranded)

    def shares(self) -> tuple[int, int, int, Usage]:
        """Count what only the engine can tell apart: live, internal and external slots; and the allocator's count."""
        allocator = self.allocator
        usage = allocator.usage()
        if allocator.recomputes:  # no token has a slot once its step is over
            return 0, 0, 0, usage
        refusal, stranded = self.refusal, 0
        if refusal is not None and refusal.reason is Reason.HOLE:
            stranded = allocator.stranded(refusal.need)
        each = allocator.token_slots
        live = each * self.tokens + usage.states - usage.saved - usage.dropped
        internal = each * (self.internal + self.growing.internal)
        if self.lingering:
            spent = self.spent()
            live, internal = live - spent, internal + spent
        if self.seats != len(self.running):
            internal -= each * self._counted_twice()
        return live, internal, stranded, usage

    def spent(self) -> int:
        """Slots filled by finished jobs and shared with no running one: internal, as nobody will read them."""
        left = [self._left_by(job) for job in self.lingering]
        if not self.allocator.shares:
            return sum(tokens for tokens, _ in left)
        used = np.unique(self._filled(job for job in self.running.values() if job.finished == NEVER)[0])
        blocks, filled = self._filled(self.lingering)
        blocks, first = np.unique(blocks, return_index=True)
        return int(filled[first][(blocks > 0) & ~np.isin(blocks, used)].sum())

    def _filled(self, jobs: Iterable[Job]) -> tuple[Ints, Ints]:
        """Blocks that some jobs' rows list, and the slots filled in each."""
        allocator = self.allocator
        blocks, filled = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for job in jobs:
            for row in job.rows:
                blocks.append(allocator.table.row(row).astype(np.int64))
                filled.append(allocator.columns.filled(np.array(job.computed), len(blocks[-1]), allocator.block_size))
        return np.concatenate(blocks), np.concatenate(filled)

    def _counted_twice(self) -> int:
        """Waste in last blocks that forked sequences still share, beyond once a block."""
        if not self.allocator.shares:
            return 0
        table = self.allocator.table
        twice = 0
        for job in self.running.values():
            if len(job.rows) > 1:
                blocks = {int(table.row(row)[-1]) for row in job.rows}
                twice += (len(job.rows) - len(blocks)) * self.waste(job.rows[0], job)
        return twice


def _growing(allocator: Allocator, decoding: Decoding) -> Growing:
    """Choose how the decoding sequences of an allocator grow."""
    if allocator.regular:
        return Cycle(allocator, decoding)
    notice = allocator.notice
    return Roll(allocator, decoding) if notice is None else Calendar(allocator, decoding, notice)


class StalledError(Exception):
    """The engine cannot make progress; the message names the sequence and the reason."""
