"""`advise`: what limits a workload, and which settings to change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from analysis.planner.advising import advice_table, words
from analysis.planner.page import write_page
from analysis.slo import limits_of
from analysis.terminal import line
from sim.cli.output import emit, lay_out, terminal
from sim.cli.planning import Work, foreword, interrupted, status, told
from sim.cli.progress import counted
from sim.cli.run import folder_for
from sim.errors import UserError
from sim.planner.advice import BUDGET
from sim.planner.advice import advise as search
from sim.planner.slo import objectives
from workloads.labels import named, positions, unknown

if TYPE_CHECKING:
    from sim.planner.grid import Base


def advise(
    file: str,
    /,
    *,
    slo: tuple[str, ...] = (),
    allocator: str | None = None,
    budget: int = BUDGET,
    out: Path | None = None,
    repeat: int = 3,
    work: Work = Work(),
    json: bool = False,
) -> int:
    """Say what limits a workload, and which settings of its engine to change.

    Each change is tried by itself and has its interval; those that are clearly better are then put together.
    A change that the workload cannot have is left out and said to be. Exit status 1 if trying one failed otherwise.

    Args:
        file: Workload file, or the name of a preset.
        slo: A figure and its limit, such as ttft_s.p99=1 or goodput=0.9; the workload's own slo if not given.
        allocator: Label of the one to advise on, or its kind if no other is of that; the first paged one if not given.
        budget: Simulations at most, those of the file as it is and of its best changes together included.
        out: Directory to write; runs/NAME-advice if not given, NAME being the workload's.
        repeat: Replications of every setting; a trace has one, or as many as there are engines (`one_in`).
        work: As of every command that simulates many times.
        json: Print one JSON document instead of words and a table.

    """
    if repeat < 1:
        raise UserError(f"--repeat {repeat}: give at least 1")
    base = work.base(file)
    own = any(limits_of(base.workload.resolved()).values())
    aims = objectives(slo, base.workload) if slo or own else ()
    if of_part := next((one for one in aims if one.part), None):
        raise UserError(
            f"--slo {of_part.text}: advice counts requests within limits that are the same for all of them; "
            f"give --slo {of_part.figure}={of_part.limit:g}, and see capacity or sweep for part {of_part.part}"
        )
    place = _place(base, allocator)
    foreword(base.workload)
    folder = out or folder_for(base.workload.name, "-advice")
    try:
        with work.changes.placed(file), work.hands() as workers, counted(quiet=work.quiet) as progress:
            summary = search(
                base,
                place,
                aims,
                folder,
                workers,
                repeats=repeat,
                budget=budget,
                resume=work.resume,
                force=work.force,
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
            console.print(line(one.text, "bold" if one.tone == "advice" else ""))
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
    if len(found) > 1:
        labels = "; ".join(base.labels[place] for place in found)
        raise UserError(f"--allocator {name}: {len(found)} are of that kind; give the label of one: {labels}")
    return found[0]
