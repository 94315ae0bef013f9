"""Fitting arrivals: a steady process, or a rate that changes with time.

Candidates are made, from few numbers to many: steady Poisson or Gamma gaps, measured gaps, a
rate for each of up to 240 bins with Gamma gaps in operational time, the same with measured
gaps.  One with more numbers is taken only if its gaps and counts are clearly nearer to the
recorded ones.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter

from workloads.arrivals import Arrivals, Process
from workloads.streams import stream

if TYPE_CHECKING:
    from workloads.requests import Floats, Ints

BINS, PER_BIN = 240, 40
"""Most bins of a rate profile; arrivals that a bin has on average, at least."""
FEWEST_BINS = 4
"""With fewer a profile says nothing."""
COUNTS = 60
"""Bins in which counts are compared."""
GAPS = 200
"""Numbers that stand for measured gaps."""
CLEARLY = 0.03
"""By how much the distance of a candidate with more numbers must be less."""
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
    candidates = [_steady(arrival, span)]
    bins = min(BINS, len(arrival) // PER_BIN)
    if bins >= FEWEST_BINS and candidates[0][0]["kind"] != "fixed":
        candidates += [_measured(arrival), *_profiles(arrival, span, bins)]
    best, note = candidates[0]
    distance = _distance(arrival, best, bins)
    for block, found in candidates[1:]:
        if (nearer := _distance(arrival, block, bins)) < distance - CLEARLY:
            best, note, distance = block, found, nearer
    return best, [note]


def _steady(arrival: Floats, span: float) -> tuple[dict[str, Any], str]:
    """Fit equal, exponential or Gamma gaps."""
    gaps = np.diff(arrival)
    rate, cv = _digits(len(gaps) / span), float(gaps.std() / gaps.mean())
    if cv < LEAST_CV:
        return {"kind": "fixed", "rate": rate}, "equal gaps between arrivals"
    if abs(cv - 1) < 3 / math.sqrt(len(gaps)):
        return {"kind": "poisson", "rate": rate}, f"steady Poisson arrivals (gaps have CV {cv:.2f})"
    return {"kind": "gamma", "rate": rate, "cv": _digits(min(cv, MOST_CV))}, f"steady arrivals; gaps have CV {cv:.2f}"


def _measured(arrival: Floats) -> tuple[dict[str, Any], str]:
    """Take the gaps as they were measured, in 200 numbers."""
    gaps = np.diff(arrival)
    note = f"steady arrivals with gaps as measured (CV {gaps.std() / gaps.mean():.2f})"
    return {"kind": "renewal", "gap_s": {"kind": "values", "values": strata(gaps, GAPS)}}, note


def _profiles(arrival: Floats, span: float, bins: int) -> list[tuple[dict[str, Any], str]]:
    """Fit a rate for each bin, and the burstiness that is left: as a CV, or as gaps."""
    width = span / bins
    counts, edges = np.histogram(arrival, bins=bins, range=(0, span))
    work = np.diff(np.interp(arrival, edges, np.concatenate([[0], np.cumsum(counts)])))
    work /= work.mean()
    left = float(np.clip(work.std(), LEAST_CV, MOST_CV))
    rates = [_digits(rate) for rate in (counts / width).tolist()]
    block = {"kind": "profile", "bin_s": _digits(width, 8), "rates": rates}
    note = f"the rate changes: {bins} rates, one for every {width:.3g} s; gaps in operational time "
    return [
        ({**block, "cv": _digits(left)}, f"{note}have CV {left:.2f}"),
        ({**block, "gaps": {"kind": "values", "values": strata(work, GAPS)}}, f"{note}are as measured (CV {left:.2f})"),
    ]


def strata(values: Floats | Ints, parts: int) -> list[float]:
    """Cut sorted values into equal parts and return their means, 5 digits each: the whole's mean is kept."""
    ordered = np.sort(values)
    edges = np.linspace(0, len(ordered), min(parts, len(ordered)) + 1).round().astype(np.int64)
    sums = np.concatenate([[0.0], np.cumsum(ordered, dtype=np.float64)])
    return [_digits(mean) for mean in ((sums[edges[1:]] - sums[edges[:-1]]) / np.diff(edges)).tolist()]


def _distance(arrival: Floats, block: dict[str, Any], bins: int) -> float:
    """Say how far a candidate is: Kolmogorov-Smirnov distances of gaps and of counts in bins, added up."""
    process = TypeAdapter(Arrivals).validate_python(block)
    if not isinstance(process, Process):
        return 0.0
    made = process.draw(stream(0, "fit"), len(arrival))
    gaps = ks_distance(np.diff(arrival), np.diff(made))
    if bins < FEWEST_BINS:
        return gaps
    span = min(float(arrival[-1]), float(made[-1]))
    few = min(bins, COUNTS)
    counts = [np.histogram(times, bins=few, range=(0, span))[0] for times in (arrival, made)]
    return gaps + ks_distance(*counts)


def ks_distance(one: Floats | Ints, other: Floats | Ints) -> float:
    """Return the largest difference of two samples' cumulative distributions (Kolmogorov-Smirnov), 0 to 1."""
    first, second = np.sort(one), np.sort(other)
    every = np.concatenate([first, second])
    below = [np.searchsorted(some, every, side="right") / len(some) for some in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


def _digits(value: float, digits: int = 5) -> float:
    return float(f"{value:.{digits}g}")
