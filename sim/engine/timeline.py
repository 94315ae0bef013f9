"""The timeline of a leap: when each of its steps starts.

Durations are known in advance, except that a step may have to wait for pages to be mapped, which delays all that
follow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from allocators.answers import Mappings
from allocators.table import Ints


class Foresight(NamedTuple):
    """The durations of the next steps, in which all decoding sequences advance and nothing else runs."""

    durations: Ints
    """int64[steps]: nanoseconds of each."""
    hides: Callable[[Mappings, int], int | None]
    """Returns how many nanoseconds it takes to map pages, if a step of so many nanoseconds hides them; else None."""
    unhidden: int = 0
    """Nanoseconds more that the first step takes if no step before it hides what the host does for it."""
    waits: Callable[[int, Mappings, int], tuple[int, int, int]] | None = None
    """If a step of so many nanoseconds does not hide all calls for pages: returns the nanoseconds that it hides, those
    for which the next step (number so and so, from 1) waits, and those of that whole step.  None if unknown."""


class Timeline:
    """The steps of a leap that start in time."""

    def __init__(self, foresight: Foresight, until: float, before: int, *, unhidden: bool) -> None:
        """Line up steps without calls for pages.

        Args:
            foresight: the steps.
            until: nanoseconds from now; no step may start after that.
            before: nanoseconds of the step before, without those for which it waited for pages.
            unhidden: whether that step hides nothing of what the host does for the next one.

        """
        self.durations = foresight.durations
        """int64[n]: nanoseconds of each step, waiting for pages included as far as that is known."""
        self.steps = len(self.durations)
        """How many steps start in time."""
        self._foresight = foresight
        self._until = until
        self._before = before
        self._unhidden = foresight.unhidden if unhidden else 0
        if self._unhidden:
            self.durations[0] += self._unhidden
        self._ends = np.add.accumulate(self.durations)
        self._late = 0
        """Nanoseconds for which steps have waited."""
        self._waited, self._wait = -1, 0
        """The last step that has waited, and for how many nanoseconds."""
        if self.steps > 1 and int(self._ends[-2]) >= until:
            self._shorten(1)

    def map(self, step: int, calls: Mappings) -> tuple[int, int] | None:
        """Let a step need calls for pages.

        Returns:
            Nanoseconds of them that the step before hides, and those for which this one waits; None, with nothing
            changed, if it is not known how long it then takes.

        """
        before = self._before
        if step:
            before = int(self.durations[step - 1]) - (self._wait if self._waited == step - 1 else 0)
        hidden = self._foresight.hides(calls, before)
        if hidden is not None:
            return hidden, 0
        if self._foresight.waits is None:
            return None
        hidden, exposed, duration = self._foresight.waits(step + 1, calls, before)
        if not step:
            duration += self._unhidden
        self._late += duration - int(self.durations[step])
        self._waited, self._wait = step, exposed
        self.durations[step] = duration
        self._shorten(step + 1)
        return hidden, exposed

    def total(self, steps: int) -> int:
        """Nanoseconds from the start of the first step to the end of step number `steps`."""
        return int(self._ends[steps - 1]) + self._late

    def _shorten(self, least: int) -> None:
        """Leave out steps that start too late; the first `least` do not."""
        self.steps = min(self.steps, max(least, 1 + int(self._ends.searchsorted(self._until - self._late))))
