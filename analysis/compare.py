"""Two run directories side by side, runs matched by label, or the allocators of one: differences, intervals.

With replications, a difference is the mean of paired differences with Student's 95 % interval, or, if the
two did not serve the same requests, the difference of means with Welch's interval.  Without replications,
latencies of the same requests are paired one by one, with a block bootstrap; figures of the whole run then
have no interval.  Mean latencies in pairs are of the requests that have them on both sides.  Parts of a mix
are compared like whole runs, and may be the same where others are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from analysis import stats
from analysis.figures import COST, OF_PARTS, Allocator, both_known
from analysis.metrics import PER_REQUEST
from analysis.pairing import Pair, allocators_of, allocators_of_one, means_of_both, pairs_of, same_requests
from analysis.reading import RunDirectory, open_directory
from analysis.stats import Interval

FIGURES: dict[str, int] = {
    "throughput_rps": 1,
    "goodput_rps": 1,
    "output_tps": 1,
    "batch_size": 1,
    "kv_efficiency": 1,
    "prefix_hit_rate": 1,
    "normalized_latency_s": -1,
    "ttft_s": -1,
    "ttft_s.p99": -1,
    "tpot_s": -1,
    "itl_s.p99": -1,
    "preemptions": -1,
    COST: -1,
    "share.reserved": 0,
    "share.internal": 0,
    "share.rounding": 0,
    "share.external": 0,
}
"""What is compared, and whether more is better (1) or worse (-1); shares of the pool are told, and judged by what comes
of them."""
OF_PART = tuple(name for name in FIGURES if name.partition(".")[0] in OF_PARTS)
"""Which of them parts of a mix have, too."""
UNSET = "unset"
"""What a setting is that only one of the files has; its default, mostly."""
ASIDE = ("name", "expect", "remarks", "variants", "allocators")
"""Keys of a workload that change nothing in a run; allocators go by their labels."""
SOME = "mean latencies are of the requests that have them on both sides"
"""What is to be said where others were refused on one side, or did not finish."""


@dataclass(frozen=True)
class Difference:
    """One figure of one allocator in both directories."""

    label: str
    name: str
    first: float
    second: float
    change: Interval
    """`second - first`; infinite bounds where nothing independent was repeated."""
    basis: str
    """What the interval stands on: "replications" in pairs, "draws" that are not in pairs, "requests" or ""."""

    @property
    def percent(self) -> float:
        """Relative change in per cent; NaN from 0."""
        return 100 * (self.second - self.first) / abs(self.first) if self.first else float("nan")

    def worse(self, threshold: float) -> bool:
        """Whether the figure got worse by more than `threshold` per cent, and not by chance if that is known."""
        step = (self.second - self.first) * FIGURES[self.name]
        large = step < 0 and (abs(self.percent) > threshold or math.isnan(self.percent))
        return large and (not self.basis or self.change.clear)


@dataclass(frozen=True)
class Setting:
    """One key of the workload file that the two runs do not share."""

    key: str
    first: Any
    second: Any


@dataclass(frozen=True)
class Comparison:
    """All differences, the settings they may come from, and what stands on one side only."""

    first: RunDirectory
    second: RunDirectory
    settings: list[Setting]
    differences: list[Difference]
    notes: list[str]
    against: str = ""
    """The allocator that all others of one directory are held against; empty if two directories are compared."""

    @property
    def title(self) -> str:
        """What is compared."""
        if self.against:
            return f"{self.first.path}: {self.against} → each of the others"
        return f"{self.first.path} → {self.second.path}"

    def regressions(self, threshold: float) -> list[Difference]:
        """Figures that got worse by more than `threshold` per cent."""
        return [change for change in self.differences if change.worse(threshold)]

    def document(self) -> dict[str, Any]:
        """The comparison as one JSON document."""
        rows = [
            {
                "allocator": one.label,
                "metric": one.name,
                "first": one.first,
                "second": one.second,
                "difference": one.change.value,
                "low": one.change.low if one.basis else None,
                "high": one.change.high if one.basis else None,
                "basis": one.basis or None,
            }
            for one in self.differences
        ]
        return {
            "schema": 1,
            "first": str(self.first.path),
            "second": str(self.second.path),
            "against": self.against or None,
            "settings": [asdict(setting) for setting in self.settings],
            "rows": rows,
            "notes": self.notes,
        }


def compare(first: str | Path, second: str | Path) -> Comparison:
    """Match the runs of two directories by label.

    Raises:
        RunDirectoryError: one of them is not a run directory, or they have no label in common.

    """
    one, two = open_directory(first), open_directory(second)
    mine, theirs = allocators_of(one, two)
    notes = [f"{label}: only in {one.path}" for label in mine if label not in theirs]
    notes += [f"{label}: only in {two.path}" for label in theirs if label not in mine]
    differences: list[Difference] = []
    drawn_apart = left_out = False
    alike: dict[str, None] = {}
    for label in (label for label in mine if label in theirs):
        pairs = list(pairs_of(one, two, label))
        paired = same_requests(pairs)
        drawn_apart |= not paired
        before, after = mine[label], theirs[label]
        if paired:
            left_out |= len(pairs) < max(len(before.entries), len(after.entries))
            both = {pair.first.repeat for pair in pairs}
            before, after = before.only(both), after.only(both)
        same = [part.label for part in before.parts if paired or same_requests(pairs, part.label)]
        notes += _left_aside(label, pairs, [""] if paired else same)
        differences += _differences(label, before, after, pairs, ["", *same] if paired else same)
        alike |= {} if paired else dict.fromkeys(same)
    if drawn_apart:
        but = f" (but for those of {', '.join(alike)})" if alike else ""
        notes.append(
            f"The two directories did not serve the same requests{but}: differences include that of the draws."
        )
    if left_out:
        notes.append("Only replications that both directories have are compared.")
    return Comparison(one, two, _settings(one, two), differences, notes)


def compare_allocators(directory: str | Path, against: str | None = None) -> Comparison:
    """Hold the allocators of one run directory, which served the same requests, against one of them.

    Args:
        directory: a run directory.
        against: label of that one; the first of the file if None.

    Raises:
        RunDirectoryError: it is not a run directory, or has no allocator of that label, or no other.

    """
    opened = open_directory(directory)
    allocators, base = allocators_of_one(opened, against)
    found: list[Difference] = []
    notes: list[str] = []
    for label, other in allocators.items():
        if label == base:
            continue
        pairs = list(pairs_of(opened, opened, base, label))
        both = {pair.first.repeat for pair in pairs}
        sides = allocators[base].only(both), other.only(both)
        notes += _left_aside(label, pairs, [""])
        found += _differences(label, *sides, pairs, ["", *(part.label for part in sides[0].parts)])
    return Comparison(opened, opened, [], found, notes, base)


def _settings(one: RunDirectory, two: RunDirectory) -> list[Setting]:
    """Find what differs in the workload files; of allocators only those that both directories have."""
    first, second = (_configured(each) for each in (one, two))
    both = first["allocators"].keys() & second["allocators"].keys()
    for each in (first, second):
        each["allocators"] = {label: spec for label, spec in each["allocators"].items() if label in both}
    mine, theirs = (dict(_flat(each)) for each in (first, second))
    pairs = [Setting(key, mine.get(key, UNSET), theirs.get(key, UNSET)) for key in mine | theirs]
    return [pair for pair in pairs if pair.first != pair.second]


def _configured(directory: RunDirectory) -> dict[str, Any]:
    """Return the workload as it was run, its allocators by label, and the version that ran it."""
    manifest = directory.manifest
    workload = manifest.get("workload") or {}
    labels = dict.fromkeys(run.label for run in directory.runs)
    return {
        "kvsim": manifest.get("kvsim"),
        **{key: value for key, value in workload.items() if key not in ASIDE},
        "allocators": dict(zip(labels, workload.get("allocators") or (), strict=False)),
    }


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what a mapping of mappings holds, by dotted keys as `--set` takes them; lists are values, but of parts."""
    for key, value in tree.items():
        if key == "mix" and isinstance(value, list):
            value = {str(part.get("name")): part for part in value}  # noqa: PLW2901 - the same, by name
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield above + key, value


