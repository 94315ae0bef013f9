"""Growing: asking the allocator for the memory of the coming step, or of many steps at once.

Most allocators need to be asked only when a sequence runs out of the slots it holds
(`Allocator.notice`): a `Calendar` knows which sequences do so in which step, and the others
cost nothing.  The rest must hear of every token, so a `Roll` names every sequence in every step.
(`sim.engine.cycle` is a faster calendar for regular allocators.)  All grow sequences in running
order, so the allocator hands out the same blocks either way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence as Several
from typing import TYPE_CHECKING

import numpy as np

from allocators.answers import Growth
from sim.engine.decoding import enter
from sim.engine.stretch import (
    CACHED,
    EVICTED,
    HELD,
    INTERNAL,
    NO_CHANGE,
    NO_STRETCH,
    ROUNDING,
    Stretch,
    noted,
    packed,
    unpacked,
)

if TYPE_CHECKING:
    from allocators.base import Allocator
    from allocators.table import Ints
    from sim.engine.decoding import Decoding, Sequence
    from sim.engine.stretch import Change, Hides

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
        """Take in a sequence that has begun to decode."""
        self.internal += max(0, sequence.slots - sequence.final)

    def leave(self, sequence: Sequence) -> None:
        """Let a sequence go, before anything is done to its row."""
        self.internal -= max(0, sequence.slots - sequence.final)

    @abstractmethod
    def stay(self, sequences: Several[Sequence]) -> None:
        """Note that some sequences sit out the coming step."""

    @abstractmethod
    def tell(self, sequences: Several[Sequence]) -> None:
        """Bring the allocator's lengths of some sequences up to date, before it copies or moves them."""

    @abstractmethod
    def grow(self, first: int, last: int) -> tuple[int, Growth]:
        """Find the next slot of the sequences `[first, last)`; returns where it stopped, and the allocator's answer."""

    @abstractmethod
    def stretch(self, steps: int, hides: Hides) -> Stretch:
        """Find memory for all sequences for up to `steps` steps, none of which is refused or takes extra time."""


class Noting(Growing):
    """Asks only for sequences that run out of slots; the allocator learns of other tokens when it needs to."""

    def __init__(self, allocator: Allocator, decoding: Decoding) -> None:
        """Grow the sequences in `decoding`."""
        super().__init__(allocator, decoding)
        self._asked = (0, 0)
        """The last step for which slots were found, and the last sequence that got them."""

    def tell(self, sequences: Several[Sequence]) -> None:
        """See `Growing.tell`."""
        clock = self.decoding.clock
        step, last = self._asked
        lengths = [clock + each.start + (step > clock and each.order <= last) for each in sequences]
        self.allocator.grow(_rows(sequences), np.array(lengths, np.int64))

    def _ask(self, page: Several[Sequence], step: int) -> Growth:
        """Ask for the slots that sequences need for the step that ends at clock `step`."""
        lengths = [step + each.start for each in page]
        return self.allocator.grow(_rows(page), np.array(lengths, np.int64))


class Calendar(Noting):
    """Asks for those sequences that run out of slots.

    A page lists, in running order, the sequences that need more slots for the step that ends when
    the clock shows its number.  When a sequence has grown, its next page is known from its slots.
    """

    def __init__(self, allocator: Allocator, decoding: Decoding, notice: int) -> None:
        """Grow the sequences in `decoding` when their slots, but for `notice` of them, are used up."""
        super().__init__(allocator, decoding)
        self._margin = 1 - notice
        self._pages: dict[int, list[Sequence]] = {}
        self._fresh = 0
        """Number of the page that may hold sequences whose last block is shared, or has a twin on the host."""

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

    def stretch(self, steps: int, hides: Hides) -> Stretch:
        """See `Growing.stretch`.

        Every sequence comes up once in `block_size` steps.  As long as nothing is cached that could be evicted,
        growing changes what is held and nothing else, and so many steps are asked for at once.
        """
        allocator, clock = self.allocator, self.decoding.clock
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
                allocator.grow(_rows(sequences), np.array(lengths, np.int64))
                for step, page in due:
                    held, internal = self._grown(page, clock + step + 1)
                    changes.append(packed(step, HELD, held))
                    if internal:
                        changes.append(packed(step, INTERNAL, internal))
        return Stretch(done, changes, _total(changes))

    def _grown(self, page: Several[Sequence], step: int) -> tuple[int, int]:
        """Read what sequences hold after a step; returns how many more slots, and how many of those are useless."""
        slots_of, pages, margin = self.allocator.table.slots.data, self._pages, self._margin
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


