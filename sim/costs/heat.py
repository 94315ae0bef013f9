"""Heat: what a device's power limit does to its clock.

A GPU may draw more power than its limit as long as the average over some hundredths of a second does not exceed it;
then its clock falls, the further the more the average exceeds it.  Prefills of large models draw more than the limit,
decodes and pauses less.  So while prefills follow one another, the average approaches what they draw, exponentially,
and returns in the same way.  On an H200 with a limit of 700 W prefills of the 8B took as long as ever for 0.02 s, 5 %
longer after 0.05 s and 11 % after 0.15 s, at 1.44 to 1.67 instead of 1.98 GHz; where 5 ms of decodes lay between those
of 21 ms, 8 %, and with 20 ms of decodes 2 %.

Steps that draw less take longer behind them, too, in proportion to that average, and from the beginning: decodes of the
8B up to 4 %.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sim.costs.coefficients import Coefficients
    from sim.costs.load import Maximum, Route

RESTED = 0.02
"""Share of the way from rest to what prefills draw at which a device counts as being at rest again."""


class Heat:
    """The average of the power drawn: for how long a device at rest would have to exceed its limit to get there."""

    def __init__(self, constant: int) -> None:
        """Start from rest, at time 0; the average forgets with this time constant, in nanoseconds."""
        self._constant = constant
        self._level = 0
        self._since = 0
        """The time at which it was at that level, in nanoseconds; it has been falling since."""

    def at(self, now: int) -> int:
        """Return the level in nanoseconds at time `now`, which is not before the end of the last step added.

        A level of `t` is a share of `1 - exp(-t / constant)` of the way from rest to what prefills draw; it is 0 once
        that share has fallen below `RESTED`.
        """
        if now == self._since or not self._level:
            return self._level
        share = -math.expm1(-self._level / self._constant) * math.exp((self._since - now) / self._constant)
        return 0 if share < RESTED else round(-self._constant * math.log1p(-share))

    def add(self, start: int, duration: int) -> None:
        """Add a step that draws more than the limit; both arguments are in nanoseconds."""
        self._level = self.at(start) + duration
        self._since = start + duration


class PowerLimit:
    """How much longer steps take when much power has been drawn."""

    def __init__(self, coefficients: Coefficients) -> None:
        """Take the coefficients that begin with `power`."""
        self._throttle = coefficients.power_throttle
        self._reserve = coefficients.power_reserve_s
        self._constant = max(coefficients.power_constant_s, 1e-9)
        self._slowdown = coefficients.power_slowdown
        self.matters = bool(self._throttle or self._slowdown)
        """Whether any step takes longer at all."""

    def heat(self) -> Heat:
        """Return a `Heat` at rest."""
        return Heat(round(1e9 * self._constant))

    def delay(self, heat_ns: Any, seconds: Any, maximum: Maximum) -> Any:
        """Return the additional seconds of a step that draws more than the device may.

        At `t` beyond the reserve a step takes `throttle x (1 - exp(-t / constant))` longer; this is the integral.

        Args:
            heat_ns: level of `Heat` when the step begins.
            seconds: what it would take if the clock did not fall.
            maximum: of two numbers, or of two arrays.

        """
        begins = heat_ns / 1e9
        return self._throttle * (self._lost(begins + seconds, maximum) - self._lost(begins, maximum))

    def slowdown(self, heat_ns: Any) -> Any:
        """Return the share by which a step takes longer that draws less, but begins at some level of `Heat`."""
        return self._slowdown * (1 - np.exp(-(heat_ns / 1e9) / self._constant))

    def _lost(self, heat: Any, maximum: Maximum) -> Any:
        beyond = maximum(heat - self._reserve, 0.0)
        return beyond + self._constant * np.exp(-beyond / self._constant)


class Throttling:
    """What the limit does to the steps of one way to keep K/V."""

    def __init__(self, coefficients: Coefficients, route: Route) -> None:
        """Take the coefficients; where attention finds K/V decides which of them apply.

        Recomputing draws more than the limit in every step, so it is throttled from the beginning; what grows tensors
        waits for memory and for the host, and is not.
        """
        self._limit = PowerLimit(coefficients)
        self._always = coefficients.recompute_slowdown if route == "recompute" else None
        self.counts = route == "blocks" and self._limit.matters
        """Whether it matters for how long steps have drawn more than the limit."""
        self.matters = self.counts or bool(self._always)
        """Whether any step takes longer at all."""

    def heat(self) -> Heat:
        """Return a `Heat` at rest."""
        return self._limit.heat()

    def lost(self, hot: Any, heat_ns: Any, seconds: Any, maximum: Maximum) -> Any:
        """Return the additional seconds of a step.

        Args:
            hot: whether it draws more than the limit.
            heat_ns: level of `Heat` when it begins.
            seconds: what it would take if the clock did not fall.
            maximum: of two numbers, or of two arrays.

        """
        if self._always is not None:
            return hot * self._always * seconds
        delay = self._limit.delay(heat_ns, seconds, maximum)
        return hot * delay + (1 - hot) * seconds * self._limit.slowdown(heat_ns)