def _left_aside(label: str, pairs: list[Pair], parts: list[str]) -> list[str]:
    """Say so if mean latencies that are compared, of the whole or of parts, are not of all requests."""
    return [f"{_called(label, part)}: {SOME}" for part in parts if any(pair.common(part).lacks_some for pair in pairs)]


def _called(label: str, part: str) -> str:
    return f"{label}, {part}" if part else label


def _differences(
    label: str, one: Allocator, two: Allocator, pairs: list[Pair], same: list[str]
) -> Iterator[Difference]:
    """Yield the differences of two allocators, and then of each part of a mix that both served.

    Args:
        label: what they are called.
        one: the first.
        two: the second.
        pairs: their runs.
        same: parts of which these served the same requests; "" if all of them are the same.

    """
    both, theirs = {pair.first.repeat for pair in pairs}, {part.label: part for part in two.parts}
    sides = [("", one, two)] + [(part.label, part, theirs[part.label]) for part in one.parts if part.label in theirs]
    for part, before, after in sides:
        paired = part in same
        ends = (before.only(both), after.only(both)) if paired else (before, after)
        for figure in OF_PART if part else FIGURES:
            row = _difference(*ends, figure, pairs if paired else [], part)
            if row is not None:
                yield replace(row, label=_called(label, part))


def _difference(one: Allocator, two: Allocator, name: str, pairs: list[Pair], part: str) -> Difference | None:
    first, second = one.mean(name), two.mean(name)
    if math.isnan(first) or math.isnan(second) or (not FIGURES[name] and not first and not second):
        return None
    none = Interval(second - first, -math.inf, math.inf, min(len(one.entries), len(two.entries)))
    metric = next((metric for metric in PER_REQUEST if metric.__name__ == name), None)
    if len(pairs) > 1:
        mine, theirs = means_of_both(pairs, name, part) if metric else both_known(one, two, name)
        if len(mine):  # an interval takes two of them
            change, basis = stats.paired_difference(mine, theirs), "replications" if len(mine) > 1 else ""
            return Difference(one.label, name, float(mine.mean()), float(theirs.mean()), change, basis)
    if len(pairs) == 1 and metric is not None:
        before, after = pairs[0].both_have(metric, part)
        if len(before) > 1:  # of one that was refused on one side there is no difference
            apart = after - before
            (low, high), _ = stats.bootstrap(apart, ())
            change = Interval(float(apart.mean()), low, high, len(apart))
            return Difference(one.label, name, float(before.mean()), float(after.mean()), change, "requests")
    if not pairs and none.n > 1:
        before, after = (side.values(name) for side in (one, two))
        change = stats.unpaired_difference(before[~np.isnan(before)], after[~np.isnan(after)])
        if math.isfinite(change.low):
            return Difference(one.label, name, first, second, change, "draws")
    return Difference(one.label, name, first, second, none, "")
