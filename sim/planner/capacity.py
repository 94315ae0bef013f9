"""The highest rate that an allocator sustains: bisection on a lattice of rates, one search per replication.

A rate is sustained if the run keeps up with its arrivals (`analysis.planner.observe.load`) and meets every
objective.  A replication has the same random numbers at every rate and for every allocator, so a higher
rate means the same requests at shorter intervals, and the capacities of two allocators can be compared
replication by replication.  Every search starts at the rate of the file, doubles or halves it until a rate
is sustained and twice that rate is not, and then bisects.  Afterwards, each allocator is run at rates around
its capacity, for the curve.

All searches advance together, so that each round is a batch of independent jobs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from analysis.figures import GOODPUT
from analysis.planner.capacities import FAILED, summarise
from analysis.planner.effects import share
from analysis.planner.rows import row
from sim.errors import UserError
from sim.planner.execute import JobRunner
from sim.planner.rates import Rate, rate_of, together
from sim.planner.slo import shortfall
from sim.planner.source import Source
from sim.planner.store import Store
from sim.planner.sweep import failures
from sim.planner.vary import Axis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from sim.planner.backends import Backend
    from sim.planner.execute import BatchProgress
    from sim.planner.grid import Base, Point
    from sim.planner.job import Job, Record
    from sim.planner.slo import Objective

FARTHEST = 10
"""Doublings and halvings from the file's own rate."""
PRECISION = 0.02
CURVE = tuple(Fraction(step, 4) for step in (-8, -4, -2, -1, 0, 1, 2))
"""Rates of the curve around the capacity, in octaves: a quarter of it to 1.4 times."""


