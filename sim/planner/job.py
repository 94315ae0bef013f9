"""One simulation, with everything it needs: an allocator, a workload, a replication.

A job is a value: it can be sent to another process or machine and executed there, and executing it twice
gives the same result.  Its key is a digest of everything on which the result depends, so two points of a
grid that need the same simulation share it.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from analysis.observed import Observed
from analysis.planner.observe import observe
from analysis.reading import Run
from analysis.slo import limits_of
from analysis.summary import summarise
from sim.errors import UserError
from sim.files import digests
from sim.planner.bottleneck import bottleneck
from sim.runner import run_case
from sim.setup import prepare
from sim.versions import own
from workloads.errors import WorkloadError, lines_of
from workloads.read_once import Traces

if TYPE_CHECKING:
    from workloads.schema import Workload

Record: TypeAlias = dict[str, Any]
"""What a job leaves: `entry` (as in summary.json), `pool`, `load`, `missed`, `batches`, `wall_s`, and if asked for
`limits`.  Plain JSON.
"""
SMALL = 200_000
"""Requests up to which the tables of a run are read at once; the columns of larger ones one by one."""
SILENT = ("name", "repeat", "expect", "remarks", "sustained", "variants", "telemetry")
"""Blocks of a workload file that no result depends on."""


@dataclass(frozen=True)
class Job:
    """One allocator of a workload, once."""

    workload: Workload
    """With this allocator alone, its paths absolute."""
    label: str
    repeat: int
    files: str = field(default="", compare=False)
    """Digest of the data files that the workload names."""
    limits: bool = False
    """Whether the record shall also say what limits the workload."""
    traces: Traces = field(default_factory=Traces, compare=False)
    """Where the trace that it replays is read, if it is one: in the same process once for all jobs of a command."""

    @cached_property
    def key(self) -> str:
        """Digest of everything that the result depends on; the label is not among it."""
        content = {name: value for name, value in self.workload.resolved().items() if name not in SILENT}
        content["allocators"] = [{**content["allocators"][0], "label": None}]
        more = ["limits"] if self.limits else []
        told = json.dumps([own(), self.files, self.repeat, content, *more], sort_keys=True)
        return sha256(told.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Failed:
    """Why a job has no result, in one line."""

    why: str
    bug: bool = False
    """Whether it is no fault of the workload."""


def work(job: Job) -> Record | Failed:
    """Do a job: simulate, measure, and keep nothing but the figures.

    A failure is a value, so that it can come back from another process whatever it was.
    """
    started = time.perf_counter()
    try:
        record = _simulate(job)
    except (UserError, WorkloadError) as error:
        return Failed(lines_of(error)[0])
    except Exception as error:  # noqa: BLE001 - a bug in one cell must not cost the others; it is reported
        what = (str(error).splitlines() or ["no message"])[0]
        return Failed(f"{type(error).__name__}: {what}", bug=True)
    return {**record, "wall_s": round(time.perf_counter() - started, 3)}


def _simulate(job: Job) -> Record:
    setup = prepare(job.workload, traces=job.traces)
    (case,) = setup.cases
    requests = setup.requests(job.repeat)
    facts = setup.facts(case, job.repeat) | {"label": job.label}
    with tempfile.TemporaryDirectory(prefix="kvsim-") as folder:
        run_case(setup, case, requests, Path(folder), repeat=job.repeat)
        run = Run(facts, Path(folder))
        small = len(requests) <= SMALL
        columns = run.requests(), run.steps() if small else run.lazy_steps
        slo = limits_of(job.workload.resolved())
        seen = Observed(*columns, case.pool.slots, slo)
        record = {"entry": summarise(*columns, facts, slo), "pool": facts, **observe(seen, facts.get("parts") or ())}
        if job.limits:
            record["limits"] = bottleneck(setup, seen, shared_prefixes=requests.prefixes is not None)
        return record


def digest(workload: Workload) -> str:
    """Digest of the data files that a workload names; "" if it names none."""
    found = digests(workload)
    return sha256(b"".join(map(bytes.fromhex, found.values()))).hexdigest()[:16] if found else ""
