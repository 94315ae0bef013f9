"""Growing in a cycle: each sequence needs a block once in `block_size` steps, and nothing in between.

With a regular allocator (`allocators.regular`), the only thing that happens to a decoding sequence is that it takes a
block when its last one is full: in steps whose number has a certain remainder modulo `block_size`.  For each
remainder, a page lists the sequences that take a block then; it changes only when a sequence comes or goes.  Many
steps are therefore a walk over pages, however many sequences decode.  (`sim.engine.shifting` extends this to
sequences that also give blocks back, `sim.engine.mapping` to blocks that must be mapped before they are used.)

A prefix cache must be told at once of full blocks of sequences that are entangled with others; of all other sequences
it only needs to know which have filled their last block.
"""

from __future__ import annotations

from array import array
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from sim.engine.decoding import enter, in_order
from sim.engine.growing import NOTHING, Noting, rows_of
from sim.engine.stretch import CACHED, EVICTED, HELD, INTERNAL, NO_STRETCH, ROUNDING, Stretch, evenly, packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Sequence as Several

    from allocators.answers import Growth
    from allocators.base import Allocator
    from sim.engine.decoding import Decoding, Sequence
    from sim.engine.timeline import Timeline


class Cycle(Noting):
    """Grows the sequences of a regular allocator."""

    def __init__(self, allocator: Allocator, decoding: Decoding) -> None:
        """Grow the sequences in `decoding`."""
        super().__init__(allocator, decoding)
        self._portion = allocator.portion
        self._period = self._portion.tokens
        self._each = allocator.token_slots
        """Slots of the pool that a token takes."""
        self._pages: list[list[Sequence]] = [[] for _ in range(self._period)]
        """By remainder: the sequences that take a block in a step that ends at such a clock, in running order."""
        self._rows: dict[int, array[int]] = {}
        """By remainder: cached rows of the sequences that `_changing` returns."""
        self._partly: dict[int, int] = {}
        """By future clock: slots that stay unused in final blocks taken in the step that ends then."""
        self._notes = bool(allocator.notice) and self._period > 1
        """Whether the allocator, which must know which blocks are full or how long rows are, would not learn that from
        every `append`."""
        self._window = allocator.leaves_behind
        self._after = [0]
        """How many steps after those of its page the allocator must be told of a sequence."""
        self._sharing = 0
        """Number of sequences whose windows may pass shared blocks; steps with these are not done in bulk."""
        self._fresh: list[Sequence] = []
        """Sequences whose last block may be shared or have a copy on the host, in running order.

        The next step of these needs `Allocator.grow`, which copies the block first if necessary.
        """

    def begin(self, sequence: Sequence) -> None:
        """See `Growing.begin`."""
        super().begin(sequence)
        owner, period = sequence.owner, self._period
        used = -(-sequence.final // period) * period
        if sequence.slots < used:  # else it already holds its final block, from a step that was not completed
            sequence.due = used - period + 1 - sequence.start
            self._expect(sequence, 1)
        enter(self._pages[(1 - sequence.start) % period], sequence)
        self._changed(1 - sequence.start)
        if self._window is not None:
            self._sharing += owner.samples > 1
        behind = self._window is not None and owner.computed >= self._window + period
        if behind or owner.samples > 1 or owner.moved:
            enter(self._fresh, sequence)

    def leave(self, sequence: Sequence) -> None:
        """See `Growing.leave`."""
        sequence.slots = self.allocator.table.slots.item(sequence.row)
        super().leave(sequence)
        self._pages[(1 - sequence.start) % self._period].remove(sequence)
        self._changed(1 - sequence.start)
        self._expect(sequence, -1)
        if self._window is not None:
            self._sharing -= sequence.owner.samples > 1
        if self._fresh and sequence in self._fresh:
            self._fresh.remove(sequence)

    def stay(self, sequences: Several[Sequence]) -> None:
        """See `Growing.stay`."""
        period = self._period
        self._rows.clear()
        for sequence in sequences:
            self._pages[(1 - sequence.start) % period].remove(sequence)
            enter(self._pages[(2 - sequence.start) % period], sequence)
            self._expect(sequence, -1)
            sequence.due += 1
            self._expect(sequence, 1)

    def _expect(self, sequence: Sequence, more: int) -> None:
        """Add (1) or remove (-1) the slots that will stay unused in the final block of a sequence."""
        if sequence.due <= self.decoding.clock:
            self._partly.pop(sequence.due, None)  # it has taken that block
        elif empty := -sequence.final % self._period:
            self._partly[sequence.due] = self._partly.get(sequence.due, 0) + more * empty

    def tell(self, sequences: Several[Sequence]) -> None:
        """See `Growing.tell`.  Not needed if the allocator learns the lengths from every `append`."""
        if self._notes:
            self.allocator.note(rows_of(sequences), self._lengths(sequences))
        elif self._period > 1:
            super().tell(sequences)

    def grow(self, first: int, last: int) -> tuple[int, Growth]:
        """See `Growing.grow`."""
        members, step = self.decoding.members, self.decoding.clock + 1
        filling = self._filling(step)
        page, place, growth = self._page(first, last, step, filling), last, NOTHING
        plain = self._plain(page, filling)
        granted = self._give(page[:plain], step)
        if granted < len(page):  # the next one is not plain, or there is no room for it
            asked = page[granted : granted + 1 if granted < plain else None]
            if self._notes:  # it may meet a sequence that has just filled a block
                self._note(first, members.index(page[granted], first), step)
                self.allocator.note(rows_of(asked), np.array([step - 1 + each.start for each in asked], np.int64))
            growth = self._ask(asked, step)
            granted += growth.granted
            if self._fresh:
                self._fresh = [each for each in self._fresh if each not in page[:granted]]
        if granted < len(page):
            place = members.index(page[granted], first)
            page = page[:granted]
        if place:
            self._asked = step, members[place - 1].order
        if self._notes:
            self._note(first, place, step)
        self.internal += self._useless(page, step)
        return place, growth

    def _filling(self, step: int) -> list[Sequence]:
        """List the sequences that fill a block in the step that ends at clock `step`, from the first entangled one on.

        (They take a block in the next step.)  Later ones are included because the entangled one may entangle them.
        """
        if entangled := self.allocator.entangled:
            page = self._pages[(step + 1) % self._period]
            for place, each in enumerate(page):
                if each.row in entangled:
                    return page[place:]
        return []

    def _plain(self, page: list[Sequence], filling: list[Sequence]) -> int:
        """Count the sequences at the start of a page that only take a block.  The others are usually the newest."""
        if not self._fresh and not filling and not self._sharing:
            return len(page)
        for place, each in enumerate(page):
            if each in filling or each in self._fresh or (self._sharing and each.owner.samples > 1):
                return place
        return len(page)

    def _changing(self, step: int) -> list[Sequence]:
        """List the sequences of which the allocator must be told in the step that ends at clock `step`."""
        found = [page for after in self._after if (page := self._pages[(step - after) % self._period])]
        if len(found) < 2:
            return found[0] if found else []
        return sorted(chain.from_iterable(found), key=in_order)

    def _changed(self, page: int) -> None:
        """Forget the cached rows of the sequences on a page."""
        for after in self._after:
            self._rows.pop((page + after) % self._period, None)

    def _give(self, page: Several[Sequence], step: int) -> int:
        """Let sequences take their blocks in a step; return how many of them can."""
        rows = self._listed(page)
        granted = min(len(rows), self.allocator.room)
        if self._period == 1:
            self.allocator.append_in_turn(rows[:granted], 1)
        else:
            self.allocator.append(rows[:granted])
        return granted

    def _note(self, first: int, last: int, step: int) -> None:
        """Tell the allocator what the sequences `[first, last)` have filled after the step that ends at `step`."""
        if filled := self._between(self._pages[(step + 1) % self._period], first, last):
            self.allocator.fill([each.row for each in filled])

    def _between(self, page: list[Sequence], first: int, last: int) -> list[Sequence]:
        """List those of the sequences on a page that are among the sequences `[first, last)`."""
        members = self.decoding.members
        if not page or (not first and last == len(members)):
            return page
        if first == last:
            return []
        low, high = members[first].order, members[last - 1].order
        return [each for each in page if low <= each.order <= high]

    def _page(self, first: int, last: int, step: int, filling: list[Sequence]) -> list[Sequence]:
        """List those of the sequences `[first, last)` that take a block or for which the allocator must be asked."""
        page = self._changing(step)
        if self._fresh or filling:
            page = list(page)
            for sequence in (*self._fresh, *filling):
                if sequence not in page:
                    enter(page, sequence)
        return self._between(page, first, last)

    def stretch(self, timeline: Timeline) -> Stretch:
        """See `Growing.stretch`."""
        if self._fresh or self._sharing:
            return NO_STRETCH
        if self._period == 1:
            return self._stretch_evenly(timeline)
        pages, period, clock, each = self._pages, self._period, self.decoding.clock, self._each
        room, steps, useless = self.allocator.room, timeline.steps, 0
        done = steps
        _, held, rounding = self._portion
        entangled, partly = self.allocator.entangled, self._partly
        rows = array("q")
        changes: list[int] = []
        for step in range(steps):
            end = clock + 1 + step
            count = len(pages[end % period])
            if count > room or (entangled and self._filling(end)):
                done = step
                break
            if not count:
                continue
            room -= count
            rows += self._rows.get(end % period) or self._list(end % period)
            changes.append(packed(step, HELD, count * held))
            if rounding:
                changes.append(packed(step, ROUNDING, count * rounding))
            if end in partly:  # the takers of final blocks are all on this page
                useless += partly[end]
                changes.append(packed(step, INTERNAL, partly[end] * each))
        evicted = self.allocator.append(rows)
        if self._notes and done:
            self._note(0, len(self.decoding), clock + done)
        if evicted:
            changes += self._evicting(changes, evicted)
        self.internal += useless
        taken, lost = len(rows), sum(evicted)
        cached = -lost * self.allocator.block_size
        return Stretch(done, changes, (taken * held, cached, taken * rounding, useless * each, lost, 0, 0))

    def _stretch_evenly(self, timeline: Timeline) -> Stretch:
        """Do `stretch` where every sequence takes a portion in every step."""
        allocator, rows = self.allocator, self.decoding.rows()
        steps, taking = min(timeline.steps, allocator.room // len(rows)), len(rows)
        if not steps or (allocator.entangled and self._filling(self.decoding.clock + 1)):
            return NO_STRETCH
        evicted = allocator.append_in_turn(rows, steps)
        held, rounding = taking * self._portion.held, taking * self._portion.rounding
        changes = [*evenly(steps, HELD, held)]
        if rounding:
            changes += evenly(steps, ROUNDING, rounding)
        lost, size = sum(evicted), allocator.block_size
        if lost and evicted.count(1) == len(evicted):  # all that is free is cached: each block evicts one
            changes += evenly(steps, CACHED, -held)
            changes += evenly(steps, EVICTED, held // size)
        elif lost:
            changes += self._evicting(changes, evicted)
        cached = -lost * size
        return Stretch(steps, changes, (steps * held, cached, steps * rounding, 0, lost, 0, 0))

    def _list(self, remainder: int) -> array[int]:
        """List the rows of the sequences of which the allocator must be told in steps with this remainder."""
        rows = self._rows[remainder] = array("q", self._listed(self._changing(remainder)))
        return rows

    def _listed(self, page: Several[Sequence]) -> Several[int]:
        """List the rows of sequences; those of all sequences are in an array already."""
        if len(page) == len(self.decoding):
            return self.decoding.rows()
        return [each.row for each in page]

    def _evicting(self, changes: Several[int], evicted: Several[int]) -> list[int]:
        """Return what else changes if `evicted[i]` cached blocks were evicted for the i-th block taken in `changes`."""
        size, taken, every = self.allocator.block_size, 0, evicted.count(1) == len(evicted)
        more: list[int] = []
        for change in changes:
            step, field, slots = unpacked(change)
            if field == HELD:
                upto = taken + slots // size
                if lost := upto - taken if every else sum(evicted[taken:upto]):
                    more += (packed(step, CACHED, -lost * size), packed(step, EVICTED, lost))
                taken = upto
        return more

    def _useless(self, page: Several[Sequence], step: int) -> int:
        """Count the slots of blocks just taken that will never be used; only final blocks have such slots."""
        if step not in self._partly:
            return 0
        if page is self._pages[step % self._period]:  # the takers of final blocks are all on this page
            return self._partly[step]
        return sum(-each.final % self._period for each in page if each.due == step)
