"""`compare`, `report` and `replay`: what was recorded, beside something else or on a page."""

from __future__ import annotations

import os
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from analysis.compare import compare as compare_directories
from analysis.compare import compare_allocators
from analysis.differences import show_comparison
from analysis.pages import write_index, write_page
from analysis.reading import INDEX
from analysis.report import write_joint_report
from sim.cli.output import emit, print_json, terminal
from sim.errors import UserError
from sim.replay import replay as run_again
from sim.results.claims import demand_page

if TYPE_CHECKING:
    from collections.abc import Sequence


def compare(
    first: Path,
    second: Path | None = None,
    /,
    *,
    against: str | None = None,
    fail_if_worse: float | None = None,
    json: bool = False,
) -> int:
    """Compare two run directories, or the allocators of one: paired differences with their intervals.

    Args:
        first: Run directory.
        second: Run directory; differences are second minus first. Without it, the allocators of the first one are
            compared.
        against: Allocator that the others of one directory are compared with; the first of its file if not given.
        fail_if_worse: Exit with status 1 if a figure got worse by more than so many per cent; shares of the pool are
            told only.
        json: Print one JSON document instead of the table.

    """
    if fail_if_worse is not None and not fail_if_worse >= 0:
        raise UserError(f"--fail-if-worse {fail_if_worse:g}: give per cent, at least 0")
    if second is not None and against is not None:
        raise UserError(f"--against {against}: give one run directory; of two, allocators are matched by label")
    comparison = compare_allocators(first, against) if second is None else compare_directories(first, second)
    if json:
        emit(comparison.document())
        return int(fail_if_worse is not None and bool(comparison.regressions(fail_if_worse)))
    return show_comparison(comparison, terminal(), fail_if_worse)


def report(
    directories: Annotated[tuple[Path, ...], "DIR"],
    /,
    *,
    out: Path | None = None,
    together: bool = False,
    open_: bool = False,
    json: bool = False,
) -> None:
    """Write the page of what run, validate, sweep, capacity or advise left: one file, no network.

    Each directory gets its page. Several get an index.html too, in the folder they share.

    Args:
        directories: Run directories, and those of validations, sweeps, capacity searches and advice.
        out: File to write instead of the directory's page, of index.html if there are several directories.
        together: One page instead, with the runs of all directories as its columns.
        open_: Open the page in a browser.
        json: Print one JSON document.

    """
    several = len(directories) > 1
    if out is None and (together or several):
        out = _shared(directories) / ("together.html" if together else INDEX)
    if out is not None:
        demand_page(out)
    if together:
        pages = [write_joint_report(directories, str(out))]
    elif several:
        pages = [*map(write_page, directories), write_index(directories, str(out))]
    else:
        pages = [write_page(directories[0], out)]
    if json:
        emit({"written": [str(page) for page in pages]})
    else:
        console = terminal()
        for page in pages:
            console.say(f"Written: {page}")
    if open_:
        webbrowser.open(pages[-1].resolve().as_uri())


def _shared(directories: Sequence[Path]) -> Path:
    """Return the folder that holds all of these."""
    return Path(os.path.relpath(os.path.commonpath([directory.resolve().parent for directory in directories])))


def replay(recordings: Annotated[tuple[Path, ...], "FILE"], /, *, json: bool = False) -> int:
    """Replay recordings of real engines against our allocators and scheduler, answer by answer.

    Exit status 1 if an answer differs.

    Args:
        recordings: Recorded events of vLLM or SGLang.
        json: Print one JSON document.

    """
    result = run_again(recordings)
    first = result.first_difference
    if json:
        print_json(vars(result) | {"first_difference": first._asdict() if first else None})
        return int(first is not None)
    console = terminal()
    for answer in result.explained:
        console.say(answer)
    found = f"{result.differences:,} differences" if first else "no difference"
    explained = f", {len(result.explained):,} explained" if result.explained else ""
    console.say(f"{result.files:,} files, {result.ops:,} operations: {found}{explained}")
    if first:
        console.say(f"first: {first}")
    return int(first is not None)
