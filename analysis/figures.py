"""Looking up a figure of an allocator by name, over all its replications.

Names are those of summary.json with dots: `batch_size` (its mean), `batch_size.peak`, `ttft_s.p99`,
`steady.batch_size`.  `share.live` and `steady.share.live` are percentages of the pool, and
`share.external+rounding` is the sum of two; `sustained_rps` exists if it was searched for;
`part.chat.ttft_s.p99` is of one part of a mix, and so is `part.chat.goodput`, a share.  Tables,
comparisons, the report and the lines of published figures all use this.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from analysis.metrics import blocked_by, cost_per_million_output_tokens, itl_s
from analysis.numbers import short
from analysis.observed import CAUSES, SHARES
from analysis.saturation import Verdict, worst
from analysis.shapes import NUMBER
from analysis.stats import Interval, paired_ratio, t_interval
from analysis.summary import ENTRY, PART

Entry = Mapping[str, Any]
SUSTAINED = "sustained_rps"
"""The rate of arrivals at which the mean normalized latency reaches the limit that the workload sets."""
COST = cost_per_million_output_tokens.__name__
"""Runs that were summed up before there were prices lack it."""
NEWER = (COST, itl_s.__name__)
"""What earlier runs lack: the latter of the parts of a mix only."""
OF_PARTS = tuple(name.removesuffix("?") for name in PART)
"""Metrics that parts of a mix have."""
GOODPUT = "goodput"
"""The share of requests that are within the SLO: of a part of a mix, and as an objective."""
BLOCKED = blocked_by.__name__
"""By cause; those that did not occur are 0."""


class Figure(NamedTuple):
    """A figure as it is shown."""

    name: str
    """In summary.json."""
    title: str
    unit: str
    scale: float
    """By how much a value is multiplied to be in that unit."""


def figure(entry: Entry, name: str) -> float:
    """Look one figure up in an entry of summary.json; NaN if the run has none.

    Raises:
        KeyError: no metric has that name.

    """
    head, _, rest = name.partition(".")
    if head == "part":
        part, _, rest = rest.partition(".")
        return within_slo(of_part(entry, part)) if rest == GOODPUT else figure(of_part(entry, part), rest)
    if head == "steady":
        steady = entry.get("steady")
        return _share(steady["ledger"], rest) if steady and rest.startswith("share.") else _number(steady, rest)
    if head == "share":
        return _share(entry["ledger"]["mean"], name)
    if head == "peak":
        return _number(entry["ledger"]["peak"], rest)
    return _number(entry.get("sustained"), "rps") if head == SUSTAINED else _metric(entry["metrics"], head, rest)


def _metric(metrics: Mapping[str, Any], name: str, rest: str) -> float:
    """Look a metric up, or what `rest` says of it."""
    value: Any = metrics.get(name) if name in NEWER else metrics[name]
    if name == BLOCKED:
        return float(value.get(rest, 0.0))
    return _number(value, rest or "mean") if isinstance(value, Mapping) else _number({"": value}, "")


def within_slo(entry: Entry) -> float:
    """Requests of an entry that finished within the SLO / all of them; NaN without either."""
    total = entry["requests"]["total"]
    return figure(entry, "goodput_rps") * float(entry["duration_s"]) / total if total else float("nan")


def of_part(entry: Entry, name: str) -> Entry:
    """Return the entry of one part of a mix: its requests and what is measured of them, and all else as of the run."""
    return {**entry, **entry["parts"][name]}


def is_figure(name: str) -> bool:
    """Whether runs have a figure of that name."""
    head, dot, rest = name.partition(".")
    if head == "part":
        of = rest.partition(".")[2]
        return of == GOODPUT or (of.partition(".")[0] in OF_PARTS and is_figure(of))
    if head == "steady" and rest.startswith("share."):
        return is_figure(rest)
    if head == "share":
        return all(share in SHARES for share in rest.split("+"))
    return rest in parts(head) or (not dot and "mean" in parts(head))


def parts(head: str) -> list[str]:
    """List what may stand behind the first dot of a figure's name, such as the `p99` of `ttft_s.p99`; "" is nothing.

    Of what is no figure it is the empty list.  (Shares can be added up, so they are not listed.)
    """
    if head == SUSTAINED:
        return [""]
    shapes: dict[str, Any] = {
        "peak": ENTRY["ledger"]["peak"],
        "steady": dict.fromkeys(("batch_size", "throughput_rps"), NUMBER),
        **{name.removesuffix("?"): shape for name, shape in ENTRY["metrics"].items()},
        BLOCKED: dict.fromkeys(CAUSES, NUMBER),
    }
    if head not in shapes:
        return []
    shape = shapes[head]
    return [part for part, one in shape.items() if not isinstance(one, Mapping)] if isinstance(shape, Mapping) else [""]


def _share(shares: Mapping[str, float | None], name: str) -> float:
    total = sum(_number(shares, key) for key in shares if key not in ("shared_savings", "swapped"))
    wanted = sum(_number(shares, key) for key in name.removeprefix("share.").split("+"))
    return 100 * wanted / total if total else float("nan")


def _number(values: Mapping[str, Any] | None, key: str) -> float:
    if values is None:
        return float("nan")
    value = values[key]
    return float("nan") if value is None else float(value)


class Allocator(NamedTuple):
    """All replications of one allocator of a workload."""

    label: str
    entries: Sequence[Entry]

    def only(self, repeats: Collection[int]) -> Allocator:
        """Of its replications those with one of these numbers."""
        return Allocator(self.label, [entry for entry in self.entries if entry.get("repeat", 0) in repeats])

    @property
    def kind(self) -> str:
        """Kind of the allocator."""
        return str(self.entries[0]["kind"])

    @property
    def scheduler(self) -> str:
        """Scheduler it ran under."""
        return str(self.entries[0]["scheduler"])

    @property
    def origin(self) -> str:
        """The directory it comes from, where several are shown together; else empty."""
        return str(self.entries[0].get("directory", ""))

    def values(self, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The figure of each replication."""
        return np.array([figure(entry, name) for entry in self.entries])

    def mean(self, name: str) -> float:
        """Mean of the figure over replications that have it; NaN if none has."""
        values = self.values(name)
        values = values[~np.isnan(values)]
        return float(values.mean()) if len(values) else float("nan")

    def interval(self, name: str) -> Interval:
        """Mean of the figure with its 95 % interval over replications."""
        values = self.values(name)
        return t_interval(values[~np.isnan(values)])

    def count(self, name: str) -> int:
        """Requests of that status over all replications."""
        return sum(int(entry["requests"][name]) for entry in self.entries)

    @property
    def within_slo(self) -> float:
        """Share of all its requests that finished within the SLO, per cent; NaN without an SLO."""
        good = [within_slo(entry) for entry in self.entries if entry["requests"]["total"]]
        return 100 * float(np.mean(good)) if good else float("nan")

    @property
    def cut(self) -> int:
        """Finished requests whose output ended early, at the model's context."""
        return sum(int(entry["requests"].get("cut", 0)) for entry in self.entries)

    @property
    def offered(self) -> float:
        """Requests that arrive a second, refused ones included; NaN if all arrive at once."""
        rates = [entry["requests"].get("offered_rps") for entry in self.entries]
        return float(np.mean(rates)) if None not in rates else float("nan")

    @property
    def refusals(self) -> dict[str, int]:
        """Refused requests by reason, over all replications."""
        total: dict[str, int] = {}
        for entry in self.entries:
            for reason, number in entry["requests"]["refusals"].items():
                total[reason] = total.get(reason, 0) + number
        return total

    @property
    def parts(self) -> list[Allocator]:
        """Each part of a mix by itself, called like it; none if there is no mix."""
        names = dict.fromkeys(name for entry in self.entries for name in entry.get("parts") or ())
        return [Allocator(name, [of_part(entry, name) for entry in self.entries]) for name in names]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all replications."""
        return worst(Verdict(entry["verdict"]) for entry in self.entries)


def group(entries: Iterable[Entry]) -> list[Allocator]:
    """Gather the entries of summary.json by allocator, in their order."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(str(entry["allocator"]), []).append(entry)
    return [Allocator(label, runs) for label, runs in found.items()]


