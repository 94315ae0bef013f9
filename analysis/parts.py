"""How each part of a mix of requests fares under each allocator, for tables and pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from analysis.figures import Allocator
from analysis.saturation import Verdict


class Row(NamedTuple):
    """One part of a mix under one allocator."""

    part: str
    label: str
    """Of the allocator."""
    of: Allocator
    """Figures of this part's requests, over all replications."""


class Latency(NamedTuple):
    """A latency that tables show of each part."""

    name: str
    head: str
    """What heads its column on pages."""
    short: str
    """... and on terminals."""
    scale: float
    shown: tuple[str, ...] = ("p50", "p99")
    """Percentiles on terminals, where there is room for so many columns."""

    def of(self, row: Row, quantile: str) -> float:
        """Return a percentile, in the unit of the heading."""
        return self.scale * row.of.mean(f"{self.name}.{quantile}")


LATENCIES = (
    Latency("normalized_latency_s", "ms/token", "ms/token", 1e3, ("p50",)),
    Latency("ttft_s", "TTFT, s", "TTFT s", 1),
    Latency("tpot_s", "TPOT, ms", "TPOT ms", 1e3, ("p99",)),
    Latency("itl_s", "gap, ms", "gap ms", 1e3, ("p99",)),
    Latency("e2e_s", "end to end, s", "e2e s", 1, ("p99",)),
)


def rows(allocators: Sequence[Allocator]) -> Iterator[Row]:
    """Yield the parts in the order of the file, each under all allocators; nothing if requests are no mix."""
    found = [Row(part.label, one.label, part) for one in allocators for part in one.parts]
    for name in dict.fromkeys(row.part for row in found):
        yield from (row for row in found if row.part == name)


def page_rows(allocators: Sequence[Allocator]) -> list[dict[str, Any]]:
    """Return the rows of the page's table."""
    return [
        {
            "part": row.part,
            "label": row.label,
            "overloaded": row.of.verdict is Verdict.OVERLOADED,
            "latencies": [
                {"head": one.head, "name": one.name} | {quantile: one.of(row, quantile) for quantile in ("p50", "p99")}
                for one in LATENCIES
            ],
            "throughput": row.of.mean("throughput_rps"),
            "within_slo": row.of.within_slo,
            "preemptions": row.of.mean("preemptions"),
            "hits": 100 * row.of.mean("prefix_hit_rate"),
            "finished": row.of.count("finished"),
            "total": row.of.count("total"),
        }
        for row in rows(allocators)
    ]
