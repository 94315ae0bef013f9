"""Heat: for how long a device has recently drawn more power than its limit.

A GPU may exceed its power limit for some hundredths of a second; then its clock falls until the power is within the
limit.  (On an H200: 700 W, 0.04 s, from 1.98 GHz to 1.44 to 1.67 at its lowest.)  Prefills of large models exceed the
limit, decodes do not, and a pause makes up for about as much time as it lasts: when 21 ms of prefills alternated with 5
ms of decodes, prefills took 9 % longer; with 20 ms of decodes 2 %; and after 36 ms of prefills without a pause 12 %.
"""

from __future__ import annotations


class Heat:
    """A level in nanoseconds that rises while steps draw much power and falls as fast while they do not.

    It stays between 0 and `most`.
    """

    def __init__(self, most: int) -> None:
        """Start from rest, at time 0."""
        self._most = most
        self._level = 0
        self._since = 0
        """The time at which it was at that level, in nanoseconds; it has been falling since."""

    def at(self, now: int) -> int:
        """Return the level at time `now` in nanoseconds, which is not before the end of the last step added."""
        return max(0, self._level - (now - self._since))

    def add(self, start: int, duration: int) -> None:
        """Add a step that draws much power; both arguments are in nanoseconds."""
        self._level = min(self._most, self.at(start) + duration)
        self._since = start + duration