def offered(allocators: Sequence[Allocator]) -> str:
    """Say what requests a second are of, and how many come: a run that waits for its last one finishes fewer.

    Nothing where not as many come to each, as in a closed loop, in which they come as fast as they are served.
    """
    rates = {short(one.offered) for one in allocators if np.isfinite(one.offered)}
    if len(rates) != 1:
        return ""
    until = "" if any(one.count("unfinished") for one in allocators) else ", until the last is done"
    return f"finished, over the whole run{until}; {rates.pop()} arrive a second"


def bound(allocators: Iterable[Allocator], of: Allocator | None = None) -> Allocator | None:
    """Find the ideal allocator, of which the figures of others are given as a percentage.

    Where several directories are shown together, each with a pool and requests of its own, that of the directory `of`
    comes from.
    """
    ideals = (one for one in allocators if one.kind == "ideal")
    return next((one for one in ideals if of is None or one.origin == of.origin), None)


def percent_of(one: Allocator, other: Allocator | None, name: str) -> float:
    """The figure of one allocator as a percentage of another's; NaN without the other."""
    base = other.mean(name) if other else float("nan")
    return 100 * one.mean(name) / base if base else float("nan")


def ratio(first: Allocator, second: Allocator, name: str) -> Interval:
    """Paired ratio `second / first` over the replications both have, where both are positive."""
    one, two = both_known(first, second, name)
    positive = (one > 0) & (two > 0)
    return paired_ratio(one[positive], two[positive])


def both_known(first: Allocator, second: Allocator, name: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return a figure of the replications that have it on both sides, of the one and of the other."""
    mine = {entry.get("repeat", 0): figure(entry, name) for entry in first.entries}
    theirs = {entry.get("repeat", 0): figure(entry, name) for entry in second.entries}
    both = [repeat for repeat in mine if repeat in theirs and not np.isnan(mine[repeat] + theirs[repeat])]
    return np.array([mine[repeat] for repeat in both]), np.array([theirs[repeat] for repeat in both])
