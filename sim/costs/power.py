"""What a device's power limit does (`sim.costs.heat`), found in series of steps of which some prefill, as in service.

Such steps are compared with the same ones at rest, so that nothing else needs to be known of their times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sim.costs.coefficients import Coefficients
from sim.costs.heat import PowerLimit

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

NAMES = ("power_throttle", "power_reserve_s", "power_constant_s", "power_slowdown")
START = (0.1, 0.02, 0.04, 0.03)
LEAST, MOST = (1e-4, 1e-4, 5e-3, 1e-4), (0.5, 0.1, 0.3, 0.3)
NOISE = 0.02
"""Relative error above which a step counts less: a clock moves by steps, and at times of its own."""
NOTHING = 0.002
"""Shares below this are none."""
REST = 30
"""Steps of decodes with which every series begins: the device is at rest behind them ..."""
SETTLED = 10
"""... and behind so many."""
ORDERS = tuple("d" * REST + order for order in ("p" * 20 + "d" * 30, "pd" * 30, "pdddd" * 20, "pppddd" * 14))
"""In which steps run (`Series.order`): many prefills in a row, and few."""


class Series(NamedTuple):
    """Steps that ran one after the other."""

    tokens: int
    """Prompt tokens in each step that prefills."""
    order: str
    """`p` for a step that prefills, `d` for one that does not; at first come `REST` of these."""
    seconds: Sequence[float]
    """That each took."""
    launched: bool
    """Whether those that prefill are launched kernel by kernel, so that the host holds up the step behind each."""


def fit_power(many: Sequence[Series]) -> dict[str, float]:
    """Return the coefficients `NAMES` that explain series best; the defaults if nothing is lost.

    Args:
        many: with the same decodes in all of them.

    """
    from scipy.optimize import least_squares  # noqa: PLC0415  takes half a second, and only fitting needs it

    known = [_Timed.of(series, _at_rest(series.tokens, many)) for series in many]

    def errors(x: Floats) -> Floats:
        limit = PowerLimit(_with(x))
        return np.concatenate([each.errors(limit) for each in known])

    found = least_squares(errors, START, bounds=(LEAST, MOST), loss="soft_l1", f_scale=NOISE, diff_step=0.02)
    values = dict(zip(NAMES, found.x.tolist(), strict=True))
    for name in ("power_throttle", "power_slowdown"):
        if values[name] < NOTHING:
            values[name] = 0.0
    if not values["power_throttle"]:
        values["power_reserve_s"] = 0.0
        if not values["power_slowdown"]:
            values["power_constant_s"] = Coefficients().power_constant_s
    return values


def _with(x: Floats) -> Coefficients:
    return replace(Coefficients(), **dict(zip(NAMES, x.tolist(), strict=True)))


def _at_rest(tokens: int, many: Sequence[Series]) -> float:
    """Return what a step with so many prompt tokens takes behind nothing but decodes."""
    return float(np.median([each.seconds[each.order.index("p")] for each in many if each.tokens == tokens]))


class _Timed(NamedTuple):
    """A series beside what its steps take at rest."""

    took: npt.NDArray[np.int64]
    """Nanoseconds of each step."""
    seconds: Floats
    rested: Floats
    hot: Sequence[bool]
    counts: npt.NDArray[np.bool_]
    """Whether a step tells anything."""

    @classmethod
    def of(cls, series: Series, prefill_s: float) -> _Timed:
        seconds = np.array(series.seconds)
        hot = [step == "p" for step in series.order]
        rested = np.where(hot, prefill_s, np.median(seconds[SETTLED:REST]))
        behind = np.array([False, *hot[:-1]])
        counts = np.array(hot) | ~(behind & series.launched)
        return cls(np.round(1e9 * seconds).astype(np.int64), seconds, rested, hot, counts)

    def errors(self, limit: PowerLimit) -> Floats:
        """Relative errors of the steps that tell something."""
        heat, levels, now = limit.heat(), [], 0
        for took, hot in zip(self.took.tolist(), self.hot, strict=True):
            levels.append(heat.at(now))
            if hot:
                heat.add(now, took)
            now += took
        level: Any = np.array(levels, np.float64)
        delayed = self.rested + limit.delay(level, self.rested, np.maximum)
        slowed = self.rested * (1 + limit.slowdown(level))
        relative = np.where(self.hot, delayed, slowed) / self.seconds - 1
        return np.asarray(relative[self.counts])
