"""Whether the latencies of a run describe the system, or only how long the run was.

* MSER-5 finds the end of the warm-up (White 1997; White, Cobb & Spratt 2000).
* A verdict on the load says whether the queue grew for as long as requests arrived.
* Little's law checks that no request was lost.

All functions are pure functions of arrays; times are in seconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import numpy as np

from analysis.stats import Array


def warmup(series: Array, batch: int = 5) -> int:
    """Return how many values of `series` are warm-up, by MSER-5.

    With batch means Y_1..Y_k, it cuts the d batches that minimise  sum_{i>d} (Y_i - mean_{>d})^2 / (k - d)^2.  Only
    the first three quarters are considered; a later minimum means that the series never became steady.

    Args:
        series: equally spaced observations.
        batch: values per batch mean.

    Returns:
        The number of values to drop, a multiple of `batch`.

    """
    batches = len(series) // batch
    if batches < 4:
        return 0
    means = np.asarray(series[: batches * batch], np.float64).reshape(batches, batch).mean(axis=1)
    means -= means.mean()
    left = np.arange(batches, 0, -1)
    total = np.cumsum(means[::-1])[::-1]
    squares = np.cumsum((means**2)[::-1])[::-1]
    error = (squares - total**2 / left) / left.astype(np.float64) ** 2
    return int(np.argmin(error[: batches * 3 // 4])) * batch


class Verdict(StrEnum):
    """Whether the offered load fits."""

    STABLE = "STABLE"
    """Requests came and went; latency figures describe the system."""
    BACKLOGGED = "BACKLOGGED"
    """Requests waited for memory, seats or the running batch, but the queue did not grow without bound."""
    OVERLOADED = "OVERLOADED"
    """The queue grew as long as requests arrived: latency figures describe the length of the run."""
    REFUSED = "REFUSED"
    """Not one request could be served."""


GROWTH = 0.05
"""A queue may grow by this share of the arrivals."""
STANDING = 0.05
"""The head of the queue may be kept waiting for this share of the time."""


def outgrows(growth: int, arrivals: int) -> bool:
    """Whether an engine falls behind if its queue grows by `growth` requests during `arrivals` arrivals.

    It does if the growth is more than 5 % of the arrivals, and more than chance explains: 3 standard deviations of a
    random walk, which are 3 times the square root of the number of arrivals.
    """
    return growth > GROWTH * arrivals and growth > 3 * arrivals**0.5


def verdict(arrivals: Array, start: Array, duration: Array, waiting: Array, blocked: Array) -> Verdict:
    """Judge saturation over the time in which requests arrived.

    OVERLOADED: in the second half of that time, the queue outgrew the arrivals (see `outgrows`).
    BACKLOGGED: otherwise, if for more than 5 % of that time memory, seats or the scheduler's order (a static batch
    must end first) kept the head of the queue waiting; also if all requests arrive at once, and some of them wait.
    STABLE: otherwise.  REFUSED: every request was refused.

    Args:
        arrivals: ascending arrival times in seconds, of requests that were not refused.
        start: of each step, seconds, ascending.
        duration: of each step, seconds.
        waiting: requests queued during each step.
        blocked: bool, whether memory, seats or the order of work kept the head of the queue waiting.

    """
    if not len(arrivals):
        return Verdict.REFUSED
    if not len(start):
        return Verdict.STABLE
    first, last = float(arrivals[0]), float(arrivals[-1])
    if last > first:
        middle = (first + last) / 2
        at_middle, at_last = np.searchsorted(start, (middle, last), side="right") - 1
        late = len(arrivals) - int(np.searchsorted(arrivals, middle, side="right"))
        growth = int(waiting[max(at_last, 0)]) - int(waiting[max(at_middle, 0)])
        if outgrows(growth, late):
            return Verdict.OVERLOADED
        during = np.clip(np.minimum(start + duration, last) - np.maximum(start, first), 0, None)
        stood = float(during[blocked].sum()) / (last - first)
        return Verdict.BACKLOGGED if stood > STANDING else Verdict.STABLE
    return Verdict.BACKLOGGED if bool(np.any(blocked)) else Verdict.STABLE


class Little(NamedTuple):
    """Both sides of Little's law, L = lambda W."""

    in_system: float
    """L: time-weighted mean of requests running and waiting, counted by the steps."""
    rate_times_time: float
    """Lambda W: the sum of the times in the system over the length of the run, from requests."""

    @property
    def gap(self) -> float:
        """Relative difference."""
        return abs(self.in_system - self.rate_times_time) / max(self.rate_times_time, 1e-12)


def little(arrivals: Array, departures: Array, start: Array, duration: Array, in_system: Array) -> Little:
    """Compare the mean number in the system with rate times time; they are equal to rounding.

    Args:
        arrivals: of requests that were not refused, seconds.
        departures: their finish, seconds; NaN for unfinished ones, which leave at the end.
        start: of each step, seconds, ascending; steps tile the time from 0.
        duration: of each step, seconds.
        in_system: requests running and waiting when each step starts; one that arrives during it is added here.

    """
    ends = np.append(start[1:], start[-1] + duration[-1])
    end = float(ends[-1])
    stay = np.where(np.isnan(departures), end, departures) - arrivals
    during = np.maximum(np.searchsorted(start, arrivals, side="left") - 1, 0)  # the step that was under way
    unseen = np.where(arrivals > start[during], ends[during] - arrivals, 0.0)
    inside = float(np.dot(in_system, ends - start)) + float(unseen.sum())
    return Little(inside / end, float(stay.sum()) / end)
