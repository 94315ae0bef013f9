"""Fitting arrivals: does the rate change, and how are the gaps distributed?

Whether the rate changes is tested by shuffling the gaps, which keeps their distribution and destroys
slow changes: if counts in bins vary more than in any of 19 shufflings (a test at the 5 % level), a rate is
fitted for each bin, and gaps are measured in operational time.  Gaps are fitted as exponential or Gamma if
that is close enough for their number, and otherwise kept as measured.  If it is, it is known what chance adds
to the variance of counts: bins are as wide as tells changes best from that, and it is taken off the rates.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from workloads.arrivals import unit_gaps
from workloads.streams import stream

if TYPE_CHECKING:
    from workloads.requests import Floats, Ints

BINS, PER_BIN = 240, 40
"""Most bins of a rate profile; arrivals that a bin has on average, at least."""
FEWEST_BINS = 4
"""With fewer a profile says nothing."""
EACH = 5
"""Requests that every number stands for, at least, so that none of a trace can be read off its fit."""
GAPS = 200
"""Numbers that stand for measured gaps."""
NEAR = 0.05
"""Kolmogorov-Smirnov distance from Gamma gaps that is near enough, however many gaps there are."""
CRITICAL = 1.3581
"""Times 1/sqrt(n): the distance that n draws of a distribution are from it, exceeded in 5 of 100 cases."""
DRAWS = 1 << 17
"""Gamma gaps that the trace's are compared with: so many that their own scatter does not count."""
LATE = 10
"""Mean gaps for which none has come at first, from which on that is no chance: of Poisson arrivals 1 in 22,000."""
LEAST_CV, MOST_CV = 0.01, 100.0
"""What the schema takes."""


