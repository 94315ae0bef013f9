"""The timeline of a leap: when each of its steps starts.

Durations are known in advance, except that a step may have to wait for pages to be mapped, which delays all that
follow.
"""

from __future__ import annotations

from bisect import bisect_left
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
    waits: Callable[[int, int, Mappings, int], tuple[int, int, int]] | None = None
    """If the step before step number so and so (from 1, which starts so many nanoseconds from now) does not hide all of
    its calls for pages, as it takes so many nanoseconds: returns the nanoseconds that it hides, those for which the
    step waits, and those of the whole step.  None if unknown."""
    warm: Callable[[int, int], int | None] | None = None
    """Returns how many nanoseconds step number so and so takes if it starts so many nanoseconds from now and the device
    is not yet at rest; None if it is, so that `durations` are right from there on.  None if it is now."""


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
        self._rested = foresight.durations
        self.durations = foresight.durations if foresight.warm is None else foresight.durations.copy()
        """int64[n]: nanoseconds of each step, waiting for pages included as far as that is known."""
        self.steps = len(self.durations)
        """How many steps start in time."""
        self._foresight = foresight
        self._until = until
        self._before = before
        self._unhidden = foresight.unhidden if unhidden else 0
        if self._unhidden:
            self.durations[0] += self._unhidden
        self._late = 0
        """Nanoseconds for which steps have waited since `_ends` were counted."""
        self._ends = self._warmed(0, 0)
        self._waited, self._wait = -1, 0
        """The last step that has waited, and for how many nanoseconds."""
        if self.steps > 1 and self._ends[-2] >= until:
            self._shorten(1)

    def map(self, step: int, calls: Mappings) -> tuple[int, int] | None:
        """Let a step need calls for pages.

        Returns:
            Nanoseconds of them that the step before hides, and those for which this one waits; None, with nothing
            changed, if it is not known how long it then takes.

        """
        before, start = self._before, 0
        if step:
            start = self.total(step)
            before = int(self.durations[step - 1]) - (self._wait if self._waited == step - 1 else 0)
        hidden = self._foresight.hides(calls, before)
        if hidden is not None:
            return hidden, 0
        if self._foresight.waits is None:
            return None
        hidden, exposed, duration = self._foresight.waits(step + 1, start, calls, before)
        if not step:
            duration += self._unhidden
        self._late += duration - int(self.durations[step])
        self._waited, self._wait = step, exposed
        self.durations[step] = duration
        if self._foresight.warm is not None:
            self._late, self._ends = 0, self._warmed(step + 1, start + duration)
        self._shorten(step + 1)
        return hidden, exposed

    def total(self, steps: int) -> int:
        """Nanoseconds from the start of the first step to the end of step number `steps`."""
        return self._ends[steps - 1] + self._late

    def _warmed(self, first: int, start: int) -> memoryview[int]:
        """Let the steps from `first` on start `start` nanoseconds from now; returns int64[n], when each step ends."""
        warm = self._foresight.warm
        if warm is not None:
            self.durations[first:] = self._rested[first:]
            for step in range(first, self.steps):
                took = warm(step + 1, start) if start <= self._until else None
                if took is None:
                    break
                self.durations[step] = took if step else took + self._unhidden
                start += int(self.durations[step])
        ends: memoryview[int] = np.add.accumulate(self.durations).data
        return ends

    def _shorten(self, least: int) -> None:
        """Leave out steps that start too late; the first `least` do not."""
        self.steps = min(self.steps, max(least, 1 + bisect_left(self._ends, self._until - self._late)))
