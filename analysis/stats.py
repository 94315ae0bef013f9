"""Statistics that keep a comparison honest.

* Percentiles of weighted values, and intervals for them by a block bootstrap: latencies of
  requests that queue together are correlated, so blocks of consecutive requests are resampled
  instead of single ones (Künsch 1989).
* Paired differences and ratios under common random numbers, with Student's t, and differences
  of independent groups with Welch's t (Law, *Simulation Modeling and Analysis*, section 10.2).

All functions are pure functions of arrays; random choices take a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Array: TypeAlias = npt.NDArray[Any]

BOOTSTRAP_BLOCKS = 50
BOOTSTRAP_RESAMPLES = 500
RANK_BINS = 4096
WIDEST = 100
"""Times that the upper end of a ratio's interval may be the lower one: a tenth to ten times the ratio."""


class Interval(NamedTuple):
    """An estimate and its 95 % confidence interval."""

    value: float
    low: float
    high: float
    n: int
    """Number of independent observations."""

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def weighted_percentiles(values: Array, weights: Array, quantiles: Sequence[float]) -> Floats:
    """Percentiles of the multiset that contains `values[i]` `weights[i]` times.

    Equals `np.percentile(np.repeat(values, weights), 100 * quantiles)`, but does not make that array.

    Args:
        values: finite numbers in any order.
        weights: how often each occurs, integers >= 0.
        quantiles: in [0, 1].

    Returns:
        float64[len(quantiles)], NaN if the multiset is empty.

    """
    values, weights = np.asarray(values, np.float64), np.asarray(weights, np.int64)
    present = weights > 0
    if not present.all():
        values, weights = values[present], weights[present]
    if not len(values):
        return np.full(len(quantiles), np.nan)
    total = int(weights.sum())
    rank = np.asarray(quantiles) * (total - 1)
    below = np.floor(rank)
    found = _ranked(values, weights, np.concatenate([below, np.minimum(below + 1, total - 1)]))
    low, high = np.split(found, 2)
    return np.asarray(low + (high - low) * (rank - below), np.float64)


def _ranked(values: Floats, weights: Array, ranks: Array) -> Floats:
    """Find the values at some ranks, from 0, in a multiset.

    Values are first counted in equal bins, so that only the bins that contain a wanted rank need to be sorted.
    """
    low, high = float(values.min()), float(values.max())
    scale = (RANK_BINS - 1) / (high - low) if high > low else 0.0
    if not np.isfinite(scale):
        scale = 0.0
    place = ((values - low) * scale).astype(np.int64)
    last = np.bincount(place, weights, RANK_BINS).cumsum()
    bins = last.searchsorted(ranks, side="right")
    result = np.empty(len(ranks))
    for number in dict.fromkeys(bins.tolist()):
        inside = np.flatnonzero(place == number)
        inside = inside[values[inside].argsort()]
        until = last[number] - weights[inside].sum() + weights[inside].cumsum()
        wanted = bins == number
        result[wanted] = values[inside[until.searchsorted(ranks[wanted], side="right")]]
    return result


def percentiles(values: Array, quantiles: Sequence[float]) -> Floats:
    """Percentiles over the last axis, equal to `np.percentile`, which takes longer to import than to compute.

    Args:
        values: float64[..., n], finite, n at least 1.
        quantiles: in [0, 1].

    Returns:
        float64[..., len(quantiles)]

    """
    ordered = np.sort(values, axis=-1)
    rank = np.asarray(quantiles) * (ordered.shape[-1] - 1)
    below = np.floor(rank).astype(np.int64)
    part = rank - below
    low = ordered[..., below]
    high = ordered[..., np.minimum(below + 1, ordered.shape[-1] - 1)]
    between = high - low
    return np.asarray(np.where(part < 0.5, low + between * part, high - between * (1 - part)))


def distinct(values: Array) -> Array:
    """Different values, ascending: `np.unique` imports masked arrays, to ask whether it was given one."""
    ordered = np.sort(values)
    new = np.ones(len(ordered), np.bool_)
    new[1:] = ordered[1:] != ordered[:-1]
    return ordered[new]


class Draws:
    """Draws of blocks with replacement: the same ones for every series that is cut into as many blocks."""

    def __init__(self, seed: int = 0, resamples: int = BOOTSTRAP_RESAMPLES) -> None:
        """Draw `resamples` times; the same seed draws the same."""
        self._seed = seed
        self._resamples = resamples
        self._drawn: dict[int, Array] = {}

    def of(self, blocks: int) -> Array:
        """Return int64[resamples, blocks]: how often each block is drawn, each time as many as there are."""
        if blocks not in self._drawn:
            choose = np.random.default_rng(self._seed).multinomial
            self._drawn[blocks] = choose(blocks, np.full(blocks, 1 / blocks), size=self._resamples)
        return self._drawn[blocks]