class Roll(Growing):
    """Asks for every sequence in every step, with array operations."""

    def __init__(self, allocator: Allocator, decoding: Decoding) -> None:
        """Grow the sequences in `decoding`."""
        super().__init__(allocator, decoding)
        self._known: Ints = np.zeros((2, len(allocator.table.slots)), np.int64)
        """For each row, the slots it held when last seen, and those it will use in the end."""

    def begin(self, sequence: Sequence) -> None:
        """See `Growing.begin`."""
        super().begin(sequence)
        more = len(self.allocator.table.slots) - self._known.shape[1]
        if more:
            self._known = np.concatenate([self._known, np.zeros((2, more), np.int64)], axis=1)
        self._known[:, sequence.row] = sequence.slots, sequence.final

    def leave(self, sequence: Sequence) -> None:
        """See `Growing.leave`."""
        sequence.slots = self.allocator.table.slots.item(sequence.row)
        super().leave(sequence)

    def stay(self, sequences: Several[Sequence]) -> None:
        """See `Growing.stay`.  Nothing depends on the step."""

    def tell(self, sequences: Several[Sequence]) -> None:
        """See `Growing.tell`.  The allocator knows them already."""

    def grow(self, first: int, last: int) -> tuple[int, Growth]:
        """See `Growing.grow`."""
        decoding = self.decoding
        rows = decoding.column(decoding.ROW)[first:last]
        growth = self.allocator.grow(rows, decoding.column(decoding.LENGTH)[first:last] + 1)
        if not self.allocator.rounds_up:  # else no slot is useless
            rows = rows[: growth.granted]
            slots = self.allocator.table.slots[rows]
            changed = (slots != self._known[0, rows]).nonzero()[0]
            if len(changed):
                self._hold(rows[changed], slots[changed])
        return first + growth.granted, growth

    def stretch(self, steps: int, hides: Hides) -> Stretch:
        """See `Growing.stretch`."""
        decoding, usage = self.decoding, self.allocator.usage()
        rows = decoding.column(decoding.ROW)
        done = self.allocator.advance(rows, decoding.column(decoding.LENGTH), steps)
        if not done.steps:
            return NO_STRETCH
        changing = {HELD: _more(done.held, usage.held)}
        if usage.cached or done.cached.any():
            changing[CACHED] = _more(done.cached, usage.cached)
        if done.rounding is not None:
            changing[ROUNDING] = _more(done.rounding, usage.rounding)
        if done.evicted is not None:
            changing[EVICTED] = done.evicted
        if self.allocator.rounds_up:  # no slot is useless, and all that is held is rounding, less what is filled
            changing[ROUNDING] = changing[HELD]
        elif len(done.who):
            useless = np.zeros(done.steps, np.int64)
            np.add.at(useless, done.when, self._hold(rows[done.who], done.slots))
            changing[INTERNAL] = useless * self.allocator.token_slots
        changes: list[int] = []
        total = [0] * len(NO_CHANGE)
        for field, more in changing.items():
            when = more.nonzero()[0]
            amounts = more[when]
            changes += (amounts << 15 | when << 3 | field).tolist()  # each as if it were `packed`
            total[field] = int(amounts.sum())
        held, cached, rounding, internal, evicted, live, saved = total
        if self.allocator.rounds_up:
            rounding -= len(rows) * (done.steps - 1)
        return Stretch(
            done.steps,
            changes,
            (held, cached, rounding, internal, evicted, live, saved),
            done.copies,
            done.copied,
        )

    def _hold(self, rows: Ints, slots: Ints) -> Ints:
        """Note what rows hold (the last value, if a row grew several times); returns how many more slots are useless.

        A row grows only when it needs more, so if it is named twice, none of its earlier slots was useless.
        """
        before, final = self._known[:, rows]
        useless: Ints = np.maximum(slots - final, 0) - np.maximum(before - final, 0)
        self._known[0, rows] = slots
        self.internal += int(useless.sum())
        return useless


def _more(values: Ints, before: int) -> Ints:
    """Return by how much each value is more than the one before it."""
    more = values.copy()
    more[1:] -= values[:-1]
    more[0] -= before
    return more


def _total(changes: Several[int]) -> Change:
    """Add up changes that are `packed`."""
    total = [0] * len(NO_CHANGE)
    _, fields, amounts = unpacked(np.array(changes, np.int64))
    for field, more in zip(fields.tolist(), amounts.tolist(), strict=True):
        total[field] += more
    held, cached, rounding, internal, evicted, live, saved = total
    return held, cached, rounding, internal, evicted, live, saved


def _rows(sequences: Several[Sequence]) -> Ints:
    return np.array([each.row for each in sequences], np.int64)
