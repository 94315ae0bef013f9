"""`sweep`: a workload at every combination of some of its values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from cyclopts import Parameter

from analysis.planner.tables import sweep_table
from sim.cli.app import DONE
from sim.cli.output import AsJson, add, emit, lay_out, listing, terminal
from sim.cli.planning import answered, foreword, hands, interrupted
from sim.cli.progress import counted
from sim.cli.run import folder_for
from sim.cli.source import Settings, changes, placed
from sim.planner.backends import Kind
from sim.planner.grid import Base
from sim.planner.sweep import estimate
from sim.planner.sweep import sweep as run_sweep
from sim.planner.vary import shown

if TYPE_CHECKING:
    from sim.planner.sweep import Estimate

Vary: TypeAlias = Annotated[tuple[str, ...], Parameter(name="--vary", negative=())]


def sweep(
    file: str,
    /,
    *,
    vary: Vary = (),
    out: Path | None = None,
    settings: Settings = (),
    seed: int | None = None,
    repeat: int | None = None,
    jobs: int = 1,
    backend: Kind = "loky",
    address: str | None = None,
    resume: bool = False,
    force: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
    json: AsJson = False,
) -> int:
    """Run a workload at every combination of the values that are varied.

    The same random numbers serve every cell: the same requests, faster or slower, in other memory.
    Exit status 1 if some cells failed.

    Args:
        file: Workload file, or the name of a preset.
        vary: A key and its values: a.b=2,4,8 or 1..4 or 64..256+64 or 1..32*2. May be repeated. An allocator goes
            by its label or kind: allocators.paged.block_size=8,16.
        out: Directory to write; runs/NAME-sweep if not given, NAME being the workload's.
        settings: Change the file: a.b.c=value, the value in YAML; allocators.paged.block_size=8, say. May be repeated.
        seed: Seed instead of the file's.
        repeat: Replications of every cell, instead of the file's.
        jobs: Processes on this machine; -1 is one a core.
        backend: loky is this machine; ray and dask attach to a cluster that runs, whose machines have kvsim
            and the data files.
        address: Address of that cluster: host:port, ray://host:port or tcp://host:port.
        resume: Keep the cells that are complete in the directory and do only the rest.
        force: Replace results of something else in the directory; without it they are left alone.
        dry_run: List the cells with an estimate of their time, and run none.
        quiet: Show no progress.
        json: Print one JSON document instead of tables.

    """
    base = Base(file, changes(settings, seed, repeat))
    with placed(file, settings):
        over = base.axes(vary)
    foreword(base.workload)
    folder = out or folder_for(base.workload.name, "-sweep")
    try:
        with hands(backend, jobs, address) as workers:
            if dry_run:
                _foretell(estimate(base, over, workers.workers), as_json=json)
                return DONE
            with counted(quiet=quiet) as progress:
                summary = run_sweep(base, over, folder, workers, resume=resume, force=force, progress=progress)
    except KeyboardInterrupt:
        return interrupted(folder)
    return answered(summary, folder, sweep_table(summary, [axis.key for axis in over]), as_json=json)


def _foretell(told: Estimate, *, as_json: bool) -> None:
    """Print what a sweep would do."""
    if as_json:
        emit({"cells": told.cells, "simulations": told.jobs, "shared": told.shared, "seconds": round(told.seconds, 1)})
        return
    columns = {"cell": "cell", "settings": "settings", "requests": "requests", "simulations": "simulations", "s": "s"}
    made = listing(columns, {"cell", "requests", "simulations", "s"}, title="What would be run")
    made.caption = "s: of one process; a simulation that an earlier cell asks for too costs nothing"
    for cell in told.cells:
        cost = f"{cell['seconds']:,.1f}"
        add(made, cell["cell"], shown(cell["settings"]), f"{cell['requests']:,}", cell["simulations"], cost)
    console = terminal()
    lay_out(console, made)
    shared = f" ({told.shared:,} more are shared)" if told.shared else ""
    console.print(f"{told.jobs:,} simulations{shared}, about {told.seconds:,.0f} s", markup=False)
