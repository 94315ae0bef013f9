"""Which settings to change: every single change, then the best ones together, within a budget.

First the file as it is, and a run of it that says what limits it.  Then each change by itself,
on the same requests, so that what it buys has a paired interval.  Then the changes that are
clearly better are put together, best first, each kept only if it clearly adds something.  What
was chosen among many looks better than it is; where requests are drawn, the choice is
therefore measured once more, on replications that had no part in it.

The budget counts simulations, so that an answer does not depend on how fast the machine is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from analysis.planner.advising import bound
from analysis.planner.effects import Effect, effect, mean, share
from analysis.planner.reading import SCHEMA_VERSION
from analysis.planner.rows import row
from analysis.planner.sweeps import bounds
from analysis.stats import t_interval
from sim.errors import UserError
from sim.planner.execute import Executor
from sim.planner.knobs import Change, changes, hardware
from sim.planner.limits import limits
from sim.planner.store import Store
from sim.planner.sweep import write_rows
from sim.rundir import write_json
from sim.setup import prepare
from workloads.generate import requests as make_requests
from workloads.schema import Slo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sim.planner.backends import Backend
    from sim.planner.execute import Step
    from sim.planner.grid import Base
    from sim.planner.job import Job, Record
    from sim.planner.slo import Objective
    from workloads.schema import Workload

BUDGET = 100
LEAST = 3
"""Changes that a budget must have room for."""


class Tried(NamedTuple):
    """A setting and what its replications gave."""

    changes: tuple[Change, ...]
    records: list[Record]
    against: Effect
    """Compared with the file as it is."""


class Source(NamedTuple):
    """What the requests of a workload are like."""

    drawn: bool
    """Whether replications differ: a trace is the same every time."""
    shared: bool
    """Whether prompts may begin alike."""

    @classmethod
    def of(cls, workload: Workload) -> Self:
        """Look at two replications."""
        first, second = (make_requests(workload, repeat) for repeat in (0, 1))
        alike = np.array_equal(first.arrival_s, second.arrival_s) and np.array_equal(
            first.prompt_tokens, second.prompt_tokens
        )
        return cls(not alike, first.prefixes is not None)


class Adviser:
    """One question and what has been tried for it."""

    def __init__(
        self,
        base: Base,
        place: int,
        aims: Sequence[Objective],
        executor: Executor,
        source: Source,
        repeats: int,
        budget: int,
    ) -> None:
        """Ask about the allocator at `place`."""
        self.base, self.place, self.aims, self.executor = base, place, aims, executor
        self.limits = _as_slo(aims)
        self.source = source
        self.repeats = repeats
        self.left = budget
        self.tried: list[Tried] = []
        self.rows: list[dict[str, Any]] = []

    def workload(self, some: Sequence[Change]) -> Workload:
        """Return the file with these changes, and with the objectives as limits of its requests."""
        workload = self.base.varied({change.axis: change.after for change in some})
        return workload.model_copy(update={"slo": self.limits or workload.slo})

    def jobs(self, some: Sequence[Change], begin: int = 0) -> list[Job]:
        """Make the jobs of a setting's replications, from number `begin` on."""
        workload = self.workload(some)
        return [self.base.job(workload, self.place, begin + repeat) for repeat in range(self.repeats)]

    def run(self, settings: Sequence[Sequence[Change]], begin: int = 0) -> list[list[Record] | None]:
        """Run settings; None for one that cannot run."""
        jobs = [self.jobs(some, begin) for some in settings]
        records = self.executor.records(job for some in jobs for job in some)
        self.left -= sum(map(len, jobs))
        done: list[list[Record] | None] = []
        for some, mine in zip(settings, jobs, strict=True):
            found = [records[job.key] for job in mine if job.key in records]
            done.append(found if len(found) == len(mine) else None)
            said = " and ".join(change.text for change in some) or "as it is"
            for repeat, record in enumerate(found):
                marked = {**record, "entry": {**record["entry"], "repeat": begin + repeat}}
                self.rows.append(row(len(self.rows), {"change": said}, self.base.labels[self.place], marked))
        return done

    def failure(self, some: Sequence[Change]) -> str:
        """Say why a setting cannot run."""
        failed = (self.executor.failures.get(job.key) for job in self.jobs(some))
        return next((one.why for one in failed if one is not None), "")

    def meets(self, records: Sequence[Record]) -> bool:
        """Whether every objective holds in every replication, and none fell behind."""
        return all(one.met(record) for one in self.aims for record in records) and all(
            record["load"]["kept_up"] for record in records
        )

    def score(self, tried: Tried) -> tuple[float, ...]:
        """Order settings: those within the SLO first, then by share of good requests, then by latency."""
        good, slow = (float(np.mean([of(record) for record in tried.records])) for of in (share, mean))
        return (float(self.meets(tried.records)), good if self.limits or self.base.workload.slo else 0.0, -slow)


