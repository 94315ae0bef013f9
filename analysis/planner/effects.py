"""What a change does: paired differences between runs that served the same requests.

Repeated, a difference is taken replication by replication, with Student's interval.  A trace
that is replayed is the same every time; there the difference is taken over batches of
neighbouring requests, which are resampled as a whole (the block bootstrap of `analysis.stats`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.stats import BOOTSTRAP_RESAMPLES, Interval, paired_difference

Records = Sequence[Mapping[str, Any]]
Floats = npt.NDArray[np.float64]
Sums = tuple[Sequence[float], ...]

LATENCY = "normalized_latency_s"
WORTHWHILE = 0.01
"""Least difference that is worth a change: of the share of requests within the SLO, or as a share of the mean latency.
Predictions by a good calibration are themselves half of that off, in the median."""
ROUNDED = 6**-0.5
"""Standard deviation of the difference of two whole numbers of requests by rounding alone: that of each is 1/12^0.5."""


class Effect(NamedTuple):
    """Differences `changed - before`."""

    good: Interval
    """Of the share of requests within the SLO."""
    latency: Interval
    """Of the mean latency per token, seconds."""
    latency_before: float
    """What that is without the change."""
    basis: str
    """What the intervals stand on: replications or requests."""
    identical: bool
    """Whether every batch of requests fared exactly as before."""

    @property
    def tells(self) -> str:
        """Better or worse, slight if by less than is worth a change, same where nothing can be told, none if identical.

        The SLO counts first.
        """
        if self.identical:
            return "none"
        sides = (self.good, self.good.value, 1.0), (self.latency, -self.latency.value, self.latency_before)
        for difference, gain, whole in sides:
            if difference.clear and abs(gain) >= WORTHWHILE * whole:
                return "better" if gain > 0 else "worse"
        return "slight" if self.good.clear or self.latency.clear else "same"


def effect(before: Records, changed: Records) -> Effect:
    """Compare the records of two settings.

    Args:
        before: one a replication.
        changed: of the same replications.

    """
    identical = all(one["batches"] == two["batches"] for one, two in zip(before, changed, strict=True))
    if len(before) > 1:
        requests = min(float(np.sum(one["batches"]["requests"])) for one in (*before, *changed))
        good_before, good_after = (np.array([share(one) for one in some]) for some in (before, changed))
        slow_before, slow_after = (np.array([mean(one) for one in some]) for some in (before, changed))
        good = paired_difference(good_before, good_after, rounding=ROUNDED / max(1.0, requests))
        slow = paired_difference(slow_before, slow_after)
        return Effect(good, slow, float(slow_before.mean()), "replications", identical)
    one, two = before[0]["batches"], changed[0]["batches"]
    paired = one["requests"] == two["requests"]  # in a closed loop that a horizon ends others come, or more
    good = _resampled((one["good"], one["requests"]), (two["good"], two["requests"]), paired=paired)
    pace = LATENCY, f"n.{LATENCY}"
    slow = _resampled(tuple(one[name] for name in pace), tuple(two[name] for name in pace), paired=paired)
    return Effect(good, slow, mean(before[0]), "requests", identical)


def share(record: Mapping[str, Any]) -> float:
    """Share of requests that met every limit."""
    return _ratio(record["batches"]["good"], record["batches"]["requests"])


def mean(record: Mapping[str, Any]) -> float:
    """Mean latency per token, seconds."""
    return _ratio(record["batches"][LATENCY], record["batches"][f"n.{LATENCY}"])


def _ratio(sums: Sequence[float], counts: Sequence[float]) -> float:
    return float(np.sum(sums)) / float(np.sum(counts)) if np.sum(counts) else float("nan")


def _resampled(before: Sums, after: Sums, *, paired: bool) -> Interval:
    """Difference of two means over all requests, its interval by drawing batches with replacement.

    Args:
        before: sums over batches of neighbouring requests, and of how many each is.
        after: the same of another run.
        paired: whether they are of the same requests, so that the same batches are drawn of both.

    """
    batches = min(len(before[0]), len(after[0]))
    value = _ratio(*after) - _ratio(*before)
    if batches < 2:
        return Interval(value, float("-inf"), float("inf"), batches)
    random = np.random.default_rng(0)
    if paired:
        one, of_one, two, of_two = _drawn(np.array([*before, *after], np.float64), random)
    else:
        (one, of_one), (two, of_two) = (_drawn(np.array(each, np.float64), random) for each in (before, after))
    known = (of_one > 0) & (of_two > 0)
    if not known.any():
        return Interval(value, float("-inf"), float("inf"), batches)
    low, high = np.percentile(two[known] / of_two[known] - one[known] / of_one[known], (2.5, 97.5))
    return Interval(value, float(low), float(high), batches)


def _drawn(table: Floats, random: np.random.Generator) -> Floats:
    """Sum up columns of a table that are drawn with replacement, many times."""
    batches = table.shape[1]
    drawn: Floats = table @ random.multinomial(batches, np.full(batches, 1 / batches), size=BOOTSTRAP_RESAMPLES).T
    return drawn
