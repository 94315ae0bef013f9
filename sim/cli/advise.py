"""`advise`: what limits a workload, and which settings to change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from analysis.planner.advising import advice_table, words
from analysis.planner.page import write_page
from sim.cli.output import AsJson, emit, lay_out, terminal
from sim.cli.planning import foreword, hands, interrupted, status, told
from sim.cli.progress import counted
from sim.cli.run import folder_for
from sim.cli.source import Settings, changes, placed
from sim.errors import UserError
from sim.planner.advice import BUDGET
from sim.planner.advice import advise as search
from sim.planner.backends import Kind
from sim.planner.grid import Base
from sim.planner.slo import objectives
from workloads.labels import named, positions, unknown


def advise(
    file: str,
    /,
    *,
    slo: Annotated[tuple[str, ...], Parameter(name="--slo", negative=())] = (),
    allocator: str | None = None,
    budget: int = BUDGET,
    out: Path | None = None,
    settings: Settings = (),
    seed: int | None = None,
    repeat: int = 3,
    jobs: int = 1,
    backend: Kind = "loky",
    address: str | None = None,
    resume: bool = False,
    force: bool = False,
    quiet: bool = False,
    json: AsJson = False,
) -> int:
    """Say what limits a workload, and which settings of its engine to change.

    Each change is tried by itself and has its interval; those that are clearly better are then put together.
    A change that the workload cannot have is left out and said to be. Exit status 1 if trying one failed otherwise.

    Args:
        file: Workload file, or the name of a preset.
        slo: A figure and its limit, such as ttft_s.p99=1 or goodput=0.9; the workload's own slo if not given.
        allocator: Label or kind of the one to advise on; paging if the file has it, and one is enough.
        budget: Simulations at most.
        out: Directory to write; runs/NAME-advice if not given, NAME being the workload's.
        settings: Change the file: a.b.c=value, the value in YAML; allocators.paged.block_size=8, say. May be repeated.
        seed: Seed instead of the file's.
        repeat: Replications of every setting; a trace has one.
        jobs: Processes on this machine; -1 is one a core.
        backend: loky is this machine; ray and dask attach to a cluster that runs.
        address: Address of that cluster: host:port, ray://host:port or tcp://host:port.
        resume: Keep the simulations that are complete in the directory and do only the rest.
        force: Replace results of something else in the directory; without it they are left alone.
        quiet: Show no progress.
        json: Print one JSON document instead of words and a table.

    """
    if repeat < 1:
        raise UserError(f"--repeat {repeat}: give at least 1")
    base = Base(file, changes(settings, seed))
    own = bool(base.workload.slo.model_dump(exclude_none=True))
    aims = objectives(slo, base.workload) if slo or own else ()
    place = _place(base, allocator)
    foreword(base.workload)
    folder = out or folder_for(base.workload.name, "-advice")
    try:
        with placed(file, settings), hands(backend, jobs, address) as workers, counted(quiet=quiet) as progress:
            summary = search(
                base,
                place,
                aims,
                folder,
                workers,
                repeats=repeat,
                budget=budget,
                resume=resume,
                force=force,
                progress=progress,
            )
    except KeyboardInterrupt:
        return interrupted(folder)
    page = write_page(folder)
    said = words(summary)
    if json:
        emit({**summary, "words": [one.text for one in said], "out": str(folder), "report": str(page)})
    else:
        console = terminal()
        for one in said:
            console.print(Text(one.text, style="bold" if one.tone == "advice" else ""))
            console.print()
        lay_out(console, advice_table(summary))
        for reason in summary["left_out"]:
            console.say(f"not tried: {reason}", style="dim")
        told(console, summary["failed"], folder, page)
    return status(summary["failed"], folder, "change")


def _place(base: Base, name: str | None) -> int:
    """Find the allocator to advise on."""
    allocators = named(base.workload.allocators)
    if name is None:
        kinds = [one.kind for one in allocators]
        real = [place for place, kind in enumerate(kinds) if kind not in ("ideal", "no-cache")]
        paged = [place for place in real if kinds[place] == "paged"]
        return (paged or real or [0])[0]
    found = positions(allocators).get(name)
    if found is None:
        raise unknown(name, allocators, f"--allocator {name}")
    return found[0]
