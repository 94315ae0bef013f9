"""`sweep`: a workload at every combination of some of its values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from analysis.planner import parts
from analysis.planner.tables import sweep_table
from sim.cli.app import DONE
from sim.cli.output import add, emit, lay_out, listing, terminal
from sim.cli.planning import Work, answered, foreword, interrupted
from sim.cli.progress import counted
from sim.cli.run import folder_for
from sim.planner.sweep import estimate
from sim.planner.sweep import sweep as run_sweep
from sim.planner.vary import shown

if TYPE_CHECKING:
    from sim.planner.sweep import Estimate


def sweep(
    file: str,
    /,
    *,
    vary: tuple[str, ...] = (),
    out: Path | None = None,
    repeat: int | None = None,
    dry_run: bool = False,
    work: Work = Work(),
    json: bool = False,
) -> int:
    """Run a workload at every combination of the values that are varied.

    The same random numbers serve every cell: the same requests, faster or slower, in other memory.
    Exit status 1 if some cells failed.

    Args:
        file: Workload file, or the name of a preset.
        vary: A key and its values: a.b=2,4,8 or 1..4 or 64..256+64 or 1..32*2. May be repeated. An allocator goes
            by its label or kind: allocators.paged.block_size=8,16.
        out: Directory to write; runs/NAME-sweep if not given, NAME being the workload's.
        repeat: Replications of every cell, instead of the file's.
        dry_run: List the cells with an estimate of their time, and run none.
        work: As of every command that simulates many times.
        json: Print one JSON document instead of tables.

    """
    base = work.base(file, repeat)
    with work.changes.placed(file):
        over = base.axes(vary)
    foreword(base.workload)
    folder = out or folder_for(base.workload.name, "-sweep")
    try:
        with work.hands() as workers:
            if dry_run:
                _foretell(estimate(base, over, workers.workers), as_json=json)
                return DONE
            with counted(quiet=work.quiet) as progress:
                summary = run_sweep(
                    base, over, folder, workers, resume=work.resume, force=work.force, progress=progress
                )
    except KeyboardInterrupt:
        return interrupted(folder)
    keys = [axis.key for axis in over]
    tables = filter(None, (sweep_table(summary, keys), parts.table(summary, keys)))
    return answered(summary, folder, tables, as_json=json)


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
