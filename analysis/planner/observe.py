"""What a planner needs of one run beside its summary: whether it kept up, and sums to compare it by.

A run keeps up if as many requests leave as arrive (`analysis.saturation`).

Runs that served the same requests are compared request by request.  Keeping every request of
every run would be too much, so the requests are cut into batches of neighbours by arrival,
and each batch keeps its sums: resampling batches (a block bootstrap) needs nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from analysis.metrics import PER_REQUEST, good, missed
from analysis.observed import Column, Columns, Floats, Observed
from analysis.saturation import Flow, Verdict
from analysis.summary import judge, without_nan

BATCHES = 50


def observe(seen: Observed, parts: Iterable[str]) -> dict[str, Any]:
    """Reduce a run, whose requests may be a mix of `parts`.

    Returns:
        `load`: what was offered, what left in the second half, and whether the run kept up;
        `missed`: how many requests are over each limit of the SLO, or did not finish;
        `batches`: sums over batches of neighbouring requests.  Plain JSON.

    """
    over = {name: int(np.count_nonzero(those)) for name, those in missed(seen)}
    told: dict[str, Any] = without_nan({"load": load(seen, parts), "missed": over, "batches": batches(seen)})
    return told


def load(seen: Observed, parts: Iterable[str]) -> dict[str, Any]:
    """Return what was offered, what arrived and left in the second half of that time, and whether the run kept up."""
    kept = seen.requests["status"] != "refused"
    arrivals = np.asarray(seen.requests["arrival_s"], np.float64)[kept]
    span = float(np.ptp(arrivals)) if len(arrivals) else 0.0
    flow = Flow.of(arrivals, np.asarray(seen.requests["finish_s"], np.float64)[kept])
    return {
        "offered_rps": (len(arrivals) - 1) / span if span else None,
        **flow._asdict(),
        "kept_up": judge(seen, parts) is not Verdict.OVERLOADED,
        "idle": idle(seen.steps),
    }


def idle(steps: Columns) -> float:
    """Share of the time in which nothing ran."""
    durations = np.asarray(steps["duration_s"], np.float64)
    total = float(durations.sum())
    return float(durations[np.asarray(steps["running"]) == 0].sum()) / total if total else 0.0


def batches(seen: Observed) -> dict[str, list[float]]:
    """Sums over up to 50 batches of neighbouring requests.

    Returns:
        `requests`: how many there are; `good`: how many met the SLO; and for each per-request
        metric its sum over those that have it, and under `n.` how many do.

    """
    total = len(seen.requests["status"])
    count = min(total, BATCHES)
    of = np.arange(total) * count // max(total, 1)
    sums: dict[str, list[float]] = {
        "requests": _sum(of, np.ones(total), count),
        "good": _sum(of, np.asarray(good(seen), np.float64), count),
    }
    for metric in PER_REQUEST:
        values = metric(seen)
        has = ~np.isnan(values)
        sums[metric.__name__] = _sum(of, np.where(has, values, 0.0), count)
        sums[f"n.{metric.__name__}"] = _sum(of, has.astype(np.float64), count)
    return sums


def _sum(of: Column, values: Floats, count: int) -> list[float]:
    summed: list[float] = np.bincount(of, weights=values, minlength=count).tolist()
    return summed
