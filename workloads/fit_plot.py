"""What a page shows of a trace beside its fit: distributions, gaps, and arrivals over time, as plain data.

No request of the trace can be read off it: distributions are quantiles at even steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from workloads.fit import Fit, per_minute

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from workloads.requests import Floats, Ints, Requests

POINTS = 400
"""Points of a line."""

Line = tuple[list[float], list[float]]
"""Places on the axis across, and heights."""


class Panel(NamedTuple):
    """One chart."""

    title: str
    x: str
    """What is across, with its unit."""
    y: str
    log: bool
    """Whether the axis across is logarithmic."""
    lines: Mapping[str, Line]
    """By name: trace and fitted."""


def panels(requests: Requests, fitted: Fit) -> list[Panel]:
    """Put a trace beside as many requests made by its fit.

    Args:
        requests: of the trace.
        fitted: what `fit` says of them.

    """
    both = {"trace": requests, "fitted": fitted.drawn}
    minutes = _each(both, _minutes)
    found = [
        Panel("Prompts", "prompt tokens", "share of requests", True, _each(both, lambda one: _cdf(one.prompt_tokens))),
        Panel("Outputs", "output tokens", "share of requests", True, _each(both, lambda one: _cdf(one.output_tokens))),
        Panel(
            "Gaps between arrivals",
            "gap, s",
            "share of gaps",
            True,
            _each(both, lambda one: _cdf(np.diff(one.arrival_s))),
        ),
    ]
    if all(across for across, _ in minutes.values()):  # there is a whole one
        found.append(Panel("Arrivals in each whole minute", "minute", "arrivals", False, minutes))
    return found


def _each(both: Mapping[str, Requests], line: Callable[[Requests], Line]) -> dict[str, Line]:
    return {name: line(one) for name, one in both.items()}


def _cdf(values: Ints | Floats) -> Line:
    """Values at even steps of their share; nothing of no values, nor what a logarithmic axis cannot show."""
    share = np.linspace(0, 1, POINTS)
    quantiles = np.quantile(values, share) if len(values) else np.zeros(0)
    shown = quantiles > 0
    return _rounded(quantiles[shown]), _rounded(share[: len(quantiles)][shown])


def _minutes(requests: Requests) -> Line:
    counts = per_minute(requests.arrival_s)
    return _rounded(np.arange(len(counts))), _rounded(np.asarray(counts))


def _rounded(values: Ints | Floats) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]
