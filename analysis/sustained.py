"""The rates of arrivals that were found to be sustained, in words, where a workload asked for them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from analysis.figures import SUSTAINED, Allocator
from analysis.numbers import short


def sustained(allocators: Sequence[Allocator]) -> list[str]:
    """Say what rate each allocator sustains, a sentence for each limit; nothing of those that were not asked."""
    found: dict[float, list[str]] = {}
    for one in allocators:
        if searched := one.entries[0].get("sustained"):
            limit = float(searched["normalized_latency_s"])
            found.setdefault(limit, []).append(f"{one.label} {_rate(one, limit)}")
    return [
        f"Rate at which latency reaches {short(1e3 * limit)} ms/token on average: {', '.join(rates)}."
        for limit, rates in found.items()
    ]


def _rate(one: Allocator, limit: float) -> str:
    """Write the mean over replications, or where the search ended without any."""
    rate = one.mean(SUSTAINED)
    if math.isfinite(rate):
        return f"{short(rate)} req/s"
    tried = [each for entry in one.entries for each in entry["sustained"]["tried"]]
    if tried and all(each["latency_s"] <= limit for each in tried):
        return f"more than {short(max(each['rate'] for each in tried))} req/s"
    return "none"
