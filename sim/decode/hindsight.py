"""Hindsight: a real run's telemetry, with the times at which steps ended and not those that the clock was told.

The clock is told how long a step takes while the device still runs it, so it is off by the error of
one step until the next (`sim.decode.pace`).  Decisions were made by that clock and stay as they are.
But a time to first token is read off it, and percentiles seek out the largest errors.  So once a run is over,
each time in its tables is moved to where the device says that the step ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sim.engine.telemetry import Sink

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]
    Columns = Mapping[str, object]

LAST = "requests"
"""The table that an engine writes when all steps and events are written."""
MOMENTS = {"events": ("time_s",), "requests": ("scheduled_s", "first_token_s", "finish_s")}
"""Columns that hold moments at which a step ended or began.  (Stalls stay as they were told: they have no dates.)"""


class Hindsight:
    """A sink that keeps steps and events until all is known, then passes them on as they were."""

    def __init__(self, sink: Sink, errors: Callable[[], Ints]) -> None:
        """Pass what a run tells on to `sink`.

        Args:
            sink: takes the tables.
            errors: returns int64[steps], by how many nanoseconds the clock was ahead when each step had ended.

        """
        self._sink = sink
        self._errors = errors
        self._kept: list[tuple[str, Columns]] = []
        self._moments: Moments | None = None

    def write(self, table: str, columns: Columns) -> None:
        """Keep rows, or append them to their table; the last table brings all that was kept with it."""
        if self._moments is None and table != LAST:
            self._kept.append((table, columns))
            return
        if self._moments is None:
            self._moments = Moments([rows for name, rows in self._kept if name == "steps"], self._errors())
            for kept in self._kept:
                self._sink.write(*self._moments.corrected(*kept))
        self._sink.write(*self._moments.corrected(table, columns))


class Moments:
    """When steps were said to end, and when they did."""

    def __init__(self, steps: list[Columns], errors: Ints) -> None:
        """Work out how late or early each row of the table of steps was.

        An idle gap ends when the next request arrives, and then the clock is right; what it was off by before
        does not count from there on, although it is still taken back from what the next step is told to take.

        Args:
            steps: the rows of the table, in parts.
            errors: int64[steps], see `Hindsight`; missing ones are 0.

        """
        number = _column(steps, "step").astype(np.int64)
        idle = np.diff(number, append=-1) == 0  # a gap has the number of the step behind it
        known = np.zeros(int(number.max(initial=-1)) + 2, np.int64)
        known[1 : len(errors) + 1] = errors[: len(known) - 1]
        gap = np.maximum.accumulate(np.where(idle, number, 0))
        self._ends = _nanoseconds(_column(steps, "start_s")) + _nanoseconds(_column(steps, "duration_s"))
        self._early = np.where(idle, 0, known[gap] - known[number + 1])

    def corrected(self, table: str, columns: Columns) -> tuple[str, Columns]:
        """Return the same rows of a table with the times that were."""
        moved = {name: self._moved(_numbers(columns, name)) for name in MOMENTS.get(table, ())}
        if table == "requests":  # the clock may have let a request in that had not come yet
            moved["scheduled_s"] = np.maximum(moved["scheduled_s"], _numbers(columns, "arrival_s"))
        if table == "steps":
            start, duration, gap = (_numbers(columns, name) for name in ("start_s", "duration_s", "gap_s"))
            end = self._moved(start + duration)
            moved = {"start_s": self._moved(start), "gap_s": end - self._moved(start + duration - gap)}
            moved["duration_s"] = np.maximum(end - moved["start_s"], 0)
        return table, {**columns, **moved}

    def _moved(self, seconds: Floats) -> Floats:
        """Return when that was which was said to be at some times; what is no step's end was when it was said to be."""
        told = _nanoseconds(np.nan_to_num(seconds))
        place = np.minimum(self._ends.searchsorted(told), len(self._ends) - 1)
        early = np.where(self._ends[place] == told, self._early[place], 0) if len(self._ends) else 0
        moved: Floats = (told + early) / 1e9
        return np.where(np.isnan(seconds), np.nan, moved)


def _column(parts: list[Columns], name: str) -> Floats:
    return np.concatenate([np.zeros(0), *(_numbers(part, name) for part in parts)])


def _numbers(columns: Columns, name: str) -> Floats:
    return np.asarray(columns[name], np.float64)


def _nanoseconds(seconds: Floats) -> Ints:
    return np.rint(seconds * 1e9).astype(np.int64)
