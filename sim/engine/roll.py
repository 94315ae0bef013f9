"""Growing by roll call: every sequence is passed to the allocator in every step, with array operations.

For allocators that must be told of every token, such as those whose rows have exactly as many slots as tokens.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import TYPE_CHECKING

import numpy as np

from sim.engine.growing import Growing
from sim.engine.stretch import CACHED, EVICTED, HELD, INTERNAL, NO_CHANGE, NO_STRETCH, ROUNDING, Stretch

if TYPE_CHECKING:
    from allocators.answers import Growth
    from allocators.base import Allocator
    from allocators.table import Ints
    from sim.engine.decoding import Decoding, Sequence
    from sim.engine.timeline import Timeline


class Roll(Growing):
    """Passes every sequence to the allocator in every step, with array operations."""

    def __init__(self, allocator: Allocator, decoding: Decoding) -> None:
        """Grow the sequences in `decoding`."""
        super().__init__(allocator, decoding)
        self._known: Ints = np.zeros((2, len(allocator.table.slots)), np.int64)
        """For each row: the slots that it held when last looked at, and those that it will use in the end."""

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
        """See `Growing.tell`.  The allocator already knows them."""

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

    def stretch(self, timeline: Timeline) -> Stretch:
        """See `Growing.stretch`."""
        decoding, usage = self.decoding, self.allocator.usage()
        rows = decoding.column(decoding.ROW)
        done = self.allocator.advance(rows, decoding.column(decoding.LENGTH), timeline.steps)
        if not done.steps:
            return NO_STRETCH
        changing = {HELD: _more(done.held, usage.held)}
        if usage.cached or np.count_nonzero(done.cached):
            changing[CACHED] = _more(done.cached, usage.cached)
        if done.rounding is not None:
            changing[ROUNDING] = _more(done.rounding, usage.rounding)
        if done.evicted is not None:
            changing[EVICTED] = done.evicted
        if len(done.who):
            useless = np.zeros(done.steps, np.int64)
            np.add.at(useless, done.when, self._hold(rows[done.who], done.slots))
            changing[INTERNAL] = useless * self.allocator.token_slots
        changes: list[int] = []
        total = [0] * len(NO_CHANGE)
        for field, more in changing.items():
            when = more.nonzero()[0]
            amounts = more[when]
            listed = (amounts << 15 | when << 3 | field).tolist()  # each as if it were `packed`
            changes += listed
            if field == HELD and self.allocator.rounds_up:  # all that is held is rounding, less what is filled
                changes += [change + (ROUNDING - HELD) for change in listed]
            total[field] = int(amounts.sum())
        held, cached, rounding, internal, evicted, live, saved = total
        if self.allocator.rounds_up:
            rounding = held - len(rows) * (done.steps - 1)
        return Stretch(
            done.steps,
            changes,
            (held, cached, rounding, internal, evicted, live, saved),
            done.copies,
            done.copied,
        )

    def _hold(self, rows: Ints, slots: Ints) -> Ints:
        """Record what rows hold; return by how much each changes the number of useless slots.

        If a row is listed several times, the last value counts; as a row grows only when it needs more slots, none of
        its earlier ones was useless.
        """
        before, final = self._known[:, rows]
        useless: Ints = np.maximum(slots - final, 0) - np.maximum(before - final, 0)
        self._known[0, rows] = slots
        self.internal += int(useless.sum())
        return useless


def _more(values: Ints, before: int) -> Ints:
    """Return the difference of each value from the one before it; `before` precedes the first."""
    more = values.copy()
    more[1:] -= values[:-1]
    more[0] -= before
    return more
