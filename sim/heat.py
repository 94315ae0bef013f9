"""Heat: how long a device has just drawn more power than it may for good.

A GPU may exceed its power limit for some hundredths of a second; then its clock falls until power is within the limit.
(On an H200: 700 W, 0.04 s, from 1.98 to 1.65 GHz.)  Prefills of large models exceed it, decodes do not, and a pause
restores about as much as it lasts: after 21 ms of prefills and 5 ms of decodes by turns, prefills took 9 % longer,
after 21 and 20 ms 2 %, and after 36 ms without a pause 12 %.
"""

from __future__ import annotations


class Heat:
    """Rises while steps draw much power and falls as fast while they do not; between 0 and `most` nanoseconds."""

    def __init__(self, most: int) -> None:
        """Start from rest, at time 0."""
        self._most = most
        self._level = 0
        self._since = 0
        """When it was at that level, in nanoseconds; it has fallen from then on."""

    def at(self, now: int) -> int:
        """Return the heat at a time not before the end of the last step that was added, in nanoseconds."""
        return max(0, self._level - (now - self._since))

    def add(self, start: int, duration: int) -> None:
        """Count a step that draws much power; both in nanoseconds."""
        self._level = min(self._most, self.at(start) + duration)
        self._since = start + duration
