"""How fast a host is while it does something else: every so often it does a fixed piece of work and times it.

What is launched kernel by kernel takes as long as the host needs, and one core of a shared machine can be
half as fast for seconds, without being held up at all, because others use the caches or the other thread of
the same core.  A timer interrupts the main thread between two steps of the interpreter, so the work is done on
the very core, in the very moment.  It takes less than a thousandth of the time.
"""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERY = 0.05
"""Seconds from one beat to the next."""
WORK = 400
"""Rounds of work in a beat, some 40 microseconds."""


class Pulse:
    """Beats so far."""

    def __init__(self) -> None:
        """Begin without any."""
        self.beats: list[int] = []
        """Nanoseconds that each took."""

    @property
    def mean_s(self) -> float:
        """Seconds that a beat has taken on average; 0 without any."""
        return sum(self.beats) / len(self.beats) / 1e9 if self.beats else 0.0

    def beat(self, *_: Any) -> None:
        """Do the work, of the kind that launching a kernel is for Python: look up, call, make small objects."""
        began = time.perf_counter_ns()
        found: dict[int, tuple[int, str]] = {}
        for number in range(WORK):
            found[number & 15] = (number, str(number))
        self.beats.append(time.perf_counter_ns() - began)


@contextmanager
def pulse() -> Iterator[Pulse]:
    """Beat while the block lasts; in the main thread of a process that has such timers, otherwise never."""
    beating = Pulse()
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield beating
        return
    handler = signal.signal(signal.SIGALRM, beating.beat)
    timer = signal.setitimer(signal.ITIMER_REAL, EVERY, EVERY)
    try:
        yield beating
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)
