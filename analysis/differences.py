"""The table that `compare` prints: what differs between two runs, by how much, and whether by chance."""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console

from analysis.numbers import short
from analysis.pools import shared_pool
from analysis.terminal import line, plain, put
from workloads.values import written

if TYPE_CHECKING:
    from analysis.compare import Comparison

MEANS = "latencies without a percentile are means over requests"
SHARED = "shares are of the pool's slots, % of them, mean over time"
SMALLEST = 0.05
"""Per cent that are not written as 0.0."""


def show_comparison(comparison: Comparison, console: Console, threshold: float | None = None) -> int:
    """Print the differences between two run directories, or between the allocators of one.

    Args:
        comparison: what `compare` found.
        console: where to.
        threshold: per cent by which a figure may get worse.

    Returns:
        exit status for scripts: 1 if `threshold` is given and some figure got worse by more, else 0.

    """
    runs = [run for each in (comparison.first, comparison.second) for run in each.runs]
    labels = {comparison.against, *(one.label for one in comparison.differences)}
    pool = shared_pool((run.label, run.capacity) for run in runs if run.label in labels)
    shares = SHARED if any(one.name.startswith("share.") for one in comparison.differences) else ""
    table = plain(comparison.title, "\n".join(filter(None, [MEANS, shares, pool and f"with a {pool}"])))
    longest = max((len(one.name) for one in comparison.differences), default=0)
    table.add_column("allocator and figure", overflow="fold", min_width=max(22, 2 + longest))
    for heading in ("first", "second", "difference", "95 % interval", "%"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("paired by", no_wrap=True)
    worse = comparison.regressions(threshold) if threshold is not None else []
    for label, figures in groupby(comparison.differences, key=lambda one: one.label):
        table.add_row(line(label, style="bold"))
        found = list(figures)
        if all(one.change.value == 0 and (not one.basis or one.change.low == one.change.high) for one in found):
            table.add_row("  no figure differs")
            continue
        for one in found:
            interval = f"{short(one.change.low)} … {short(one.change.high)}" if one.basis else "-"
            table.add_row(
                f"  {one.name}",
                short(one.first),
                short(one.second),
                short(one.change.value),
                interval,
                _signed(one.percent),
                {"replications": "runs", "draws": "-"}.get(one.basis, one.basis),
                style="bold red" if one in worse else "",
            )
    put(console, table)
    for setting in comparison.settings:
        console.print(line(f"{setting.key}: {written(setting.first)} → {written(setting.second)}"))
    for note in comparison.notes:
        console.print(line(note), style="dim")
    for one in worse:
        ends = f"{short(one.first)} to {short(one.second)}"  # from nothing there is no change in per cent
        change = f"{_signed(one.percent)} %" if math.isfinite(one.percent) else ends
        console.print(line(f"worse by more than {threshold:g} %: {one.label} {one.name} ({change})"))
    return 1 if worse else 0


def _signed(percent: float) -> str:
    """Write a relative change, in per cent: with its sign, unless it rounds to nothing."""
    if not math.isfinite(percent):
        return "-"
    return f"{percent:+,.1f}" if abs(percent) >= SMALLEST else "0.0"