def bootstrap(
    values: Array, quantiles: Sequence[float], draws: Draws | None = None
) -> tuple[tuple[float, float], list[tuple[float, float]]]:
    """95 % intervals for the mean and for percentiles of a correlated series.

    The series is cut into 50 blocks of consecutive values (fewer if it is shorter), blocks are drawn with
    replacement, and the interval spans the central 95 % of the estimates.  If values are correlated over more than
    a block, intervals are too narrow: of the waiting times in an M/M/1 queue at a load of 0.8, 9 of 10 intervals
    from 5,000 requests contain the true mean, but only half of those from 1,200.  (Intervals over replications do
    not have this problem.)  More than 4,096 values are first put into that many bins of equal rank, so that a
    million requests cost as much as four thousand.

    Args:
        values: in order of arrival, finite.
        quantiles: in [0, 1].
        draws: of the blocks; those of seed 0 if not given.

    Returns:
        The interval of the mean, and one interval for each quantile; NaN for fewer than 2 values.

    """
    count = len(values)
    if count < 2:
        nothing = (float("nan"), float("nan"))
        return nothing, [nothing for _ in quantiles]
    blocks = min(count, BOOTSTRAP_BLOCKS)
    block = np.arange(count) * blocks // count
    bins = min(count, RANK_BINS)
    order = np.argsort(values)
    ordered = values[order]
    edges = ordered[np.arange(bins) * count // bins]
    place = edges.searchsorted(ordered, side="right") - 1  # of values in order, which is ten times as quick
    histogram = np.bincount(place * blocks + block[order], minlength=bins * blocks).reshape(bins, blocks)
    inside = np.bincount(place, minlength=bins)  # not equally many where values are equal: those share a bin
    middle = ordered[inside.cumsum() - inside + inside // 2]
    drawn = (draws or Draws()).of(blocks)
    sizes = np.bincount(block, minlength=blocks)
    means = (drawn @ np.bincount(block, weights=values, minlength=blocks)) / (drawn @ sizes)
    reached = _reached(drawn.astype(np.int32), histogram.cumsum(axis=0, dtype=np.int32), quantiles)
    spans = percentiles(np.vstack([means, middle[reached]]), (0.025, 0.975)).tolist()
    mean, *others = ((low, high) for low, high in spans)
    return mean, others


def _reached(draws: Array, upto: Array, quantiles: Sequence[float]) -> Array:
    """Find the bin in which each resampled multiset reaches each quantile, by bisection over bins.

    Args:
        draws: int32[resamples, blocks], how often each block is drawn.
        upto: int32[bins, blocks], number of values of each block in all bins up to and including this one.
        quantiles: in [0, 1].

    Returns:
        int64[len(quantiles), resamples], the first bin at which the quantile is reached.

    """
    wanted = np.asarray(quantiles, np.float32)[:, None] * (draws @ upto[-1]).astype(np.float32)
    low, high = np.zeros(wanted.shape, np.int64), np.full(wanted.shape, len(upto) - 1)
    while (low < high).any():
        middle = (low + high) // 2
        enough = np.einsum("rb,qrb->qr", draws, upto[middle]) >= wanted
        low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
    return low


def t_interval(observations: Array, rounding: float = 0.0) -> Interval:
    """Mean of independent observations with Student's 95 % interval; infinitely wide for one.

    Args:
        observations: float64[n].
        rounding: standard deviation of the error with which each is known, as of a share of few requests. They are
            taken to vary by that at least: a few that are equal by chance would have an interval of no width.

    """
    count = len(observations)
    mean = float(np.mean(observations)) if count else float("nan")
    if count < 2:
        return Interval(mean, float("-inf"), float("inf"), count)
    from scipy.special import stdtrit  # noqa: PLC0415  (only needed where there are replications)

    half = float(stdtrit(count - 1, 0.975)) * max(float(np.std(observations, ddof=1)), rounding) / count**0.5
    return Interval(mean, mean - half, mean + half, count)


def paired_difference(first: Array, second: Array, rounding: float = 0.0) -> Interval:
    """Mean of `second - first` over replications that shared their random numbers; `rounding`: see `t_interval`."""
    return t_interval(np.asarray(second, np.float64) - np.asarray(first, np.float64), rounding)


def unpaired_difference(first: Array, second: Array) -> Interval:
    """Difference of the means of two independent groups, with Welch's 95 % interval, which allows unequal variances.

    Infinitely wide unless both groups have at least 2 observations.  If the groups do share random numbers, it is
    wider than necessary.
    """
    one, two = np.asarray(first, np.float64), np.asarray(second, np.float64)
    change, fewest = float(np.mean(two) - np.mean(one)), min(len(one), len(two))
    if fewest < 2:
        return Interval(change, float("-inf"), float("inf"), fewest)
    from scipy.special import stdtrit  # noqa: PLC0415  (only needed where there are replications)

    parts = np.array([np.var(group, ddof=1) / len(group) for group in (one, two)])
    total = float(parts.sum())
    if not total:
        return Interval(change, change, change, fewest)
    freedom = total**2 / float((parts**2 / np.array([len(one) - 1, len(two) - 1])).sum())
    half = float(stdtrit(freedom, 0.975)) * total**0.5
    return Interval(change, change - half, change + half, fewest)


def paired_ratio(first: Array, second: Array) -> Interval:
    """Geometric mean of `second / first` over replications that shared their random numbers."""
    logs = t_interval(np.log(np.asarray(second, np.float64)) - np.log(np.asarray(first, np.float64)))
    value, low, high = (float(np.exp(bound)) for bound in logs[:3])
    return Interval(value, low, high, logs.n)


def is_narrow(ratio: Interval) -> bool:
    """Whether the interval of a ratio tells anything: of two replications it may span many orders of magnitude."""
    return ratio.high < WIDEST * ratio.low
