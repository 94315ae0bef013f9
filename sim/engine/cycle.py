"""Growing in a cycle: sequences that each need a block once in `block_size` steps, and nothing in between.

Where every block is a sequence's own and has no key, all that happens to a sequence while it decodes is
that it takes a block whenever the last one is full: in the steps whose number leaves the same remainder
when divided by `block_size`.  A page for each remainder lists who takes one then, and is written to only
when a sequence comes or goes.  So many steps are a walk over pages, whoever decodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.engine.decoding import enter
from sim.engine.growing import NO_STRETCH, NOTHING, Noting, Stretch

if TYPE_CHECKING:
    from collections.abc import Sequence as Several

    from allocators.base import Allocator, Growth
    from sim.engine.decoding import Decoding, Sequence


class Cycle(Noting):
    """Hands out one block after the other, to those whose last one is full."""

    def __init__(self, allocator: Allocator, decoding: Decoding) -> None:
        """Grow the sequences in `decoding`."""
        super().__init__(allocator, decoding)
        self._period = allocator.block_size
        self._pages: list[list[Sequence]] = [[] for _ in range(self._period)]
        """Sequences that take a block in the step that ends at a clock of this remainder, in running order."""
        self._fresh: list[Sequence] = []
        """Those whose last block may be shared or have a twin on the host, in running order.

        The allocator must be asked for their next step, in which it copies that block.
        """

    def begin(self, sequence: Sequence) -> None:
        """See `Growing.begin`."""
        super().begin(sequence)
        owner, period = sequence.owner, self._period
        used = -(-sequence.final // period) * period
        sequence.due = used - period + 1 - sequence.start
        enter(self._pages[(1 - sequence.start) % period], sequence)
        if owner.samples > 1 or owner.swapped_blocks or self.allocator.free_preemption:
            enter(self._fresh, sequence)

    def leave(self, sequence: Sequence) -> None:
        """See `Growing.leave`."""
        sequence.slots = int(self.allocator.table.slots[sequence.row])
        super().leave(sequence)
        self._pages[(1 - sequence.start) % self._period].remove(sequence)
        if self._fresh and sequence in self._fresh:
            self._fresh.remove(sequence)

    def stay(self, sequences: Several[Sequence]) -> None:
        """See `Growing.stay`."""
        period = self._period
        for sequence in sequences:
            self._pages[(1 - sequence.start) % period].remove(sequence)
            enter(self._pages[(2 - sequence.start) % period], sequence)
            sequence.due += 1

    def grow(self, first: int, last: int) -> tuple[int, Growth]:
        """See `Growing.grow`."""
        allocator, members, step = self.allocator, self.decoding.members, self.decoding.clock + 1
        page, place, growth = self._page(first, last, step), last, NOTHING
        granted = len(page)
        if self._fresh:
            growth = self._ask(page, step) if page else NOTHING
            granted = growth.granted
            self._fresh = [each for each in self._fresh if each not in page[:granted]]
        else:
            granted = min(granted, allocator.room)
            allocator.append([each.row for each in page[:granted]])
            if granted < len(page):  # the next one hears why
                growth = self._ask(page[granted : granted + 1], step)
        if granted < len(page):
            place = members.index(page[granted], first)
            page = page[:granted]
        if place:
            self._asked = step, members[place - 1].order
        self.internal += self._useless(page, step)
        return place, growth

    def _page(self, first: int, last: int, step: int) -> list[Sequence]:
        """List those of the sequences `[first, last)` that the allocator must be asked for, or give a block."""
        page, members = self._pages[step % self._period], self.decoding.members
        if self._fresh:
            page = list(page)
            for sequence in self._fresh:
                if sequence not in page:
                    enter(page, sequence)
        if page and (first or last < len(members)):
            low, high = members[first].order, members[last - 1].order
            page = [each for each in page if low <= each.order <= high]
        return page

    def stretch(self, steps: int) -> Stretch:
        """See `Growing.stretch`."""
        if self._fresh:
            return NO_STRETCH
        pages, period, clock = self._pages, self._period, self.decoding.clock
        room, done, useless = self.allocator.room, steps, 0
        rows: list[int] = []
        changes: list[int] = []
        for step in range(clock + 1, clock + 1 + steps):
            page = pages[step % period]
            if not page:
                continue
            room -= len(page)
            if room < 0:
                done = step - clock - 1
                break
            spare = 0
            for sequence in page:
                rows.append(sequence.row)
                if sequence.due == step:
                    spare += -sequence.final % period
            useless += spare
            changes += (step - clock - 1, len(page) * period, 0, 0, spare, 0)
        self.allocator.append(rows)
        self.internal += useless
        return Stretch(done, changes, (0, len(rows) * period, 0, 0, useless, 0))

    def _useless(self, page: Several[Sequence], step: int) -> int:
        """Count the slots of blocks just taken that will never be used: none but in a last block."""
        useless = 0
        for sequence in page:
            if sequence.due == step:
                useless += -sequence.final % self._period
        return useless
