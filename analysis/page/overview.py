"""Figures of all allocators side by side, at the top of the page: the first table, and bars with their intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.figures import COST, Allocator, Figure, bound, percent_of
from analysis.observed import SHARES
from analysis.saturation import MEANINGS

LATE = 0.7
"""Part of the time until the last arrival after which no load is steady any more: a warm-up is sought in 3/4 of it."""
BARS: tuple[Figure, ...] = (
    Figure("batch_size", "Batch, mean", "sequences", 1),
    Figure("throughput_rps", "Throughput", "requests/s", 1),
    Figure("goodput_rps", "Goodput, within the SLO", "requests/s", 1),
    Figure("normalized_latency_s.p50", "Latency per token, p50", "ms", 1e3),
    Figure("normalized_latency_s.p99", "Latency per token, p99", "ms", 1e3),
    Figure("ttft_s.p99", "Time to first token, p99", "s", 1),
    Figure("tpot_s.p50", "Time per output token, p50", "ms", 1e3),
    Figure("kv_efficiency", "Live / held", "%", 100),
    Figure("prefix_hit_rate", "Prefix hits", "%", 100),
    Figure("preemptions", "Preemptions", "", 1),
    Figure(COST, "Cost of a million output tokens", "", 1),
)
"""Figures drawn as bars."""


def bars(allocators: list[Allocator], expected: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Figures of all allocators with intervals, percentages of ideal and published values.

    What was published as a range, or as a multiple of another run's, stands in the table of such figures alone
    (`analysis.published`).
    """
    drawn = []
    for name, title, unit, scale in BARS:
        rows = []
        for one in allocators:
            ideal = bound(allocators, one)
            low, high, basis = spread(one, name)
            given = expected.get(one.label, {}).get(name)
            plain = given if isinstance(given, Mapping) else {"value": given}
            published = None if plain.get("over") else plain.get("value")
            rows.append(
                {
                    "value": _finite(scale * one.mean(name)),
                    "low": _finite(scale * low),
                    "high": _finite(scale * high),
                    "basis": basis,
                    "ideal": _finite(percent_of(one, ideal, name)),
                    "published": None if published is None else scale * published,
                }
            )
        if any(row["value"] for row in rows):
            drawn.append({"name": name, "title": title, "unit": unit, "rows": rows})
    return drawn


def spread(one: Allocator, name: str) -> tuple[float, float, str]:
    """95 % interval of a figure: over replications, else by the bootstrap within the run, else none."""
    if len(one.entries) > 1:
        interval = one.interval(name)
        return interval.low, interval.high, "replications"
    head, _, quantile = name.partition(".")
    value = one.entries[0]["metrics"].get(head)
    if isinstance(value, Mapping) and value.get("ci95"):
        low, high = value["ci95"][quantile or "mean"]
        return (float("nan"), float("nan"), "") if low is None else (float(low), float(high), "requests")
    return float("nan"), float("nan"), ""


def table(allocators: list[Allocator]) -> list[dict[str, Any]]:
    """Rows of the table at the top of the page."""
    return [
        {
            "label": one.label,
            "kind": one.kind,
            "scheduler": one.scheduler,
            "verdict": str(one.verdict),
            "meaning": MEANINGS[one.verdict],
            "shares": {name: _finite(one.mean(f"share.{name}")) or 0.0 for name in SHARES},
            "batch": one.mean("batch_size"),
            "peak": one.mean("batch_size.peak"),
            "batch_of_ideal": percent_of(one, bound(allocators, one), "batch_size"),
            "throughput": one.mean("throughput_rps"),
            "steady": _steady(one),
            "throughput_of_ideal": percent_of(one, bound(allocators, one), "throughput_rps"),
            "latency_p50": 1e3 * one.mean("normalized_latency_s.p50"),
            "latency_p99": 1e3 * one.mean("normalized_latency_s.p99"),
            "ttft_p50": one.mean("ttft_s.p50"),
            "ttft_p99": one.mean("ttft_s.p99"),
            "tpot_p50": 1e3 * one.mean("tpot_s.p50"),
            "tpot_p99": 1e3 * one.mean("tpot_s.p99"),
            "preemptions": one.mean("preemptions"),
            "efficiency": 100 * one.mean("kv_efficiency"),
            "finished": one.count("finished"),
            "total": one.count("total"),
            "refused": one.count("refused"),
            "unfinished": one.count("unfinished"),
        }
        for one in allocators
    ]


def _steady(one: Allocator) -> float:
    """Requests that left a second while the load was steady, over the replications in which it was; NaN if in none."""
    steady = [entry for entry in one.entries if (when := entry["steady"]) and when["from_s"] <= LATE * when["until_s"]]
    return Allocator(one.label, steady).mean("steady.throughput_rps")


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
