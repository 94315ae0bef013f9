"""`run`: a workload through every allocator, into a run directory."""

from __future__ import annotations

import re
from pathlib import Path
from shlex import quote
from typing import Any

from analysis.errors import RunDirectoryError
from analysis.reading import INDEX
from analysis.report import write_report
from analysis.table import show, show_variants
from analysis.variants import Variants, open_variants
from sim.cli.app import INTERRUPTED
from sim.cli.output import emit, terminal
from sim.cli.progress import shown
from sim.cli.source import Changes
from sim.runner import run as run_workload
from sim.variants import run_variants


def run(
    file: str,
    /,
    *,
    out: Path | None = None,
    changes: Changes = Changes(),
    repeat: int | None = None,
    resume: bool = False,
    force: bool = False,
    quiet: bool = False,
    json: bool = False,
) -> int | None:
    """Run a workload through each of its allocators and write a run directory.

    Args:
        file: Workload file, or the name of a preset.
        out: Directory to write; runs/NAME if not given, NAME being the workload's.
        changes: As of every command that takes a workload file.
        repeat: Replications instead of the file's.
        resume: Keep the runs that are complete and as they were written, whatever --repeat was, if this version of
            kvsim made them.
        force: Replace results of something else in the directory; without it they are left alone.
        quiet: Show no progress.
        json: Print one JSON document instead of tables.

    """
    workload, base = changes.read(file, repeat)
    folder = out or folder_for(workload.name)
    try:
        with changes.placed(file), shown(workload.repeat, quiet=quiet) as progress:
            if workload.variants:
                found = run_variants(workload, folder, base=base, progress=progress, resume=resume, force=force)
            else:
                found = Variants.alone(
                    run_workload(workload, folder, base=base, progress=progress, resume=resume, force=force)
                )
        pages = {label: write_report(directory) for label, directory in found.runs.items()}
        index = _index(found, folder) if workload.variants else None
    except KeyboardInterrupt:
        terminal(stderr=True).say(_kept(folder))
        return INTERRUPTED
    if json:
        emit(_document(folder, found, pages, index))
        return None
    console = terminal()
    if index is not None:
        show_variants(found, console)
        console.say(f"Written: {folder}/ with {index.name} and a run directory for each variant")
    else:
        directory = found.runs[""]
        show(directory.summary(), directory.manifest, console)
        console.say(f"Written: {folder}/ with summary.json and {pages[''].name}")
    return None


def _index(found: Variants, folder: Path) -> Path:
    """Write the page that lists all variants."""
    from analysis.pages import write_index  # noqa: PLC0415  (start-up time of workloads without variants)

    return write_index(list(found.runs.values()), folder / INDEX)


def _document(folder: Path, found: Variants, pages: dict[str, Path], index: Path | None) -> dict[str, Any]:
    """What was written and found, as one document."""
    each = {
        label: {"out": str(directory.path), "report": str(pages[label]), "runs": directory.summary()}
        for label, directory in found.runs.items()
    }
    if "" in each:
        return each[""]
    return {
        "out": str(folder),
        "report": str(index),
        "variants": [{"variant": label, **one} for label, one in each.items()],
    }


def folder_for(name: str, suffix: str = "") -> Path:
    """Return where results go if nothing is said: one folder below `runs`, whatever letters the workload's name has."""
    return Path("runs", (re.sub(r"[^\w.-]+", "-", name).strip("-.") or "workload") + suffix)


def _kept(folder: Path) -> str:
    """Say what an interrupted run leaves behind and how to go on."""
    try:
        runs = [run for directory in open_variants(folder).runs.values() for run in directory.runs]
    except RunDirectoryError:
        return "interrupted; nothing was written"
    complete = sum(run.finished for run in runs)
    if not complete:
        return f"interrupted; none of {len(runs)} runs was finished"
    are, them = ("is", "it") if complete == 1 else ("are", "them")
    return f"interrupted; {complete} of {len(runs)} runs {are} complete in {quote(str(folder))}, --resume keeps {them}"