def _as_slo(aims: Sequence[Objective]) -> Slo | None:
    """Return limits for single requests that stand for the objectives; None where those are the file's own."""
    named = {one.name.partition(".")[0]: one.limit for one in aims if not one.more_is_better}
    return Slo(**named) if named else None


def advise(
    base: Base,
    place: int,
    aims: Sequence[Objective],
    out: Path,
    backend: Backend,
    *,
    repeats: int = 3,
    budget: int = BUDGET,
    resume: bool = False,
    progress: Callable[[Step], None] | None = None,
) -> dict[str, Any]:
    """Search the settings of one allocator, and write the directory.

    Args:
        base: the workload.
        place: which of its allocators.
        aims: the SLO; may be empty, then latency alone counts.
        out: the directory.
        backend: where jobs are done.
        repeats: replications of a workload that is drawn.
        budget: simulations at most.
        resume: keep finished simulations.
        progress: called after every simulation.

    Returns:
        the summary.

    Raises:
        UserError: the file cannot run, the budget is too small, or `out` holds something else.

    """
    setup, source = prepare(base.workload), Source.of(base.workload)
    repeats = repeats if source.drawn else 1
    if budget < (1 + LEAST) * repeats:
        raise UserError(f"--budget {budget}: give at least {(1 + LEAST) * repeats} simulations")
    store = Store(out, "advice", base.workload, resume=resume)
    store.describe({"vary": [], "slo": [one.text for one in aims], "allocator": base.labels[place], "budget": budget})
    ask = Adviser(base, place, aims, Executor(store, backend, progress), source, repeats, budget)
    (before,) = ask.run([()])
    if before is None:
        raise UserError(f"the file cannot run as it is: {ask.failure(())}")
    alone = ask.jobs(())[0].workload
    offered, left_out = changes(setup, place, shared=source.shared)
    what = limits(prepare(alone))
    unlike = [*_by_relevance(offered, bound(what)["name"])]
    machine = hardware(setup, place)
    room = ask.left // ask.repeats - len(machine)
    if len(unlike) > room:
        left_out += [f"{one.text}: beyond the budget" for one in unlike[max(room, 0) :]]
        unlike = unlike[: max(room, 0)]
    known = [(change,) for change in [*unlike, *machine]]
    done = ask.run(known)
    failed = [
        {"where": some[0].text, "why": ask.failure(some)}
        for some, records in zip(known, done, strict=True)
        if records is None
    ]
    tried = [
        Tried(some, records, effect(before, records))
        for some, records in zip(known, done, strict=True)
        if records is not None
    ]
    singles = [one for one in tried if one.changes[0] not in machine]
    best = _together(ask, Tried((), before, effect(before, before)), singles, before)
    summary = {
        "schema": SCHEMA_VERSION,
        "allocator": base.labels[place],
        "slo": [{"name": one.name, "limit": one.limit, "text": one.text} for one in aims],
        "own_slo": base.workload.slo.model_dump(exclude_none=True),
        "repeats": ask.repeats,
        "drawn": source.drawn,
        "basis": tried[0].against.basis if tried else "requests",
        "limits": what,
        "before": _told(ask, Tried((), before, effect(before, before))),
        "changes": [_told(ask, one) for one in singles],
        "hardware": [_told(ask, one) for one in tried if one.changes[0] in machine],
        "best": {**_told(ask, best), "confirmed": _confirm(ask, best)},
        "left_out": left_out,
        "failed": failed,
        "simulations": budget - ask.left,
        "budget": budget,
    }
    if ask.rows:
        write_rows(out, ask.rows)
    write_json(out / "summary.json", summary)
    return summary


