"""What `sweep`, `capacity` and `advise` have in common: choosing a backend, and the messages at the end."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from shlex import quote
from typing import TYPE_CHECKING, Any

from rich.text import Text

from analysis.planner.page import write_page
from analysis.planner.reading import CELLS
from analysis.planner.tables import failures
from sim.cli.app import DONE, FAILED, INTERRUPTED
from sim.cli.output import emit, lay_out, terminal
from sim.errors import UserError
from sim.planner.backends import make
from sim.setup import prepare

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from rich.table import Table

    from sim.cli.output import Terminal
    from sim.planner.backends import Backend, Kind
    from workloads.schema import Workload


@contextmanager
def hands(kind: Kind, jobs: int, address: str | None) -> Iterator[Backend]:
    """Yield a backend, and let go of it when the block is left."""
    backend = make(kind, jobs, address)
    try:
        yield backend
    finally:
        backend.close()


def foreword(workload: Workload) -> None:
    """Say on standard error that a file's variants have no part in what is asked, and what is doubtful about it."""
    said = []
    if count := len(workload.variants):
        said.append(f"variants of the file have no part in this: {count} left out")
    with suppress(UserError):  # as it is it may not run; what is varied may put that right
        said += prepare(workload).notes
    for line in said:
        terminal(stderr=True).say(line)


def interrupted(folder: Path) -> int:
    """Say what an interrupted command leaves behind and how to go on; returns the exit status."""
    complete = len(list((folder / CELLS).glob("*.json"))) if (folder / CELLS).is_dir() else 0
    what, them = ("simulation is", "it") if complete == 1 else ("simulations are", "them")
    kept = f"{complete} {what} complete in {quote(str(folder))}, --resume keeps {them}"
    said = f"interrupted; {kept if complete else 'nothing was finished'}"
    terminal(stderr=True).say(said)
    return INTERRUPTED


def answered(
    summary: Mapping[str, Any], folder: Path, table: Table, warnings: Iterable[str] = (), *, as_json: bool
) -> int:
    """Write the page, and print what was found: a document, or the table and what else there is to say.

    Returns the exit status.
    """
    page = write_page(folder)
    if as_json:
        emit({**summary, "out": str(folder), "report": str(page)})
    else:
        console = terminal()
        lay_out(console, table)
        for line in warnings:
            console.print(Text(line))
        told(console, summary["failed"], folder, page)
    return status(summary["failed"], folder)


def status(failed: Sequence[Mapping[str, Any]], folder: Path, what: str = "cell") -> int:
    """Say on standard error how many cells (or what else was tried) failed, if any did; returns the exit status."""
    if not failed:
        return DONE
    some = f"1 {what}" if len(failed) == 1 else f"{len(failed):,} {what}s"
    said = f"{some} failed: {quote(str(folder / 'summary.json'))} says why, under failed"
    terminal(stderr=True).say(said)
    return FAILED


def told(console: Terminal, failed: Sequence[Mapping[str, Any]], folder: Path, page: Path) -> None:
    """Say at the end which simulations failed, and where the results are."""
    for line in failures(failed):
        console.print(line, soft_wrap=True)
    console.say(f"Written: {folder}/ with results.parquet, summary.json and {page.name}")
