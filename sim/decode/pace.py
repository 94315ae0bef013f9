"""Step durations, reported at once even while the device is still running the step.

A real engine that knows its next step prepares it while the device runs the present one.  Here the
clock must know how long a step takes before the next one can be planned, so if every time had to be
measured first, the two could never overlap.  But a padded step takes about as long as the last one
of its shape, plus the host's time if the device was idle when it was launched, which is also about
what it was last time.  So the host launches a step ahead, reports the time of the last step of its
kind, and corrects the error in the time that it reports for the next step.  The clock is never off
by more than that one error, and sums of times are exact; afterwards each error is known (`sim.decode.hindsight`).

The time measured is that between the ends of two steps on the device's own clock (CUDA events): it
contains all host work that the device had to wait for (planning, the serving loop, launching), and
none that was done while the device ran.  The first step of a shape is reported to take what its graph
took when it was tried out.  A step that fits no padded shape is waited for.
"""

from __future__ import annotations

import time
from array import array
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping


class Kind(NamedTuple):
    """A kind of step: all of a kind are taken to last equally long."""

    shape: Hashable
    """What they are padded to."""
    idle: bool
    """Whether nothing was on the device when the step was launched."""


class Pace:
    """Reports the duration of each step in nanoseconds."""

    def __init__(self, device: torch.device, *, ahead: bool, periods: Mapping[Any, int] = MappingProxyType({})) -> None:
        """Report durations of steps on `device`.

        Args:
            device: where they run.
            ahead: whether steps may be launched before the last one has ended; only on a GPU.
            periods: nanoseconds that the first step of each shape is told to take; one that is not here is waited for.

        """
        self._device = device
        self._ahead = ahead and device.type == "cuda"
        self._begin = 0
        self._end: Any = None
        """The end of the last step whose time has been measured."""
        self._flying: tuple[Kind, Any] | None = None
        """Kind and end of the step that is on the device, if its time is not measured yet."""
        self._told = 0
        """Nanoseconds reported beyond `_end`."""
        self.waited = 0
        """Nanoseconds, in total, that the host has stood still waiting for steps to end."""
        self.errors = array("q")
        """Nanoseconds, after each step that has ended, that the clock was ahead of the device."""
        self._periods = {Kind(shape, idle=False): period for shape, period in periods.items()}
        """Nanoseconds that the last step of each kind took."""

    def start(self) -> None:
        """Begin a step."""
        self._begin = time.perf_counter_ns()

    def launched(self, shape: Hashable) -> int:
        """Report the duration of a step that is still running, padded to `shape`."""
        if not self._ahead or self._end is None:
            return self.finished()
        end = self._mark()
        kind = Kind(shape, idle=self._flying is None)
        self.settle()
        self._flying = (kind, end)
        alike = self._periods.get(kind)
        if alike is None and kind.idle:  # the other way round would report the host's time of an earlier step
            alike = self._periods.get(kind._replace(idle=False))
        if alike is None:
            self.settle()
            return self._tell(0)
        return self._tell(alike)

    def finished(self) -> int:
        """Wait for a step and report its duration.

        That counts from its beginning, or if the host had run ahead, from the end of the step before.
        """
        if not self._ahead:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            self.errors.append(0)
            return max(1, time.perf_counter_ns() - self._begin)
        end = self._mark()
        flew = self._flying is not None
        self.settle()
        self._wait(end)
        duration = self._between(end) - self._told if flew else time.perf_counter_ns() - self._begin - self._told
        self._end, self._told = end, 0
        self.errors.append(0)
        return max(1, duration)

    def rest(self) -> None:
        """Wait for what is under way and start afresh, after the host has done work that is not part of any step."""
        self.settle()
        self._end, self._told = None, 0
        self._periods = {kind: took for kind, took in self._periods.items() if not kind.idle}

    def lost(self) -> None:
        """Forget what is under way: it failed."""
        self._end = self._flying = None
        self._told = 0

    def _mark(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # PyTorch's own is not annotated
        event.record()
        return event

    def settle(self) -> None:
        """Wait for the step that is on the device, if one is, and measure it."""
        if self._flying is not None:
            kind, end = self._flying
            self._wait(end)
            self._periods[kind] = took = self._between(end)
            self._told -= took
            self.errors.append(self._told)
            self._end, self._flying = end, None

    def _wait(self, end: Any) -> None:
        began = time.perf_counter_ns()
        end.synchronize()
        self.waited += time.perf_counter_ns() - began

    def _between(self, end: Any) -> int:
        return round(float(self._end.elapsed_time(end)) * 1e6)

    def _tell(self, until: int) -> int:
        """Move the clock to `until` after the last measured end."""
        duration = max(1, until - self._told)
        self._told += duration
        return duration