def fit_arrivals(arrival: Floats) -> tuple[dict[str, Any], list[str]]:
    """Fit an arrival process to times that ascend, from 0 or later.

    Returns:
        The `arrivals` block, and what was found in words.

    """
    span = float(arrival[-1] - arrival[0])
    if span <= 0:
        when = {"at_s": _digits(float(arrival[0]))} if arrival[0] > 0 else {}
        return {"kind": "batch", **when}, ["all requests arrive at once"]
    gaps = np.diff(arrival)
    late = begins_late(arrival)
    rate, bins = _digits(len(gaps) / span), min(BINS, len(arrival) // PER_BIN)
    if gaps.std() < LEAST_CV * gaps.mean() and not late:
        return {"kind": "fixed", "rate": rate}, ["equal gaps between arrivals"]
    if bins >= FEWEST_BINS and (late or rate_changes(gaps, bins)):
        return _profile(arrival, float(arrival[-1]), bins)
    cv, near = _gamma(gaps)
    if near and abs(cv - 1) < 3 / math.sqrt(len(gaps)):
        return {"kind": "poisson", "rate": rate}, [f"steady Poisson arrivals (gaps have CV {cv:.2f})"]
    if near:
        return {"kind": "gamma", "rate": rate, "cv": cv}, [f"steady arrivals; gaps have CV {cv:.2f}"]
    measured = {"kind": "values", "values": strata(gaps, GAPS)}
    return {"kind": "renewal", "gap_s": measured}, [f"steady arrivals with gaps as measured (CV {cv:.2f})"]


def begins_late(arrival: Floats) -> bool:
    """Say whether none of these ascending times is for so long after 0 that it is no chance."""
    return bool(arrival[0] * (len(arrival) - 1) > LATE * (arrival[-1] - arrival[0]))


def rate_changes(gaps: Floats, bins: int) -> bool:
    """Say whether counts in bins vary more than with the same gaps in any other order (19 shufflings)."""
    rng = stream(0, "shuffle")
    span = float(gaps.sum())

    def variance(some: Floats) -> float:
        return float(np.histogram(np.cumsum(some), bins=bins, range=(0, span))[0].var())

    return variance(gaps) > max(variance(rng.permutation(gaps)) for _ in range(19))


def _gamma(gaps: Floats) -> tuple[float, bool]:
    """Return the gaps' CV, and whether they are near enough to Gamma gaps of that CV, or too few to tell."""
    cv = float(np.clip(gaps.std() / gaps.mean(), LEAST_CV, MOST_CV))
    distance = ks_distance(gaps / gaps.mean(), unit_gaps(stream(0, "fit"), DRAWS, cv))
    return _digits(cv), distance < max(NEAR, CRITICAL / math.sqrt(len(gaps)))


def _profile(arrival: Floats, span: float, bins: int) -> tuple[dict[str, Any], list[str]]:
    """Fit a rate for each bin, and the burstiness that is left."""
    counted = partial(np.histogram, arrival, range=(0, span))
    expected, edges = counted(bins=bins)
    work = _work(arrival, edges, expected)
    cv, near = _gamma(work)
    if near:  # so that it is known what is chance
        fewer = dict.fromkeys(max(FEWEST_BINS, bins // parts) for parts in range(1, bins))
        bins = min(fewer, key=lambda some: _blur(counted(bins=some)[0], cv))
        counts, edges = counted(bins=bins)
        expected = _without_chance(counts, cv)
        work = _work(arrival, edges, expected)
        cv, near = _gamma(work)
    width = span / bins
    block = {
        "kind": "profile",
        "bin_s": _digits(width, 8),
        "rates": [_digits(rate) for rate in (expected / width).tolist()],
    }
    note = f"the rate changes: {bins} rates, one for every {width:.3g} s; gaps in operational time "
    if near:
        return {**block, "cv": cv}, [f"{note}have CV {cv:.2f}"]
    measured = {"kind": "values", "values": strata(work / work.mean(), GAPS)}
    return {**block, "gaps": measured}, [f"{note}are as measured (CV {cv:.2f})"]


def _blur(counts: Ints, cv: float) -> float:
    """Return how far rates of so many equal bins are from the true rate, but for a constant: chance and coarseness.

    The cost function of Shimazaki and Shinomoto (2007), A method for selecting the bin size of a time histogram, with
    the variance of a renewal process, `cv` squared times the mean, in place of Poisson's.
    """
    return float(2 * cv**2 * counts.mean() - counts.var()) * len(counts) ** 2


def _work(arrival: Floats, edges: Floats, expected: Floats | Ints) -> Floats:
    """Return the gaps in operational time: how many arrivals are expected in each, given those of each bin."""
    gaps: Floats = np.diff(np.interp(arrival, edges, np.concatenate([[0], np.cumsum(expected)])))
    return gaps


def _without_chance(counts: Ints, cv: float) -> Floats:
    """Return how many arrivals each bin expects, given those that came.

    Of the variance of counts, `cv` squared times the mean is chance, which arrivals that are drawn from these rates add
    again.  So the rates get the rest, by moving each towards the mean.
    """
    mean, variance = float(counts.mean()), float(counts.var())
    kept = math.sqrt(max(0.0, 1 - cv**2 * mean / variance)) if variance else 0.0
    return np.asarray(mean + kept * (counts - mean), np.float64)


def strata(values: Floats | Ints, parts: int) -> list[float]:
    """Cut sorted values into equal parts and return their means, 5 digits each: the whole's mean is kept.

    There are at most so many `parts`, and no more than have `EACH` values each.
    """
    ordered = np.sort(values)
    edges = np.linspace(0, len(ordered), max(1, min(parts, len(ordered) // EACH)) + 1).round().astype(np.int64)
    sums = np.concatenate([[0.0], np.cumsum(ordered, dtype=np.float64)])
    return [_digits(mean) for mean in ((sums[edges[1:]] - sums[edges[:-1]]) / np.diff(edges)).tolist()]


def ks_distance(one: Floats | Ints, other: Floats | Ints) -> float:
    """Return the largest difference of two samples' cumulative distributions (Kolmogorov-Smirnov), 0 to 1."""
    first, second = np.sort(one), np.sort(other)
    every = np.concatenate([first, second])
    below = [np.searchsorted(some, every, side="right") / len(some) for some in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


def _digits(value: float, digits: int = 5) -> float:
    return float(f"{value:.{digits}g}")