@dataclass
class Search:
    """The search of one allocator at one point in one replication; exponents of two, times the file's rate."""

    point: int
    place: int
    repeat: int
    levels: int
    """Halvings of the last octave."""
    low: Fraction | None = None
    """Highest rate that is known to be sustained."""
    high: Fraction | None = None
    """Lowest one above it that is known not to be."""
    why: str = ""
    """What broke at `high`, or why there is no answer."""
    missed: dict[str, float] = field(default_factory=dict)
    """If goodput did, what share of the requests is over each limit within it, at `high`."""
    tried: dict[Fraction, Record] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether a run could not be done."""
        return self.why.startswith(FAILED)

    @property
    def next(self) -> Fraction | None:
        """The rate to try next; None if the search is over."""
        low, high = self.low, self.high
        if self.failed:
            return None
        if low is None:
            if high is None:
                return Fraction(0)
            return high - 1 if high > -FARTHEST else None
        if high is None:
            return low + 1 if low < FARTHEST else None
        return (low + high) / 2 if high - low > Fraction(1, 2**self.levels) else None

    def learn(self, exponent: Fraction, record: Record, aims: Sequence[Objective]) -> None:
        """Take in what a run at a rate has shown."""
        self.tried[exponent] = record
        short_of = shortfall(record, aims)
        if why := short_of["limited_by"]:
            self.high, self.why, self.missed = exponent, why, short_of["missed"]
        else:
            self.low = exponent


def levels(precision: float) -> int:
    """Return how often an octave is halved until two rates differ by at most `precision`."""
    count = 0
    while 2.0 ** (1 / 2**count) - 1 > precision:
        count += 1
    return count


@dataclass
class Searching:
    """All searches of one command."""

    base: Base
    points: list[Point]
    rates: list[Rate]
    runner: JobRunner
    aims: Sequence[Objective]
    searches: list[Search]

    def job(self, search: Search, exponent: Fraction) -> Job:
        """Return the job of a search at a rate."""
        rate = self.rates[search.point]
        axis = Axis("rate", (rate.place,), ())
        workload = self.base.varied(dict(self.points[search.point].over) | {axis: rate.at(exponent)})
        return self.base.job(workload, search.place, search.repeat)

    def step(self, wanted: Iterable[tuple[Search, Fraction]]) -> None:
        """Run some rates of some searches and let them learn."""
        asked = [(search, exponent, self.job(search, exponent)) for search, exponent in wanted]
        records = self.runner.records(job for _, _, job in asked)
        for search, exponent, job in asked:
            if job.key in records:
                search.learn(exponent, records[job.key], self.aims)
            else:
                search.why = f"{FAILED}{self.runner.failures[job.key].why}"

    def bisect(self) -> None:
        """Take all searches to their end."""
        while open_ := [(search, at) for search in self.searches if (at := search.next) is not None]:
            self.step(open_)

    def curves(self) -> None:
        """Run every allocator at the rates around what it sustains, the same rates in all its replications."""
        wanted = []
        for group in self.grouped():
            found = [search.low for search in group if search.low is not None]
            if not found:
                continue
            middle = Fraction(round(4 * sum(found) / len(found)), 4)
            for search in group:
                wanted += [(search, at) for step in CURVE if (at := middle + step) not in search.tried]
        records = self.runner.records(self.job(search, at) for search, at in wanted)
        for search, at in wanted:
            if (key := self.job(search, at).key) in records:
                search.tried[at] = records[key]

    def grouped(self) -> list[list[Search]]:
        """Return the replications of each point and allocator."""
        found: dict[tuple[int, int], list[Search]] = {}
        for search in self.searches:
            found.setdefault((search.point, search.place), []).append(search)
        return list(found.values())


def capacity(
    base: Base,
    over: Sequence[Axis],
    aims: Sequence[Objective],
    out: Path,
    backend: Backend,
    *,
    repeats: int = 3,
    demand: float | None = None,
    part: str = "",
    precision: float = PRECISION,
    curves: bool = True,
    resume: bool = False,
    force: bool = False,
    progress: Callable[[BatchProgress], None] | None = None,
) -> dict[str, Any]:
    """Find what each allocator sustains, and write the directory.

    Args:
        base: the workload; its rate is where the search starts.
        over: what is varied besides the rate.
        aims: what a sustained run holds.
        out: the directory.
        backend: where jobs are done.
        repeats: replications, as far as they differ; an interval needs at least 2.
        demand: a rate to be served; the answers then say how many GPUs that takes.
        part: name of the part of a mix whose rate alone is searched for; all parts together if empty.
        precision: the answer lies between two rates that differ by at most this share.
        curves: whether each allocator is also run at rates around what it sustains.
        resume: keep finished simulations of the same workload.
        force: results of something else in `out` give way.
        progress: called after every simulation.

    Returns:
        the summary.

    Raises:
        UserError: the workload has no rate, or it is varied; `out` holds something else, or nothing could be run.
        WorkloadError: a point is at fault.

    """
    points = list(base.points(over))
    base.demand(points)
    rates = [rate_of(point.workload, base.traces, part) for point in points]
    for axis in over:
        if rates[0].place in axis.places:
            raise UserError(f"--vary {axis.key}: this is the rate that is searched for; vary something else")
    source = Source.of(base.workload, base.traces)
    repeats = source.replications(repeats)
    asked = {
        "vary": [axis.document for axis in over],
        "slo": [one.text for one in aims],
        "unit": rates[0].unit,  # which names the part, if it is of one
    }
    with Store(out, "capacity", base.workload, asked, resume=resume, force=force) as store:
        searches = [
            Search(point, place, repeat, levels(precision))
            for point in range(len(points))
            for place in range(len(base.labels))
            for repeat in range(repeats)
        ]
        at_work = Searching(base, points, rates, JobRunner(store, backend, progress, searches=True), aims, searches)
        at_work.bisect()
        if curves:
            at_work.curves()
        rows = [_row(at_work, search, exponent) for search in searches for exponent in sorted(search.tried)]
        failed = failures(
            (one.point, points[one.point].settings, base.labels[one.place], one.repeat, one.why.removeprefix(FAILED))
            for one in searches
            if one.failed
        )
        if not rows:
            raise UserError(f"every search failed; the first: {failed[0]['why']}")
        summary = summarise(
            rows,
            [_answer(at_work, group) for group in at_work.grouped()],
            [one.document for one in aims],
            rates[0].unit,
            failed,
            demand,
        ) | {"drawn": source.drawn, "different": source.different}
        store.answer(rows, summary)
        return summary


def _row(at_work: Searching, search: Search, exponent: Fraction) -> dict[str, Any]:
    """Flatten one run of a search; `rate` is in the unit of the summary."""
    point, record = at_work.points[search.point], search.tried[exponent]
    settings = {**point.settings, "rate": at_work.rates[search.point].shown(exponent)}
    flat = row(search.point, settings, at_work.base.labels[search.place], search.repeat, record)
    met = all(one.met(record) for one in at_work.aims)
    return {**flat, GOODPUT: share(record), "sustained": met and record["load"]["kept_up"]}


def _answer(at_work: Searching, group: Sequence[Search]) -> dict[str, Any]:
    """What the replications of one point and allocator have found."""
    first = group[0]
    rate = at_work.rates[first.point]
    ran = next((at_work.job(one, one.low) for one in group if one.low is not None), None)
    return {
        "point": first.point,
        "settings": dict(at_work.points[first.point].settings),
        "allocator": at_work.base.labels[first.place],
        "gpus": at_work.points[first.point].workload.model.tensor_parallel,
        "together": None if ran is None else together(ran.workload, ran.traces, ran.repeat),
        "searches": [
            {
                "repeat": one.repeat,
                "sustained": None if one.low is None else rate.shown(one.low),
                "not_sustained": None if one.high is None else rate.shown(one.high),
                "limited_by": one.why,
                "missed": {} if one.failed else one.missed,
            }
            for one in group
        ],
    }
