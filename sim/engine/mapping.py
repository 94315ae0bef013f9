"""Growing in a cycle, where blocks are groups of pages that may have to be mapped, and empty slots are rounding.

The driver's calls take time, some of which a step waits for, so a leap goes from page to page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.engine.cycle import Cycle
from sim.engine.stretch import HELD, NO_STRETCH, ROUNDING, Stretch, packed

if TYPE_CHECKING:
    from sim.engine.decoding import Sequence
    from sim.engine.timeline import Timeline


class Mapping(Cycle):
    """Grows the sequences of a regular allocator that maps what it hands out, and rounds it up."""

    def _expect(self, sequence: Sequence, more: int) -> None:
        """See `Cycle._expect`.  Rounding is not useless, so there is nothing to expect."""

    def _note(self, first: int, last: int, step: int) -> None:
        """See `Cycle._note`.  The allocator must know how long rows are."""
        decoding = self.decoding
        rows, lengths = (decoding.column(which)[first:last] for which in (decoding.ROW, decoding.LENGTH))
        self.allocator.note(rows, lengths + (step - decoding.clock))

    def stretch(self, timeline: Timeline) -> Stretch:
        """See `Growing.stretch`."""
        if self._fresh:
            return NO_STRETCH
        allocator, period, clock, room = self.allocator, self._period, self.decoding.clock, self.allocator.room
        changes: list[int] = []
        told: list[int] = []
        done, taken = 0, 0
        while done < timeline.steps:
            if self._pages[(clock + 1 + done) % period]:
                page = (clock + 1 + done) % period
                rows = self._rows.get(page) or self._list(page)
                calls = allocator.calls(rows) if len(rows) <= room - taken else None
                if calls is None:
                    break
                if calls.mapped:
                    taking = timeline.map(done, calls)
                    if taking is None:
                        break
                    told += (done, calls.mapped, *taking)
                allocator.append(rows)
                taken += len(rows)
                held = len(rows) * self._portion.held
                changes += (packed(done, HELD, held), packed(done, ROUNDING, held))
            done += 1
        if not done:
            return NO_STRETCH
        self._note(0, len(self.decoding), clock + done)
        held, filled = taken * self._portion.held, len(self.decoding) * (done - 1)  # what is filled is rounding no more
        return Stretch(done, changes, (held, 0, held - filled, 0, 0, 0, 0), calls=told)
