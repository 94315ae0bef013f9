"""Running a grid: its points, their jobs, the table of all runs, and the summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from analysis.planner.rows import row
from analysis.planner.sweeps import summarise
from sim.errors import UserError
from sim.planner.execute import JobRunner
from sim.planner.sample import seconds_per_request
from sim.planner.source import Source
from sim.planner.store import Store
from sim.planner.vary import shown
from workloads.generate import requests as make_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from sim.planner.backends import Backend
    from sim.planner.execute import BatchProgress
    from sim.planner.grid import Base, Point
    from sim.planner.job import Job
    from sim.planner.vary import Axis
    from workloads.schema import Workload


class Cell(NamedTuple):
    """One point of a grid and its jobs."""

    number: int
    point: Point
    jobs: list[Job]
    different: int | None
    """How many of its replications differ, where more than one is wanted; None if as many as one likes."""


def cells(base: Base, over: Sequence[Axis]) -> list[Cell]:
    """Lay the grid out: replications as the workload says, and one of requests that are the same every time.

    Raises:
        UserError: what is varied is at fault, as `Base.demand` says.

    """
    points = list(base.points(over))
    base.demand(points)
    known: dict[str, Source] = {}

    def source(workload: Workload) -> Source | None:
        if workload.repeat == 1:
            return None
        requests = workload.requests.model_dump_json()
        if requests not in known:
            known[requests] = Source.of(workload, base.traces)
        return known[requests]

    grid = []
    for number, point in enumerate(points):
        found = source(point.workload)
        wanted = point.workload.repeat if found is None else found.replications(point.workload.repeat)
        different = None if found is None else found.different
        grid.append(Cell(number, point, base.jobs(point.workload, wanted), different))
    return grid


def sweep(
    base: Base,
    over: Sequence[Axis],
    out: Path,
    backend: Backend,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Callable[[BatchProgress], None] | None = None,
) -> dict[str, Any]:
    """Run a grid and write its directory; what is finished stays when this is interrupted.

    Args:
        base: the workload.
        over: what is varied.
        out: the directory.
        backend: where jobs are done.
        resume: keep finished cells of the same workload; a grid may have grown since.
        force: results of something else in `out` give way.
        progress: called after every simulation.

    Returns:
        the summary.

    Raises:
        UserError: `out` holds something else, or no cell could be run.

    """
    grid = cells(base, over)
    asked = {"vary": [axis.document for axis in over]}
    with Store(out, "sweep", base.workload, asked, resume=resume, force=force) as store:
        runner = JobRunner(store, backend, progress)
        records = runner.records(job for cell in grid for job in cell.jobs)
        rows = [
            row(cell.number, cell.point.settings, job.label, job.repeat, records[job.key])
            for cell in grid
            for job in cell.jobs
            if job.key in records
        ]
        failed = failures(
            (cell.number, cell.point.settings, job.label, job.repeat, runner.failures[job.key].why)
            for cell in grid
            for job in cell.jobs
            if job.key in runner.failures
        )
        if not rows:
            raise UserError(f"every cell failed; the first: {failed[0]['why']}")
        summary = summarise(rows, [axis.key for axis in over], failed)
        if any(cell.point.workload.repeat > 1 for cell in grid):
            summary["drawn"] = any(job.repeat for cell in grid for job in cell.jobs)
            bounds = [cell.different for cell in grid]
            summary["different"] = None if None in bounds else max(filter(None, bounds))
        store.answer(rows, summary)
        return summary


def failures(found: Iterable[tuple[int, Mapping[str, Any], str, int, str]]) -> list[dict[str, Any]]:
    """Say which simulations failed, and why; replications that failed for one reason together.

    Args:
        found: cell, settings, label of the allocator, replication from 0, and why, in that order.

    """
    alike: dict[tuple[int, str, str], tuple[Mapping[str, Any], list[int]]] = {}
    for cell, settings, label, repeat, why in found:
        alike.setdefault((cell, label, why), (settings, []))[1].append(repeat)
    told = []
    for (cell, label, why), (settings, repeats) in alike.items():
        number = ", ".join(str(repeat + 1) for repeat in repeats)
        of = f"replication{'s' if len(repeats) > 1 else ''} {number}"
        where = ", ".join(filter(None, [shown(settings), label, of]))
        told.append({"cell": cell, "settings": dict(settings), "allocator": label, "where": where, "why": why})
    return told


class Estimate(NamedTuple):
    """What a grid would cost."""

    cells: list[dict[str, Any]]
    """Number, settings, requests of each allocator, and seconds of one process."""
    jobs: int
    """Different simulations."""
    shared: int
    """Simulations that another point asks for too, and so are done once."""
    seconds: float
    """Of the whole grid on the backend's workers."""


def estimate(base: Base, over: Sequence[Axis], workers: int) -> Estimate:
    """Say what a grid would cost, from the first requests of each allocator at the first point.

    Allocators that queue more cost more, so it is an estimate and no promise.
    """
    grid = cells(base, over)
    seconds_per_request(grid[0].jobs[0])  # the first simulation of a process imports half of it
    pace: dict[str, float] = {}
    counts: dict[str, int] = {}
    told, seen, total, asked = [], set(), 0.0, 0
    for cell in grid:
        source = cell.point.workload.requests.model_dump_json()
        if source not in counts:
            counts[source] = len(make_requests(cell.point.workload, traces=base.traces))
        seconds = 0.0
        for job in cell.jobs:
            if job.label not in pace:
                pace[job.label] = seconds_per_request(job)
            asked += 1
            if job.key not in seen:
                seen.add(job.key)
                seconds += pace[job.label] * counts[source]
        total += seconds
        told.append(
            {
                "cell": cell.number,
                "settings": dict(cell.point.settings),
                "requests": counts[source],
                "simulations": len(cell.jobs),
                "seconds": round(seconds, 2),
            }
        )
    return Estimate(told, len(seen), asked - len(seen), total / max(1, min(workers, len(seen))))
