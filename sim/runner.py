"""Running a workload: every allocator and every replication, into one run directory.

Each run writes only its own folder, so runs are independent: an interrupted directory keeps the
runs that have finished (`sim.results.kept`), and `resume` does the others.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.documents import SCHEMA_VERSION, read_json
from analysis.errors import AGAIN, RunDirectoryError
from analysis.reading import RunDirectory
from analysis.slo import limits_of
from analysis.summary import SUSTAINED_RATE
from analysis.written import MANIFEST, SUMMARY, SUSTAINED, results_in
from sim.case import Case
from sim.files import digests
from sim.notes import alike, once, too_late
from sim.results.claims import earlier
from sim.results.folders import demand_folders, folder_of
from sim.results.kept import Kept, demand_same, take
from sim.results.listing import Listing
from sim.results.rundir import ParquetSink, alone, write_json
from sim.serve import Progress, serve
from sim.setup import Setup, prepare
from sim.sustained import Search
from sim.vain import caches_in_vain
from sim.versions import own, versions
from workloads.errors import NoArrivalError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sim.serve import Executing
    from workloads.published import Sustained
    from workloads.requests import Requests
    from workloads.schema import Workload

PACKAGES = ("numpy", "simpy", "pyarrow", "pydantic")


def run(
    workload: Workload,
    out: str | Path,
    *,
    base: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    resume: bool = False,
    force: bool = False,
    executing: Executing | None = None,
    facts: Mapping[str, Any] | None = None,
) -> RunDirectory:
    """Run every allocator of a workload and write a run directory.

    Args:
        workload: what to run.
        out: the directory; created if it does not exist.
        base: folder to which the workload's model files are relative.
        progress: called from time to time.
        resume: whether to keep the complete runs in `out`, if they are of the same workload, however often it is
            repeated, and of the same version of kvsim.
        force: whether runs of another workload in `out` give way.
        executing: makes executors; by default, they compute times with the cost model.
        facts: further entries of the manifest.

    Returns:
        The directory, with the columns that were read for the summary.

    Raises:
        UserError: the workload cannot run, or `out` holds something else.
        WorkloadError: a trace or data file is bad, or no request arrives.

    """
    out = Path(out)
    setup = prepare(workload, base)
    manifest = {**_manifest(setup), **(facts or {})}
    earlier(out)
    first = setup.requests()  # nothing gives way to a workload whose trace is bad
    out.mkdir(parents=True, exist_ok=True)
    with alone(out):
        kept = take(out, manifest, resume=resume, force=force)
        return _all_runs(setup, first, out, manifest, kept, progress=progress, executing=executing)


def _all_runs(
    setup: Setup,
    first: Requests,
    out: Path,
    manifest: dict[str, Any],
    kept: Kept | None,
    *,
    progress: Callable[[Progress], None] | None,
    executing: Executing | None,
) -> RunDirectory:
    """Do every run that is not kept, then sum all of them up.  `first` are the requests of the first replication.

    What is kept is listed in the manifest from the start, all else once it is written.
    """
    workload, started, clock = setup.workload, datetime.now(UTC), time.perf_counter()
    manifest["started"] = started.isoformat(timespec="seconds")
    said: list[Sequence[str]] = []
    undrawn = alike(setup, first)
    with Listing(out, manifest, kept.written if kept is not None else {}) as listing:
        for repeat in range(workload.repeat):
            requests = _later(setup, repeat) if repeat else first
            late = too_late(requests, workload.horizon_s)
            said.append((*requests.notes, *caches_in_vain(requests, setup.cases), *late))
            told = [*once(said, workload.repeat), *undrawn]
            manifest["notes"] = [*setup.geometry.model.notes, *setup.notes, *told]
            for case in setup.cases:
                name = folder_of(case.label, repeat)
                if kept is None or name not in kept.runs:
                    run_case(setup, case, requests, out / name, repeat=repeat, progress=progress, executing=executing)
                listing.add(results_in(name))
        if workload.sustained is not None:
            _search(setup, workload.sustained, out, listing, progress=progress)
        directory = RunDirectory(out, manifest)
        entries = [run.summarise(directory.slo) for run in directory.runs]
        write_json(out / SUMMARY, {"schema": SCHEMA_VERSION, "runs": entries})
        listing.add([SUMMARY])
        manifest["wall_s"] = round(time.perf_counter() - clock, 3)
    return directory


def _later(setup: Setup, repeat: int) -> Requests:
    """Make the requests of a later replication, of which none may arrive although some do in the first."""
    try:
        return setup.requests(repeat)
    except NoArrivalError as error:
        which = f"as it happens in replication {repeat + 1}; another seed or a longer time may do"
        raise NoArrivalError(*(f"{line}, {which}" for line in error.lines)) from error


def demand_free(setup: Setup, out: Path, *, resume: bool) -> None:
    """Make sure that no results would be lost in `out`.

    Args:
        setup: the workload.
        out: the directory.
        resume: whether finished runs in it are kept.

    Raises:
        UserError: it holds something else.

    """
    before = earlier(out)
    if before is not None:
        demand_same(out, before, _manifest(setup), resume=resume)


def claim(setup: Setup, out: Path) -> None:
    """Prepare `out` for a run that can be resumed, and remove what an earlier run has left there.

    Raises:
        UserError: `out` holds something that is no run.

    """
    manifest = _manifest(setup)
    earlier(out)
    out.mkdir(parents=True, exist_ok=True)
    with alone(out):
        take(out, manifest, resume=False, force=True)
        write_json(out / MANIFEST, manifest)


def _search(
    setup: Setup, wanted: Sustained, out: Path, listing: Listing, *, progress: Callable[[Progress], None] | None
) -> None:
    """Find the rate that each allocator sustains in each replication, where it is not known from an earlier search."""
    search = Search(setup, wanted, progress)
    for repeat in range(setup.workload.repeat):
        for case in setup.cases:
            name = f"{folder_of(case.label, repeat)}/{SUSTAINED}"
            path = out / name
            found = _found(path)
            if found is None:
                found = search.of(case, repeat)
                write_json(path, found)
            listing.add([name])
            search.begin(case.label, found)


def _found(path: Path) -> dict[str, Any] | None:
    """Return what an earlier search has found; None if it did not come to its end, or its file is no longer whole."""
    try:
        found: dict[str, Any] = read_json(path, SUSTAINED_RATE, AGAIN)
    except RunDirectoryError:
        return None
    return found


def run_case(
    setup: Setup,
    case: Case,
    requests: Requests,
    folder: Path,
    *,
    repeat: int = 0,
    progress: Callable[[Progress], None] | None = None,
    leaps: bool = True,
    executing: Executing | None = None,
) -> None:
    """Run one allocator once and write its tables into `folder`."""

    def report(done: int) -> None:
        if progress is not None:
            progress(Progress(case.label, repeat, done, len(requests)))

    with ParquetSink(folder) as sink:
        serve(
            setup,
            case,
            requests,
            sink,
            progress=report if progress is not None else None,
            leaps=leaps,
            executing=executing,
        )


def _manifest(setup: Setup) -> dict[str, Any]:
    workload = setup.workload
    runs = [
        {**setup.facts(case, repeat), "dir": folder_of(case.label, repeat)}
        for repeat in range(workload.repeat)
        for case in setup.cases
    ]
    demand_folders((case.label for case in setup.cases), "allocators")
    return {
        "schema": SCHEMA_VERSION,
        "kvsim": own(),
        "name": workload.name,
        "seed": workload.seed,
        "repeat": workload.repeat,
        "workload": workload.resolved(),
        "files": digests(workload),
        "model": {
            "name": setup.geometry.name,
            "parameters": setup.geometry.parameters,
            "weight_bytes": setup.geometry.weight_bytes,
            "kv_bytes_per_token": setup.geometry.kv_bytes_per_token,
        },
        "device": {"name": setup.device.name, "memory_bytes": setup.device.memory_bytes},
        "pool": setup.cases[0].pool.explain(),
        "runs": runs,
        "slo": limits_of(workload.resolved()),
        "expect": workload.model_dump(mode="json", exclude_none=True)["expect"],
        "remarks": list(workload.remarks),
        "versions": versions(PACKAGES),
    }
