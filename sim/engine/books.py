"""The engine's part of the ledger: how every slot of the pool is used, as far as the allocator cannot know.

An allocator knows what rows hold, but not how long they will become, which jobs have finished, or whether a token has
been computed.  Sums are updated as jobs come and go, so a step in which nothing of this changes does not look at jobs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from allocators.answers import Reason, Refusal, Usage
from allocators.errors import CorruptionError
from allocators.ledger import Ledger, split
from sim.engine.jobs import NEVER, Job

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from allocators.base import Allocator
    from allocators.table import Ints
    from sim.engine.growing import Growing

SHARES = Ledger._fields[:7]
"""Parts of the pool, which sum to its capacity."""


def demand_shares(columns: Mapping[str, Ints]) -> None:
    """Raise `CorruptionError` if a share of the pool is below nothing in some step: the allocator has miscounted."""
    for name in SHARES:
        if len(values := columns[name]) and (least := values.min()) < 0:
            step = columns["step"][values.argmin()]
            raise CorruptionError(f"its count is wrong: in step {step} {least:,} slots of the pool are {name}")


class Books:
    """The part of `Serving` that counts slots."""

    growing: Growing
    """Counts the slots that decoding sequences hold and will never use."""

    def __init__(self, allocator: Allocator) -> None:
        """Start with an empty `allocator`."""
        self.allocator = allocator
        self.running: dict[int, Job] = {}
        """Running jobs by ticket, and so in running order."""
        self.lingering: list[Job] = []
        """Finished jobs that keep their memory until their (static) batch ends."""
        self.refusal: Refusal | None = None
        """The allocator's refusal of the head of the queue, if memory blocks it."""
        self.tokens = 0
        """Tokens in the cache over all running sequences, lingering ones included."""
        self.internal = 0
        """Held slots that no sequence will ever use, without those of decoding sequences."""
        self.seats = 0
        """Number of running sequences, lingering ones included."""

    def waste(self, row: int, job: Job) -> int:
        """Slots that a row holds beyond what its sequence will ever use."""
        slots: int = self.allocator.table.slots.item(row)
        final = job.prompt + job.output - 1
        return slots - final if slots > final else 0

    def slots(self, job: Job) -> int:
        """Token slots that the rows of a job hold; a shared slot counts once per row."""
        return sum(self.allocator.table.slots.item(row) for row in job.rows)

    def left_by(self, job: Job) -> tuple[int, int]:
        """Tokens that a finished job has in the cache, and slots that it holds but leaves empty.

        A job of one token has not forked: if it has a row for each sample all the same, nobody else has a part in
        them, and it is the same whether their slots are filled or empty.
        """
        tokens = job.computed * len(job.rows)
        return tokens, self.slots(job) - tokens

    def ledger(self) -> Ledger:
        """Return how every slot is used now."""
        live, internal, stranded, usage = self.shares()
        return split(self.allocator.capacity, usage, live, internal, stranded)

    def shares(self) -> tuple[int, int, int, Usage]:
        """Return the live, internal and external slots, and the allocator's count."""
        allocator = self.allocator
        usage = allocator.usage()
        if allocator.recomputes:  # no token has a slot after its step
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
        """Slots filled by finished jobs and not shared with running ones; they are internal, as nobody reads them."""
        left = [self.left_by(job) for job in self.lingering]
        if not self.allocator.shares:
            return sum(tokens for tokens, _ in left)
        used = np.unique(self._filled(job for job in self.running.values() if job.finished == NEVER)[0])
        blocks, filled = self._filled(self.lingering)
        blocks, first = np.unique(blocks, return_index=True)
        return int(filled[first][(blocks > 0) & ~np.isin(blocks, used)].sum())

    def _filled(self, jobs: Iterable[Job]) -> tuple[Ints, Ints]:
        """Return the blocks in the rows of some jobs, and the slots filled in each: two int64[k]."""
        allocator = self.allocator
        blocks, filled = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for job in jobs:
            for row in job.rows:
                blocks.append(allocator.table.row(row).astype(np.int64))
                filled.append(allocator.columns.filled(np.array(job.computed), len(blocks[-1]), allocator.block_size))
        return np.concatenate(blocks), np.concatenate(filled)

    def _counted_twice(self) -> int:
        """Count the waste in last blocks that forked sequences share, for each sequence beyond the first."""
        if not self.allocator.shares:
            return 0
        table = self.allocator.table
        twice = 0
        for job in self.running.values():
            if len(job.rows) > 1:
                blocks = {int(table.row(row)[-1]) for row in job.rows}
                twice += (len(job.rows) - len(blocks)) * self.waste(job.rows[0], job)
        return twice
