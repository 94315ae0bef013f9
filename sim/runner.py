"""Running a workload: every allocator, every replication, into one run directory.

Each run writes its own folder and nothing else, so runs are independent: an interrupted
directory keeps those that finished, and `resume` does only the rest.
"""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from allocators.content import Segments
from analysis.reading import open_directory
from analysis.rundir import SCHEMA_VERSION
from sim.engine.executor import Simulated
from sim.engine.loop import Engine
from sim.errors import UserError
from sim.rundir import ParquetSink, write_json
from sim.setup import Case, Setup, prepare
from sim.versions import own, versions
from workloads.generate import requests as make_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from allocators.base import Allocator
    from allocators.content import Content
    from sim.engine.executor import Executor
    from workloads.requests import Requests
    from workloads.schema import Workload

    Executing = Callable[[Setup, Case, Requests, Allocator], AbstractContextManager[Executor]]
    """Makes the executor of one run, and takes it apart when the run is over."""

PACKAGES = ("numpy", "simpy", "pyarrow", "pydantic")


class Progress(NamedTuple):
    """How far a run has come."""

    label: str
    repeat: int
    done: int
    """Requests finished or refused."""
    total: int


def run(
    workload: Workload,
    out: Path,
    *,
    base: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    resume: bool = False,
    executing: Executing | None = None,
    facts: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Run every allocator of a workload and write a run directory.

    Args:
        workload: what to run.
        out: the directory; made if it is not there.
        base: folder that the workload's relative model files start from.
        progress: called now and then.
        resume: keep the runs that are complete in `out`, if it holds the same workload.
        executing: makes executors; the cost model if not given.
        facts: what else the manifest shall say.

    Returns:
        the entries of summary.json.

    Raises:
        UserError: the workload cannot run, or `out` holds something else.

    """
    setup = prepare(workload, base)
    started, clock = datetime.now(UTC), time.perf_counter()
    manifest = {**_manifest(setup), **(facts or {})}
    keep = _claim(out, manifest, resume=resume)
    manifest["started"] = started.isoformat(timespec="seconds")
    write_json(out / "manifest.json", manifest)
    for repeat in range(workload.repeat):
        requests = make_requests(workload, repeat)
        manifest["notes"] = list(requests.notes)
        for case in setup.cases:
            folder = out / _folder(case.label, repeat)
            if not (keep and (folder / "requests.parquet").exists()):
                run_case(setup, case, requests, folder, repeat=repeat, progress=progress, executing=executing)
    manifest["wall_s"] = round(time.perf_counter() - clock, 3)
    write_json(out / "manifest.json", manifest)
    directory = open_directory(out)
    entries = [run.summarise(directory.slo) for run in directory.runs]
    write_json(out / "summary.json", {"schema": SCHEMA_VERSION, "runs": entries})
    return entries


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
    """Run one allocator once and write its three tables into `folder`."""
    workload, allocator = setup.workload, case.allocator(shared_prefixes=requests.prefixes is not None)
    telemetry = workload.telemetry

    def report(done: int) -> None:
        if progress is not None:
            progress(Progress(case.label, repeat, done, len(requests)))

    make = executing or simulated
    with ParquetSink(folder) as sink, make(setup, case, requests, allocator) as executor:
        engine = Engine(
            requests,
            contents(requests),
            allocator,
            case.make_scheduler(),
            executor,
            sink,
            seed=workload.seed,
            swap=workload.engine.preemption == "swap",
            instants=0 if telemetry.blocks == "off" else telemetry.instants,
            horizon_s=workload.horizon_s,
            leaps=leaps,
        )
        engine.run(report if progress is not None else None)


def simulated(setup: Setup, case: Case, _: Requests, allocator: Allocator) -> AbstractContextManager[Executor]:
    """Make an executor that asks the cost model."""
    cost = setup.cost(allocator)
    return nullcontext(Simulated(cost, recomputes=allocator.recomputes, block_bytes=case.pool.block_bytes))


def contents(requests: Requests) -> Callable[[int], Content]:
    """Return what makes the content of request i: the pieces of its prompt, or one piece of its own."""
    prefixes = requests.prefixes
    if prefixes is None:
        return lambda index: Segments([], index)
    outputs = prefixes.outputs
    return lambda index: Segments(prefixes.pieces(index), int(outputs[index]))


def _folder(label: str, repeat: int) -> str:
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in label).lstrip(".") or "_"
    return name if repeat == 0 else f"{name}/repeat-{repeat}"


def _manifest(setup: Setup) -> dict[str, Any]:
    workload = setup.workload
    runs = [
        {
            "label": case.label,
            "kind": case.spec.kind,
            "scheduler": case.scheduler,
            "repeat": repeat,
            "dir": _folder(case.label, repeat),
            "capacity": case.pool.slots,
            "num_blocks": case.pool.num_blocks,
            "block_size": case.pool.block_size,
            "block_bytes": case.pool.block_bytes,
        }
        for repeat in range(workload.repeat)
        for case in setup.cases
    ]
    folders = [str(each["dir"]) for each in runs]
    if len(set(folders)) < len(folders):
        raise UserError("allocators: two labels give the same folder name; make them differ in letters or digits")
    return {
        "schema": SCHEMA_VERSION,
        "kvsim": own(),
        "name": workload.name,
        "seed": workload.seed,
        "repeat": workload.repeat,
        "workload": workload.resolved(),
        "model": {
            "name": setup.geometry.name,
            "parameters": setup.geometry.parameters,
            "weight_bytes": setup.geometry.weight_bytes,
            "kv_bytes_per_token": setup.geometry.kv_bytes_per_token,
        },
        "device": {"name": setup.device.name, "memory_bytes": setup.device.memory_bytes},
        "pool": setup.cases[0].pool.explain(),
        "runs": runs,
        "slo": workload.slo.model_dump(exclude_none=True),
        "expect": workload.model_dump(mode="json")["expect"],
        "versions": versions(PACKAGES),
    }


def _claim(out: Path, manifest: dict[str, Any], *, resume: bool) -> bool:
    """Make sure that `out` may be written; returns whether finished runs in it may be kept."""
    path = out / "manifest.json"
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; give a directory")
    if out.is_dir() and any(out.iterdir()) and not path.exists():
        raise UserError(f"{out}: holds other files and no manifest.json; give an empty or a new directory")
    out.mkdir(parents=True, exist_ok=True)
    if not (resume and path.exists()):
        return False
    before = json.loads(path.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(manifest))
    for key in ("workload", "runs", "model", "device"):
        if before.get(key) != now[key]:
            raise UserError(
                f"{out}: holds a run of another workload ({key} differs); give another --out, or leave out --resume"
            )
    return True