FIRST = {
    "memory": ("kv_dtype", "gpu_memory_utilization", "block_size", "prefix_cache", "watermark", "preemption"),
    "seats": ("max_num_seqs",),
    "compute": ("max_num_batched_tokens", "prefix_cache"),
    "bandwidth": ("kv_dtype", "max_num_seqs"),
}
"""Knobs to try first where a budget is short, by what limits the workload."""


def _by_relevance(offered: Sequence[Change], limit: str) -> list[Change]:
    first = FIRST.get(limit, ())
    return sorted(offered, key=lambda change: first.index(change.knob) if change.knob in first else len(first))


def _together(ask: Adviser, start: Tried, singles: Sequence[Tried], before: list[Record]) -> Tried:
    """Put the changes that are clearly better together, best first, while each clearly adds something."""
    better = sorted((one for one in singles if one.against.tells == "better"), key=ask.score, reverse=True)
    best = start
    for one in better:
        if any(change.knob == one.changes[0].knob for change in best.changes):
            continue
        if not best.changes:
            best = one
            continue
        if ask.left < ask.repeats * (2 if ask.source.drawn else 1):
            break
        some = (*best.changes, *one.changes)
        (records,) = ask.run([some])
        if records is not None and effect(best.records, records).tells == "better":
            best = Tried(some, records, effect(before, records))
    return best


def _confirm(ask: Adviser, best: Tried) -> dict[str, Any] | None:
    """Measure the choice on replications that had no part in it; None where there are none, or nothing was chosen."""
    if not best.changes or not ask.source.drawn or ask.repeats < 2 or ask.left < 2 * ask.repeats:
        return None
    before, after = ask.run([(), best.changes], begin=ask.repeats)
    if before is None or after is None:
        return None
    return _effect(effect(before, after))


def _told(ask: Adviser, tried: Tried) -> dict[str, Any]:
    """A setting as JSON."""
    values = {
        "good": [share(record) for record in tried.records],
        "latency": [mean(record) for record in tried.records],
        **{one.name: [one.value(record) for record in tried.records] for one in ask.aims},
    }
    return {
        "change": " and ".join(change.text for change in tried.changes),
        "knobs": [change.knob for change in tried.changes],
        "settings": {".".join(map(str, change.axis.places[0])): change.after for change in tried.changes},
        "meets": ask.meets(tried.records),
        "kept_up": all(record["load"]["kept_up"] for record in tried.records),
        "figures": {name: bounds(t_interval(np.array(some))) for name, some in values.items()},
        "effect": _effect(tried.against),
    }


def _effect(of: Effect) -> dict[str, Any]:
    return {"good": _all(of.good), "latency": _all(of.latency), "tells": of.tells, "basis": of.basis}


def _all(interval: Any) -> dict[str, float | None]:
    """A difference as JSON; a block bootstrap counts batches, so its bounds always stand."""
    finite = np.isfinite([interval.low, interval.high]).all()
    return {
        "mean": float(interval.value) if np.isfinite(interval.value) else None,
        "low": float(interval.low) if finite else None,
        "high": float(interval.high) if finite else None,
    }
