"""What a trace is like, in the figures by which people compare workloads."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workloads.reuse import ideal_hits
from workloads.streams import stream
from workloads.traces import rows
from workloads.traces.rows import requests_of

if TYPE_CHECKING:
    from workloads.requests import Floats, Ints, Requests
    from workloads.trace import Trace


@dataclass(frozen=True)
class Spread:
    """How one quantity is distributed."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Ints | Floats) -> Spread:
        """Take mean and percentiles (linear between order statistics) of at least one value."""
        p50, p90, p99 = np.percentile(values, [50, 90, 99]).tolist()
        return cls(float(values.mean()), p50, p90, p99, float(values.max()))


@dataclass(frozen=True)
class Description:
    """A trace in figures."""

    format: str
    """Name of the format, as detected."""
    rows: int
    """Rows of the file."""
    requests: int
    """Requests that can be replayed."""
    span_s: float
    """First to last arrival, seconds."""
    rate_rps: float
    """Gaps between arrivals over span, as a run's offered rate; 0 if all arrive at once."""
    gap_cv: float
    """Coefficient of variation of the gaps between arrivals, coarse clocks spread; 1 is Poisson, 0: no gap."""
    recorded_gap_cv: float
    """The same without that spreading: as recorded."""
    peak_minute_rps: float
    """Arrivals a second in the busiest minute, whenever it begins; the mean rate of a shorter trace."""
    prompt_tokens: Spread
    output_tokens: Spread
    correlation: float
    """Rank correlation (Spearman) of prompt and output lengths."""
    turns: int
    """Requests that wait for another one's end."""
    ideal_hit_rate: float
    """Share of prompt tokens that earlier prompts began with: the hit rate of an infinite cache of prompts."""
    ideal_hit_rate_with_outputs: float
    """The same of an infinite cache of prompts and answers."""
    notes: tuple[str, ...]
    """What was left out or assumed."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def describe(trace: Trace) -> Description:
    """Read a trace and sum it up.

    Raises:
        WorkloadError: as `workloads.traces.read`.

    """
    raw, form = rows(trace)
    made = requests_of(raw, trace, stream(0, "spread"))
    recorded = requests_of(raw, trace.model_copy(update={"spread": False}), stream(0, "spread"))
    return sum_up(made, form.name, len(raw) + len(raw.faults), gap_cv(recorded.arrival_s))


def sum_up(made: Requests, form: str, count: int, recorded_gap_cv: float) -> Description:
    """Sum up requests that were read from `count` rows of a format."""
    span = float(made.arrival_s[-1] - made.arrival_s[0])
    prompt = int(made.prompt_tokens.sum())
    return Description(
        format=form,
        rows=count,
        requests=len(made),
        span_s=span,
        rate_rps=(len(made) - 1) / span if span else 0.0,
        gap_cv=gap_cv(made.arrival_s),
        recorded_gap_cv=recorded_gap_cv,
        peak_minute_rps=peak_rate(made.arrival_s, min(60.0, span)) if span else 0.0,
        prompt_tokens=Spread.of(made.prompt_tokens),
        output_tokens=Spread.of(made.output_tokens),
        correlation=rank_correlation(made.prompt_tokens, made.output_tokens),
        turns=int((made.after >= 0).sum()),
        ideal_hit_rate=int(ideal_hits(made).sum()) / prompt,
        ideal_hit_rate_with_outputs=int(ideal_hits(made, outputs=True).sum()) / prompt,
        notes=tuple(made.notes),
    )


def gap_cv(arrival: Floats) -> float:
    """Return the standard deviation of the gaps over their mean; 0 if there is no gap."""
    gaps = np.diff(arrival)
    return float(gaps.std() / gaps.mean()) if len(gaps) and gaps.any() else 0.0


def peak_rate(arrival: Floats, width_s: float) -> float:
    """Return the most arrivals a second in any `width_s` seconds, the end of which is not among them."""
    until = np.searchsorted(arrival, arrival + width_s)
    return float((until - np.arange(len(arrival))).max()) / width_s


def rank_correlation(one: Ints, other: Ints) -> float:
    """Return Spearman's rho with ties at their mean rank; 0 if either is constant."""
    first, second = _ranks(one), _ranks(other)
    if not first.std() or not second.std():
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: Ints) -> Floats:
    """Rank values from 0, equal ones at the mean of their places."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    places: Floats = (np.cumsum(counts) - (counts + 1) / 2)[which]
    return places
