"""Fitting arrivals: does the rate change, and how are the gaps distributed?

Whether the rate changes is tested by shuffling the gaps, which keeps their distribution and destroys
slow changes: if counts in bins vary more than in any of 19 shufflings (a test at the 5 % level), a rate is
fitted for each bin, and gaps are measured in operational time.  Gaps are fitted as exponential or Gamma if
that is close enough for their number, and otherwise kept as measured.
"""

from __future__ import annotations

import math
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
GAPS = 200
"""Numbers that stand for measured gaps."""
NEAR = 0.05
"""Kolmogorov-Smirnov distance from Gamma gaps that is near enough, however many gaps there are."""
CRITICAL = 1.3581
"""Times 1/sqrt(n): the distance that n draws of a distribution are from it, exceeded in 5 of 100 cases."""
DRAWS = 1 << 17
"""Gamma gaps that the trace's are compared with: so many that their own scatter does not count."""
LEAST_CV, MOST_CV = 0.01, 100.0
"""What the schema takes."""


def fit_arrivals(arrival: Floats) -> tuple[dict[str, Any], list[str]]:
    """Fit an arrival process to times that ascend from 0.

    Returns:
        The `arrivals` block, and what was found in words.

    """
    span = float(arrival[-1])
    if span <= 0:
        return {"kind": "batch"}, ["all requests arrive at once"]
    gaps = np.diff(arrival)
    rate, bins = _digits(len(gaps) / span), min(BINS, len(arrival) // PER_BIN)
    if gaps.std() < LEAST_CV * gaps.mean():
        return {"kind": "fixed", "rate": rate}, ["equal gaps between arrivals"]
    if bins >= FEWEST_BINS and rate_changes(gaps, bins):
        return _profile(arrival, span, bins)
    cv, near = _gamma(gaps)
    if near and abs(cv - 1) < 3 / math.sqrt(len(gaps)):
        return {"kind": "poisson", "rate": rate}, [f"steady Poisson arrivals (gaps have CV {cv:.2f})"]
    if near:
        return {"kind": "gamma", "rate": rate, "cv": cv}, [f"steady arrivals; gaps have CV {cv:.2f}"]
    measured = {"kind": "values", "values": strata(gaps, GAPS)}
    return {"kind": "renewal", "gap_s": measured}, [f"steady arrivals with gaps as measured (CV {cv:.2f})"]


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
    width = span / bins
    counts, edges = np.histogram(arrival, bins=bins, range=(0, span))
    work = np.diff(np.interp(arrival, edges, np.concatenate([[0], np.cumsum(counts)])))
    cv, near = _gamma(work)
    block = {
        "kind": "profile",
        "bin_s": _digits(width, 8),
        "rates": [_digits(rate) for rate in (counts / width).tolist()],
    }
    note = f"the rate changes: {bins} rates, one for every {width:.3g} s; gaps in operational time "
    if near:
        return {**block, "cv": cv}, [f"{note}have CV {cv:.2f}"]
    measured = {"kind": "values", "values": strata(work / work.mean(), GAPS)}
    return {**block, "gaps": measured}, [f"{note}are as measured (CV {cv:.2f})"]


def strata(values: Floats | Ints, parts: int) -> list[float]:
    """Cut sorted values into equal parts and return their means, 5 digits each: the whole's mean is kept."""
    ordered = np.sort(values)
    edges = np.linspace(0, len(ordered), min(parts, len(ordered)) + 1).round().astype(np.int64)
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
