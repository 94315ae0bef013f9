"""Growing: asking the allocator for the memory of the coming step, or of many steps at once.

Most allocators need to be asked only when a sequence runs out of slots (`Allocator.notice`).  A
`Calendar` knows which sequences do so in which step, and the others cost nothing.  (`sim.engine.cycle`
is a faster calendar for regular allocators.)  Other allocators must be told of every token
(`sim.engine.roll`).  Sequences always grow in running order, so the allocator hands out the same blocks
in each case.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence as Several
from typing import TYPE_CHECKING

import numpy as np

from allocators.answers import Growth
from sim.engine.decoding import enter
from sim.engine.stretch import (
    HELD,
    INTERNAL,
    NO_CHANGE,
    NO_STRETCH,
    Stretch,
    noted,
    packed,
    unpacked,
)

if TYPE_CHECKING:
    from allocators.base import Allocator
    from allocators.table import Ints
    from sim.engine.decoding import Decoding, Sequence
    from sim.engine.stretch import Change
    from sim.engine.timeline import Timeline

NOTHING = Growth(0)


class Growing(ABC):
    """Finds memory for the decoding sequences of one allocator."""

    def __init__(self, allocator: Allocator, decoding: Decoding) -> None:
        """Grow the sequences in `decoding`."""
        self.allocator = allocator
        self.decoding = decoding
        self.internal = 0
        """Slots that decoding sequences hold and will never use."""

    def begin(self, sequence: Sequence) -> None:
        """Add a sequence that has begun to decode."""
        self.internal += max(0, sequence.slots - sequence.final)

    def leave(self, sequence: Sequence) -> None:
        """Remove a sequence, before its row is changed in any way."""
        self.internal -= max(0, sequence.slots - sequence.final)

    @abstractmethod
    def stay(self, sequences: Several[Sequence]) -> None:
        """Record that some sequences do not take part in the coming step."""

    @abstractmethod
    def tell(self, sequences: Several[Sequence]) -> None:
        """Tell the allocator the lengths of some sequences, before it copies or moves them."""

    @abstractmethod
    def grow(self, first: int, last: int) -> tuple[int, Growth]:
        """Find memory for the next token of the sequences `[first, last)`.

        Returns:
            The place of the first sequence that was refused, or `last`; and the allocator's result.

        """

    @abstractmethod
    def stretch(self, timeline: Timeline) -> Stretch:
        """Find memory for all sequences for up to `timeline.steps` steps, which is at least 1, until one is refused.

        Args:
            timeline: is told of steps that need calls for pages.

        """


class Noting(Growing):
    """Asks only for sequences that run out of slots; the allocator is told other lengths when it needs them."""

    def __init__(self, allocator: Allocator, decoding: Decoding) -> None:
        """Grow the sequences in `decoding`."""
        super().__init__(allocator, decoding)
        self._asked = (0, 0)
        """The last step for which slots were found, and the `order` of the last sequence that got one."""

    def tell(self, sequences: Several[Sequence]) -> None:
        """See `Growing.tell`."""
        self.allocator.grow(rows_of(sequences), self._lengths(sequences))

    def _lengths(self, sequences: Several[Sequence]) -> Ints:
        """Return int64[n]: the tokens for which sequences have been given slots."""
        clock = self.decoding.clock
        step, last = self._asked
        lengths = [clock + each.start + (step > clock and each.order <= last) for each in sequences]
        return np.array(lengths, np.int64)

    def _ask(self, page: Several[Sequence], step: int) -> Growth:
        """Ask the allocator for the slots that sequences need in the step that ends at clock `step`."""
        lengths = [step + each.start for each in page]
        return self.allocator.grow(rows_of(page), np.array(lengths, np.int64))


class Calendar(Noting):
    """Knows in which step each sequence must next be passed to the allocator.

    A page lists, in running order, the sequences to pass for the step that ends when the clock shows its number.
    After a sequence has grown, its next page follows from its slots.
    """

    def __init__(self, allocator: Allocator, decoding: Decoding, notice: int) -> None:
        """Grow each sequence in `decoding` when only `notice` of its slots are left."""
        super().__init__(allocator, decoding)
        self._margin = 1 - notice
        self._pages: dict[int, list[Sequence]] = {}
        self._fresh = 0
        """Number of the page that may list sequences whose last block is shared or has a copy on the host."""

    def begin(self, sequence: Sequence) -> None:
        """See `Growing.begin`."""
        super().begin(sequence)
        owner, soon = sequence.owner, self.decoding.clock + 1
        due = max(soon, sequence.slots + self._margin - sequence.start)
        if owner.samples > 1 or owner.moved:
            due = self._fresh = soon
        self._enter(sequence, due)

    def leave(self, sequence: Sequence) -> None:
        """See `Growing.leave`."""
        super().leave(sequence)
        self._leave(sequence)

    def stay(self, sequences: Several[Sequence]) -> None:
        """See `Growing.stay`."""
        self._fresh = self.decoding.clock + 2
        for sequence in sequences:
            self._leave(sequence)
            self._enter(sequence, sequence.due + 1)

    def grow(self, first: int, last: int) -> tuple[int, Growth]:
        """See `Growing.grow`."""
        decoding = self.decoding
        members, step = decoding.members, decoding.clock + 1
        page: Several[Sequence] = self._pages.get(step, ())
        if page and (first or last < len(members)):
            page = [each for each in page if members[first].order <= each.order <= members[last - 1].order]
        growth = self._ask(page, step) if page else NOTHING
        place = last
        if growth.refusal is not None:
            place = members.index(page[growth.granted], first)
            page = page[: growth.granted]
        if place:
            self._asked = step, members[place - 1].order
        if page:
            self._grown(page, step)
        return place, growth

    def stretch(self, timeline: Timeline) -> Stretch:
        """See `Growing.stretch`.

        Every sequence is passed once in `block_size` steps.  If nothing is cached that could be evicted, growing
        changes only what is held, so the allocator is asked for that many steps at once.
        """
        allocator, clock, steps = self.allocator, self.decoding.clock, timeline.steps
        if self._fresh == clock + 1:
            return NO_STRETCH
        changes: list[int] = []
        done, room, usage = 0, allocator.room, allocator.usage()
        simple = self._margin and not usage.cached and not usage.rounding and allocator.token_slots == 1
        at_once = allocator.block_size if simple else 1
        while done < steps and room >= 0:
            due: list[tuple[int, list[Sequence]]] = []
            for step in range(done, min(done + at_once, steps)):
                page = self._pages.get(clock + step + 1)
                if page is not None:
                    room -= len(page)
                    if room < 0:
                        break
                    due.append((step, page))
                done += 1
            if due and at_once == 1:
                evictions, before = allocator.evictions(), usage
                self._ask(due[0][1], clock + done)
                usage, room = allocator.usage(), allocator.room
                internal = self._grown(due[0][1], clock + done)[1]
                held, cached, rounding = (now - then for now, then in zip(usage[:3], before[:3], strict=True))
                lost = allocator.evictions() - evictions
                changes += noted(done - 1, (held, cached, rounding, internal, lost, 0, 0))
            elif due:
                sequences = [each for _, page in due for each in page]
                lengths = [clock + step + 1 + each.start for step, page in due for each in page]
                allocator.grow(rows_of(sequences), np.array(lengths, np.int64))
                for step, page in due:
                    held, internal = self._grown(page, clock + step + 1)
                    changes.append(packed(step, HELD, held))
                    if internal:
                        changes.append(packed(step, INTERNAL, internal))
        return Stretch(done, changes, _total(changes))

    def _grown(self, page: Several[Sequence], step: int) -> tuple[int, int]:
        """Read what sequences hold after a step; return how many slots they got, and how many of these are useless."""
        slots_of, pages, margin = self.allocator.table.views.slots, self._pages, self._margin
        got = useless = 0
        if len(page) == len(pages[step]):
            del pages[step]
        else:
            pages[step] = [each for each in pages[step] if each not in page]
        for sequence in page:
            before, slots = sequence.slots, slots_of[sequence.row]
            if slots != before:
                got += slots - before
                if slots > sequence.final or before > sequence.final:
                    useless += max(0, slots - sequence.final) - max(0, before - sequence.final)
                sequence.slots = slots
            due = slots + margin - sequence.start
            sequence.due = due = due if due > step else step + 1
            target = pages.get(due)
            if target is None:
                pages[due] = [sequence]
            elif target[-1].order < sequence.order:
                target.append(sequence)
            else:
                enter(target, sequence)
        self.internal += useless
        return got, useless * self.allocator.token_slots

    def _enter(self, sequence: Sequence, due: int) -> None:
        sequence.due = due
        enter(self._pages.setdefault(due, []), sequence)

    def _leave(self, sequence: Sequence) -> None:
        page = self._pages[sequence.due]
        page.remove(sequence)
        if not page:
            del self._pages[sequence.due]


def _total(changes: Several[int]) -> Change:
    """Add up changes that are `packed`."""
    total = [0] * len(NO_CHANGE)
    for change in changes:
        _, field, more = unpacked(change)
        total[field] += more
    held, cached, rounding, internal, evicted, live, saved = total
    return held, cached, rounding, internal, evicted, live, saved


def rows_of(sequences: Several[Sequence]) -> Ints:
    """Return int64[n]: the rows of sequences."""
    return np.array([each.row for each in sequences], np.int64)
