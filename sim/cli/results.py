"""`compare`, `report` and `replay`: what was recorded, beside something else or on a page."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from analysis.compare import compare as compare_directories
from analysis.report import write_report
from analysis.table import show_comparison
from sim.cli.output import WIDTH, AsJson, emit, terminal
from sim.replay import main_replay


def compare(first: Path, second: Path, /, *, fail_if_worse: float | None = None, json: AsJson = False) -> int:
    """Compare two run directories: paired differences with their intervals.

    Args:
        first: Run directory.
        second: Run directory; differences are second minus first.
        fail_if_worse: Exit with status 1 if a figure got worse by more than so many per cent.
        json: Print one JSON document in place of the table.

    """
    comparison = compare_directories(first, second)
    if json:
        emit(comparison.document())
        return int(fail_if_worse is not None and bool(comparison.regressions(fail_if_worse)))
    return show_comparison(comparison, terminal(at_least=WIDTH), fail_if_worse)


def report(
    directories: Annotated[tuple[Path, ...], Parameter(name="DIR", required=True)],
    /,
    *,
    open_: Annotated[bool, Parameter(name="--open")] = False,
    json: AsJson = False,
) -> None:
    """Write report.html of one or more run directories: one file, no network.

    Args:
        directories: Run directories.
        open_: Open the pages in a browser.
        json: Print one JSON document.

    """
    pages = [write_report(directory) for directory in directories]
    if json:
        emit({"written": [str(page) for page in pages]})
    else:
        console = terminal()
        for page in pages:
            console.print(f"Written: {page}", markup=False, soft_wrap=True)
    if open_:
        for page in pages:
            webbrowser.open(page.resolve().as_uri())


def replay(
    recordings: Annotated[tuple[Path, ...], Parameter(name="FILE", required=True)], /, *, json: AsJson = False
) -> int:
    """Replay recordings of real engines against our allocators and scheduler, answer by answer.

    Exit status 1 if an answer differs.

    Args:
        recordings: Recorded events of vLLM or SGLang.
        json: Print one JSON document.

    """
    return main_replay(recordings, json)
