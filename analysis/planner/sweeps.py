"""A sweep summed up: means over replications with their intervals, and the front of what is worth having."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.documents import SCHEMA_VERSION
from analysis.figures import COST, GOODPUT, Figure
from analysis.planner.rows import Group, front, groups, refusals, status_share
from analysis.slo import PART
from analysis.stats import Interval

FIGURES: tuple[Figure, ...] = (
    Figure("throughput_rps", "Throughput", "requests/s", 1),
    Figure("goodput_rps", "Goodput (requests within the SLO)", "requests/s", 1),
    Figure("output_tps", "Output tokens", "tokens/s", 1),
    Figure("normalized_latency_s", "Latency per token, mean", "ms", 1e3),
    Figure("normalized_latency_s.p50", "Latency per token, p50", "ms", 1e3),
    Figure("normalized_latency_s.p99", "Latency per token, p99", "ms", 1e3),
    Figure("ttft_s.p50", "Time to first token, p50", "s", 1),
    Figure("ttft_s.p99", "Time to first token, p99", "s", 1),
    Figure("tpot_s.p50", "Time per output token, p50", "ms", 1e3),
    Figure("tpot_s.p99", "Time per output token, p99", "ms", 1e3),
    Figure("itl_s.p99", "Gap between tokens, p99", "ms", 1e3),
    Figure("batch_size", "Batch, mean", "sequences", 1),
    Figure("kv_usage", "Pool held, mean", "%", 100),
    Figure("kv_efficiency", "Live / held", "%", 100),
    Figure("held_gib.peak", "KV memory held, peak", "GiB", 1),
    Figure("prefix_hit_rate", "Prefix hits", "%", 100),
    Figure("preemptions", "Preemptions", "", 1),
    Figure(COST, "Cost of a million output tokens", "", 1),
)
"""What tables and pages show."""
NEWER = ("itl_s.p99",)
"""Those that sweeps of earlier versions lack."""
OF_PART = ("throughput_rps", "normalized_latency_s.p50", "ttft_s.p50", "ttft_s.p99", "tpot_s.p99", "itl_s.p99")
"""Those that are kept of each part of a mix as well, with `WITHIN`."""
WITHIN = Figure(GOODPUT, "Requests within the SLO", "%", 100)
OBJECTIVES = (("throughput_rps", -1), ("normalized_latency_s", 1), ("held_gib.peak", 1))
"""What the front is of: more (-1) or less (1) is better."""
MOST_OF = ("throughput_rps", "goodput_rps")
"""What a cell may have the most of."""


def summarise(
    rows: Sequence[Mapping[str, Any]], keys: Sequence[str], failed: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Sum a grid up.

    Args:
        rows: of the tidy table.
        keys: what is varied.
        failed: jobs that could not be done.

    Returns:
        a JSON document: `cells`, one a point and allocator, each with its settings, replications, shares of requests
        that were refused or unfinished, reasons of refusals, verdict, figures (mean, low, high), by how much it is
        behind the most of `MOST_OF` (mean, low, high, of pairs of replications, which have their random numbers in
        common), and whether it is on the front; in both, the bound, which nobody can have, is left out; and `failed`.

    """
    found = groups(rows, keys)
    parts = dict.fromkeys(name.split(".", 2)[1] for row in rows for name in row if name.startswith(PART))
    kept = [one.name for one in FIGURES]
    kept += [f"{PART}{part}.{name}" for part in parts for name in (*OF_PART, GOODPUT)]
    points = [
        [
            math.nan if group.rows[0]["kind"] == "ideal" else sign * group.interval(name).value
            for name, sign in OBJECTIVES
        ]
        for group in found
    ]
    most = {name: _most(found, name) for name in MOST_OF}
    return {
        "schema": SCHEMA_VERSION,
        "cells": [
            {
                "cell": group.rows[0]["cell"],
                "settings": dict(group.settings),
                "allocator": group.label,
                "kind": group.rows[0]["kind"],
                "pool_slots": group.rows[0]["pool_slots"],
                "n": len(group.rows),
                **{status: status_share(status, group.rows) for status in ("refused", "unfinished")},
                "refusals": refusals(group.rows),
                "verdict": str(group.verdict),
                "kept_up": all(one["kept_up"] for one in group.rows),
                "front": on,
                "figures": {name: bounds(group.interval(name)) for name in kept},
                "behind": {name: bounds(best.ahead_of(group, name)) for name, best in most.items() if best is not None},
            }
            for group, on in zip(found, front(points), strict=True)
        ],
        "failed": list(failed),
    }


def _most(found: Sequence[Group], name: str) -> Group | None:
    """Find the group with the most of a figure; the bound only if there is nothing else."""
    known = [group for group in found if math.isfinite(group.interval(name).value)]
    had = [group for group in known if group.rows[0]["kind"] != "ideal"] or known
    return max(had, key=lambda group: group.interval(name).value, default=None)


def bounds(interval: Interval) -> dict[str, float | None]:
    """An interval as JSON: no bounds where nothing was repeated, no value where there is none."""
    return {
        "mean": finite(interval.value),
        "low": finite(interval.low) if interval.n > 1 else None,
        "high": finite(interval.high) if interval.n > 1 else None,
    }


def finite(value: float) -> float | None:
    """A number, or None for what JSON has no word for."""
    return float(value) if math.isfinite(value) else None
