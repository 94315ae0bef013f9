"""Tries settings of one allocator on the same requests and compares them with the file as it is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from analysis.figures import GOODPUT
from analysis.planner.effects import Effect, effect, mean, share
from analysis.planner.rows import row
from sim.errors import UserError
from sim.planner.slo import shortfall
from sim.setup import prepare
from workloads.errors import WorkloadError, lines_of
from workloads.slo import Slo
from workloads.source import without_own_slo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.planner.execute import JobRunner
    from sim.planner.grid import Base
    from sim.planner.job import Failed, Job, Record
    from sim.planner.knobs import Change
    from sim.planner.slo import Objective
    from sim.planner.source import Source
    from workloads.schema import Workload


class Tried(NamedTuple):
    """A setting and what its replications gave."""

    changes: tuple[Change, ...]
    records: list[Record]
    against: Effect
    """Compared with the file as it is."""


class Adviser:
    """One question and what has been tried for it."""

    def __init__(
        self,
        base: Base,
        place: int,
        aims: Sequence[Objective],
        runner: JobRunner,
        source: Source,
        repeats: int,
        budget: int,
    ) -> None:
        """Ask about the allocator at `place`."""
        self.base, self.place, self.aims, self.runner = base, place, aims, runner
        self.limits = _as_slo(aims)
        self.source = source
        self.repeats = repeats
        self.left = budget
        self.rows: list[dict[str, Any]] = []
        self.before: list[Record] = []
        """What the file gives as it is."""

    def workload(self, some: Sequence[Change]) -> Workload:
        """Return the file with these changes, and with the objectives as limits of its requests."""
        workload = self.base.varied({change.axis: change.after for change in some})
        if self.limits is None:
            return workload
        return workload.model_copy(update={"slo": self.limits, "requests": without_own_slo(workload.requests)})

    def jobs(self, some: Sequence[Change], begin: int = 0) -> list[Job]:
        """Make the jobs of a setting's replications, from number `begin` on.

        The first one of the file as it is also says what limits it.
        """
        workload = self.workload(some)
        jobs = [self.base.job(workload, self.place, begin + repeat) for repeat in range(self.repeats)]
        return jobs if some or begin else [replace(jobs[0], limits=True), *jobs[1:]]

    @property
    def confirming(self) -> int:
        """Simulations that it takes to measure a choice on replications that had no part in it; 0 if there are none."""
        others = self.source.replications(2 * self.repeats) == 2 * self.repeats
        return 2 * self.repeats if others and self.repeats > 1 else 0

    def possible(self, alone: Sequence[Change]) -> tuple[list[Change], list[str]]:
        """Tell changes that the workload can have from others, and why it cannot have those; nothing is simulated."""
        found, never = [], []
        for change in alone:
            try:
                prepare(self.workload((change,)))
            except (UserError, WorkloadError) as error:
                never.append(f"{change.text}: {lines_of(error)[0]}")
            else:
                found.append(change)
        return found, never

    def run(self, settings: Sequence[Sequence[Change]], begin: int = 0) -> list[list[Record] | None]:
        """Run settings; None for one that cannot run."""
        jobs = [self.jobs(some, begin) for some in settings]
        records = self.runner.records(job for some in jobs for job in some)
        self.left -= sum(map(len, jobs))
        done: list[list[Record] | None] = []
        for some, mine in zip(settings, jobs, strict=True):
            found = [records[job.key] for job in mine if job.key in records]
            done.append(found if len(found) == len(mine) else None)
            said = " and ".join(change.text for change in some) or "as it is"
            for repeat, record in enumerate(found):
                label = self.base.labels[self.place]
                self.rows.append(row(len(self.rows), {"change": said}, label, begin + repeat, record))
        return done

    def begin(self) -> None:
        """Run the file as it is.

        Raises:
            UserError: it cannot run.

        """
        (before,) = self.run([()])
        if before is None:
            raise UserError(self.failure(()).why)
        self.before = before

    def tried(self, some: tuple[Change, ...], records: list[Record]) -> Tried:
        """Compare a setting with the file as it is."""
        return Tried(some, records, effect(self.before, records))

    def each(self, alone: Sequence[Change]) -> tuple[list[Tried], list[tuple[Change, Failed]]]:
        """Try changes one by one; returns those that run, and the others with what is wrong with them."""
        done = list(zip(alone, self.run([(change,) for change in alone]), strict=True))
        tried = [self.tried((change,), records) for change, records in done if records is not None]
        return tried, [(change, self.failure((change,))) for change, records in done if records is None]

    def failure(self, some: Sequence[Change]) -> Failed:
        """Say why a setting cannot run."""
        failed = (self.runner.failures.get(job.key) for job in self.jobs(some))
        return next(one for one in failed if one is not None)

    def meets(self, records: Sequence[Record]) -> bool:
        """Whether every objective holds in every replication, and none fell behind."""
        return not any(shortfall(record, self.aims)["limited_by"] for record in records)

    def score(self, tried: Tried) -> tuple[float, ...]:
        """Order settings: those within the SLO first, then by share of good requests, then by latency."""
        good, slow = (float(np.mean([of(record) for record in tried.records])) for of in (share, mean))
        return (float(self.meets(tried.records)), good, -slow)


def _as_slo(aims: Sequence[Objective]) -> Slo | None:
    """Return limits for single requests that stand for the objectives; None where those of the file count, of goodput.

    Of a figure with several objectives the highest limit stands for all.
    """
    if any(one.name == GOODPUT for one in aims):
        return None
    named: dict[str, float] = {}
    for one in aims:
        head = one.name.partition(".")[0]
        named[head] = max(one.limit, named.get(head, 0.0))
    return Slo(**named) if named else None
