"""What a device's power limit does (`sim.costs.heat`), found in series of steps of which some prefill, as in service.

Such steps are compared with the same ones at rest, so that nothing else needs to be known of their times.  Series last
long enough for the clock to fall as far as it does, and to recover: in shorter ones what a small model loses in the
end cannot be told from a slow drift.
"""

from __future__ import annotations

import math
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
SHORTER, LONGER = 0.7, 1.1
"""What prefills take at rest, as a share of the first in a series: at least, and at most."""
NOISE = 0.02
"""Relative error above which a step counts less: a clock moves by steps, and at times of its own."""
NOTHING = 0.002
"""Shares below this are none."""
REST = 30
"""Steps of decodes with which every series begins: the device is at rest behind them ..."""
SETTLED = 10
"""... and behind so many."""
HOT_S = 0.4
"""For how long the steps of a series that prefill run in all, at least: ten times the time constant on an H200."""
FEWEST = 8
"""How many there are at least."""
COOL_S = 0.15
"""For how long decodes run behind a row of them."""


class Series(NamedTuple):
    """Steps that ran one after the other."""

    tokens: int
    """Prompt tokens in each step that prefills."""
    launched: bool
    """Whether those that prefill are launched kernel by kernel, so that the host holds up the step behind each."""
    order: str
    """`p` for a step that prefills, `d` for one that does not; at first come `REST` of these."""
    seconds: Sequence[float]
    """That each took."""


def orders(prefill_s: float, decode_s: float) -> tuple[str, ...]:
    """Return the orders (`Series.order`) in which to run steps that take so long: many prefills in a row, and few."""
    count, cool = max(FEWEST, math.ceil(HOT_S / prefill_s)), math.ceil(COOL_S / decode_s)
    mixed = "p" * count + "d" * cool, "pd" * count, "pdddd" * count, "pppddd" * math.ceil(count / 3)
    return tuple("d" * REST + order for order in mixed)


def fit_power(many: Sequence[Series]) -> dict[str, float]:
    """Return the coefficients `NAMES` that explain series best; the defaults if nothing is lost.

    How long prefills take at rest is found with them: a long one loses time of its own before it ends.

    Args:
        many: with the same decodes in all of them.

    """
    from scipy.optimize import least_squares  # noqa: PLC0415  takes half a second, and only fitting needs it

    known = [_Timed.of(series) for series in many]
    lengths = sorted({series.tokens for series in many})
    firsts = [_first(tokens, many) for tokens in lengths]

    def errors(x: Floats) -> Floats:
        limit, rested = PowerLimit(_with(x)), dict(zip(lengths, firsts * x[len(NAMES) :], strict=True))
        return np.concatenate([each.errors(limit, rested[each.tokens]) for each in known])

    start, least, most = (
        [*ours, *(share,) * len(lengths)] for ours, share in ((START, 1), (LEAST, SHORTER), (MOST, LONGER))
    )
    found = least_squares(errors, start, bounds=(least, most), loss="soft_l1", f_scale=NOISE, diff_step=0.02)
    values = dict(zip(NAMES, found.x.tolist(), strict=False))
    for name in ("power_throttle", "power_slowdown"):
        if values[name] < NOTHING:
            values[name] = 0.0
    if not values["power_throttle"]:
        values["power_reserve_s"] = 0.0
        if not values["power_slowdown"]:
            values["power_constant_s"] = Coefficients().power_constant_s
    return values


def _with(x: Floats) -> Coefficients:
    return replace(Coefficients(), **dict(zip(NAMES, x.tolist(), strict=False)))


def _first(tokens: int, many: Sequence[Series]) -> float:
    """Return what a step with so many prompt tokens takes behind nothing but decodes."""
    return float(np.median([each.seconds[each.order.index("p")] for each in many if each.tokens == tokens]))


class _Timed(NamedTuple):
    """A series, prepared."""

    tokens: int
    took: npt.NDArray[np.int64]
    """Nanoseconds of each step."""
    seconds: Floats
    decode_s: float
    """What a step without prompts takes at rest."""
    hot: npt.NDArray[np.bool_]
    """Whether a step prefills."""
    counts: npt.NDArray[np.bool_]
    """Whether a step tells anything."""

    @classmethod
    def of(cls, series: Series) -> _Timed:
        seconds, hot = np.array(series.seconds), np.array([step == "p" for step in series.order])
        behind = np.append(False, hot[:-1])
        took = np.round(1e9 * seconds).astype(np.int64)
        decode_s = float(np.median(seconds[SETTLED:REST]))
        return cls(series.tokens, took, seconds, decode_s, hot, hot | ~(behind & series.launched))

    def errors(self, limit: PowerLimit, prefill_s: float) -> Floats:
        """Relative errors of the steps that tell something, if those that prefill take so long at rest."""
        heat, levels, now = limit.heat(), [], 0
        for took, hot in zip(self.took.tolist(), self.hot.tolist(), strict=True):
            levels.append(heat.at(now))
            if hot:
                heat.add(now, took)
            now += took
        level: Any = np.array(levels, np.float64)
        delayed = prefill_s + limit.delay(level, prefill_s, np.maximum)
        slowed = self.decode_s * (1 + limit.slowdown(level))
        relative = np.where(self.hot, delayed, slowed) / self.seconds - 1
        return np.asarray(relative[self.counts])
