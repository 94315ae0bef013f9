"""Jobs of several sequences: parallel samples and beams.

They begin with one prompt, which is computed once.  Then they fork; and in each step of a beam search, some of them go
on from the tokens of another one.  Where the allocator shares blocks, they hold the same ones as far as they are equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocators.answers import Refusal
from sim.engine.books import Books
from sim.engine.jobs import Job, StalledError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.engine.decoding import Decoding


class Samples(Books):
    """The part of `Serving` that lets sequences fork."""

    prefilling: dict[int, Job]
    """The running jobs that do not decode yet, by ticket."""
    decoding: Decoding
    """The sequences of those that do."""

    def fork(self, job: Job) -> int:
        """Give a prefilled job a row for each of its samples; return how many tokens must be copied for that."""
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
        """Let sequence i of a decoding job continue sequence `parents[i]`; return how many tokens must be copied.

        If blocks are shared, sequences that are continued more than once fork, and those that are not continued are
        released.  Otherwise all keep their memory, and K/V is copied between them.
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
            sequence.slots = self.allocator.table.slots.item(sequence.row)
            self.growing.begin(sequence)
        return copied

    def repeated(self, decodes: int) -> int:
        """K/V tokens that the first `decodes` decoding sequences share, once for each holder beyond the first."""
        if not self.allocator.repeated():  # usually, nothing is shared at all
            return 0
        others = [each.row for each in self.decoding.members[decodes:]]
        for job in (*self.prefilling.values(), *self.lingering):
            others += job.rows
        return self.allocator.repeated(others)
