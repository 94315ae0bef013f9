"""Arrivals: when each request arrives.

Most times are known in advance; a follow-up request arrives some time after the request that it
follows has ended.  The engine checks for arrivals between steps, and waits for them when it is idle.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from workloads.requests import Requests

NONE_TO_COME = float("inf")


class Arrivals:
    """The requests that have not arrived, in order of time; at the same instant, in the order of the workload."""

    def __init__(self, requests: Requests) -> None:
        """Start with all of `requests`."""
        count = len(requests)
        self.pending = count
        """Requests that have not arrived."""
        alone = np.flatnonzero(requests.after < 0) if len(requests.after) else np.arange(count)
        self._index = alone.data
        self._time = np.rint(requests.arrival_s[alone] * 1e9).astype(np.int64).data
        self._next = 0
        self._released: list[tuple[int, int]] = []
        """Heap of (time, request) of follow-up requests whose time is known."""
        self._delay_s = requests.delay_s
        self._followers: dict[int, list[int]] = {}
        for index in np.flatnonzero(requests.after >= 0).tolist():
            self._followers.setdefault(int(requests.after[index]), []).append(index)
        self.soonest: int | float = self._soonest()
        """When the next request arrives, in nanoseconds, as far as known; infinity if no time is known."""

    def take(self) -> tuple[int, int]:
        """Remove and return the next request: (time, request)."""
        self.pending -= 1
        found = self._first()
        self.soonest = self._soonest()
        return found

    def release(self, index: int, now: int) -> None:
        """Set the arrival of the requests that follow request `index`, which has ended at `now`."""
        if index in self._followers:
            for follower in self._followers[index]:
                heappush(self._released, (now + round(float(self._delay_s[follower]) * 1e9), follower))
            self.soonest = self._soonest()

    def _first(self) -> tuple[int, int]:
        if self._next < len(self._time):
            found = self._time[self._next], self._index[self._next]
            if not self._released or found < self._released[0]:
                self._next += 1
                return found
        return heappop(self._released)

    def _soonest(self) -> int | float:
        known = self._time[self._next] if self._next < len(self._time) else NONE_TO_COME
        return min(known, self._released[0][0]) if self._released else known
