"""Growing in a cycle, for sequences that also give blocks back.

A sliding window is as regular as growing: it passes a block once in `block_size` steps, those of another remainder.  So
the allocator is told of a sequence in steps of up to two remainders, and still nothing is done in between.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from sim.engine.cycle import Cycle
from sim.engine.stretch import CACHED, HELD, INTERNAL, LIVE, NO_STRETCH, ROUNDING, SAVED, Stretch, packed

if TYPE_CHECKING:
    from collections.abc import Sequence as Several

    from allocators.answers import Shift
    from allocators.base import Allocator
    from sim.engine.decoding import Decoding, Sequence
    from sim.engine.stretch import Change
    from sim.engine.timeline import Timeline


class Shifting(Cycle):
    """Grows the sequences of a regular allocator that also gives blocks back."""

    def __init__(self, allocator: Allocator, decoding: Decoding) -> None:
        """Grow the sequences in `decoding`."""
        super().__init__(allocator, decoding)
        self._after = sorted({0, (self._window or 0) % self._period})
        self._starts: dict[int, list[int]] = {}
        """The starts of the sequences whose rows are in `_rows`."""

    def _give(self, page: Several[Sequence], step: int) -> int:
        """See `Cycle._give`."""
        return self.allocator.shift([each.row for each in page], [step + each.start for each in page]).granted

    def _list(self, remainder: int) -> array[int]:
        """See `Cycle._list`."""
        self._starts[remainder] = [each.start for each in self._changing(remainder)]
        return super()._list(remainder)

    def stretch(self, timeline: Timeline) -> Stretch:
        """See `Growing.stretch`."""
        if self._fresh or self._sharing:
            return NO_STRETCH
        period, clock, room, portion = self._period, self.decoding.clock, self.allocator.room, self._portion
        entangled = self.allocator.entangled
        rows: list[int] = []
        lengths: list[int] = []
        when: list[int] = []  # the step of each of `rows`
        changes: list[int] = []
        steps, useless = timeline.steps, 0
        done = steps
        for step in range(steps):
            end = clock + 1 + step
            page = end % period
            count = len(self._pages[page])
            if count > room or (entangled and self._filling(end)):  # it may be enough, if others leave theirs in time
                done = step
                break
            room -= count
            named = self._rows.get(page)
            if named is None:
                named = self._list(page)
            rows += named
            lengths += [end + start for start in self._starts[page]]
            when += [step] * len(named)
            if count:
                changes.append(packed(step, HELD, count * portion.held))
                if portion.rounding:
                    changes.append(packed(step, ROUNDING, count * portion.rounding))
                if end in self._partly:  # the takers of final blocks are all on this page
                    useless += self._partly[end]
                    changes.append(packed(step, INTERNAL, self._partly[end] * self._each))
        taken = self.allocator.room - room
        shift = self.allocator.shift(rows, lengths)
        if shift.evicted:
            changes += self._evicting(changes, shift.evicted)
        changes += self._leaving(shift, when)
        if done:
            self._note(0, len(self.decoding), clock + done)
        self.internal += useless
        return Stretch(done, changes, self._total(taken, useless, shift))

    def _leaving(self, shift: Shift, when: list[int]) -> list[int]:
        """Return the changes caused by what is given back, by rows whose steps are in `when`."""
        left, changes = shift.left, list[int]()
        for place in range(0, len(left), 4):
            step, held, live, saved = when[left[place]], left[place + 1], left[place + 2], left[place + 3]
            if saved:
                changes.append(packed(step, SAVED, -saved))
                continue
            changes += (packed(step, HELD, -held), packed(step, LIVE, -live))
            if shift.keeps:
                changes.append(packed(step, CACHED, held))
            if held > live:
                changes.append(packed(step, ROUNDING, live - held))
        return changes

    def _total(self, taken: int, useless: int, shift: Shift) -> Change:
        """Return the sum of the changes of all steps, in which `taken` portions are taken."""
        held, live, saved, lost = (
            sum(shift.left[1::4]),
            sum(shift.left[2::4]),
            sum(shift.left[3::4]),
            sum(shift.evicted),
        )
        cached = (held if shift.keeps else 0) - lost * self.allocator.block_size
        rounding = taken * self._portion.rounding - (held - live)
        return taken * self._portion.held - held, cached, rounding, useless * self._each, lost, -live, -saved
