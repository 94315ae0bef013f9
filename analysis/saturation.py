"""Whether the latencies of a run describe the system, or only how long the run was.

* MSER-5 finds the end of the warm-up (White 1997; White, Cobb & Spratt 2000).
* A verdict on the load says whether ever more requests were there for as long as some arrived.
* Little's law checks that no request was lost.

All functions are pure functions of arrays; times are in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from analysis.stats import Array

BATCH = 5
"""Values to a batch mean of MSER-5."""


def warmup(series: Array) -> int:
    """Return how many values of `series` are warm-up, by MSER-5.

    With batch means Y_1..Y_k, it cuts the d batches that minimise  sum_{i>d} (Y_i - mean_{>d})^2 / (k - d)^2.  Only
    the first three quarters are considered; a later minimum means that the series never became steady.

    Args:
        series: equally spaced observations.

    Returns:
        The number of values to drop, a multiple of `BATCH`.

    """
    batches = len(series) // BATCH
    if batches < 4:
        return 0
    means = np.asarray(series[: batches * BATCH], np.float64).reshape(batches, BATCH).mean(axis=1)
    means -= means[-1]  # so that the sums over an end that is constant are exactly 0, and none of it is cut
    left = np.arange(batches, 0, -1)
    total = np.cumsum(means[::-1])[::-1]
    squares = np.cumsum((means**2)[::-1])[::-1]
    error = (squares - total**2 / left) / left.astype(np.float64) ** 2
    return int(np.argmin(error[: batches * 3 // 4])) * BATCH


class Verdict(StrEnum):
    """Whether the offered load fits, from good to bad; see `verdict`, and `MEANINGS`."""

    STABLE = "STABLE"
    BACKLOGGED = "BACKLOGGED"
    OVERLOADED = "OVERLOADED"
    REFUSED = "REFUSED"


MEANINGS: dict[str, str] = {
    "STABLE": "requests came and went; latencies describe the system",
    "BACKLOGGED": "for over 5 % of the time in which requests, or those of a part, came, some queued for memory, a "
    "seat or a batch, but as many left as came",
    "OVERLOADED": "fewer requests left than came, or in a mix fewer of the parts that most requests are of, while they "
    "came, so latencies tell how long the run was",
    "REFUSED": "not one request could be served",
}
"""What each verdict means, in a sentence."""


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst verdict of replications; REFUSED only if not one request of any could be served."""
    found = set(verdicts)
    return max(found - {Verdict.REFUSED} or found, key=list(Verdict).index)


GROWTH = 0.05
"""By this share of the arrivals fewer may leave."""
STANDING = 0.05
"""The head of the queue may be kept waiting for this share of the time."""


class Flow(NamedTuple):
    """Requests in the second half of the time in which they arrive.

    The queue alone does not tell whether an engine keeps up: in a large pool, sequences that run pile up first.
    """

    arrived: int
    left: int

    @classmethod
    def of(cls, arrivals: Array, departures: Array) -> Flow:
        """Count those whose times, in seconds, lie in that half; NaN is never."""
        if not len(arrivals):
            return cls(0, 0)
        first, last = float(arrivals.min()), float(arrivals.max())
        middle = (first + last) / 2
        left = np.count_nonzero((departures > middle) & (departures <= last))
        return cls(int(np.count_nonzero(arrivals > middle)), int(left))

    @property
    def behind(self) -> bool:
        """Whether the engine fell behind."""
        return outgrows(self.arrived - self.left, self.arrived)


def outgrows(growth: int, arrivals: int) -> bool:
    """Whether an engine falls behind if it has `growth` requests more after `arrivals` arrivals.

    It does if the growth is more than 5 % of the arrivals, and more than chance explains: 3 standard deviations of a
    random walk, which are 3 times the square root of the number of arrivals.
    """
    return growth > GROWTH * arrivals and growth > 3 * arrivals**0.5


def verdict(
    arrivals: Array,
    departures: Array,
    start: Array,
    duration: Array,
    blocked: Array,
    parts: Sequence[tuple[Array, Array]] = (),
) -> Verdict:
    """Judge saturation over the time in which requests arrived.

    OVERLOADED: in the second half of that time fewer requests left than arrived (see `outgrows`), so the load does not
    fit, or the run is too short for as many to be there as there would be in the end.  Of a mix, also if most requests
    are of parts of which that holds, each over its own time: a few that come much longer may not hide it.
    BACKLOGGED: otherwise, if for more than 5 % of that time memory, seats or the scheduler's order (a static batch
    must end first) kept the head of the queue waiting; also if all requests arrive at once, and some of them wait.  So
    it is if that held for more than 5 % of the time in which one of the parts came.
    STABLE: otherwise.  REFUSED: every request was refused.

    Args:
        arrivals: arrival times in seconds, of requests that were not refused.
        departures: their finish, seconds; NaN for unfinished ones.
        start: of each step, seconds, ascending.
        duration: of each step, seconds.
        blocked: bool, whether memory, seats or the order of work kept the head of the queue waiting.
        parts: arrivals and departures, likewise, of parts of the requests.

    """
    if not len(arrivals):
        return Verdict.REFUSED
    if not len(start):
        return Verdict.STABLE
    first, last = float(arrivals.min()), float(arrivals.max())
    if last > first:
        behind = sum(len(came) for came, left in parts if Flow.of(came, left).behind)
        if Flow.of(arrivals, departures).behind or 2 * behind > len(arrivals):
            return Verdict.OVERLOADED
        for begin, end in ((first, last), *((float(came.min()), float(came.max())) for came, _ in parts)):
            during = np.clip(np.minimum(start + duration, end) - np.maximum(start, begin), 0, None)
            if float(during[blocked].sum()) > STANDING * (end - begin):
                return Verdict.BACKLOGGED
        return Verdict.STABLE
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
