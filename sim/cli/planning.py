"""What `sweep`, `capacity` and `advise` have in common: the options of the work, and the messages at the end."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, Any

from analysis.planner.page import write_page
from analysis.planner.reading import CELLS
from analysis.planner.tables import failures
from analysis.terminal import line
from sim.cli.app import DONE, FAILED, INTERRUPTED
from sim.cli.output import emit, lay_out, terminal
from sim.cli.source import Changes
from sim.errors import UserError
from sim.planner.backends import Kind, make
from sim.planner.grid import Base
from sim.setup import prepare

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from rich.table import Table

    from sim.cli.output import Terminal
    from sim.planner.backends import Backend
    from workloads.schema import Workload


@dataclass(frozen=True)
class Work:
    """How the simulations of a workload are done: options that all of these commands have."""

    changes: Changes = Changes()
    jobs: int = 1
    """Processes on this machine; -1 is one a core."""
    backend: Kind = "loky"
    """loky is this machine; ray and dask attach to a cluster that runs, whose machines have kvsim and the data files.
    """
    address: str | None = None
    """Address of that cluster: host:port, ray://host:port or tcp://host:port."""
    resume: bool = False
    """Keep the simulations that are complete in the directory and do only the rest."""
    force: bool = False
    """Replace results of something else in the directory; without it they are left alone."""
    quiet: bool = False
    """Show no progress."""

    def base(self, file: str, repeat: int | None = None) -> Base:
        """Load the workload."""
        return Base(file, self.changes.overrides(repeat))

    @contextmanager
    def hands(self) -> Iterator[Backend]:
        """Yield a backend, and let go of it when the block is left."""
        backend = make(self.backend, self.jobs, self.address)
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
        setup = prepare(workload)
        said += [*setup.geometry.model.notes, *setup.notes]
    for each in said:
        terminal(stderr=True).say(each)


def interrupted(folder: Path) -> int:
    """Say what an interrupted command leaves behind and how to go on; returns the exit status."""
    complete = len(list((folder / CELLS).glob("*.json"))) if (folder / CELLS).is_dir() else 0
    what, them = ("simulation is", "it") if complete == 1 else ("simulations are", "them")
    kept = f"{complete} {what} complete in {quote(str(folder))}, --resume keeps {them}"
    said = f"interrupted; {kept if complete else 'nothing was finished'}"
    terminal(stderr=True).say(said)
    return INTERRUPTED


def answered(
    summary: Mapping[str, Any], folder: Path, tables: Iterable[Table], warnings: Iterable[str] = (), *, as_json: bool
) -> int:
    """Write the page, and print what was found: a document, or the tables and what else there is to say.

    Returns the exit status.
    """
    page = write_page(folder)
    if as_json:
        emit({**summary, "out": str(folder), "report": str(page)})
    else:
        console = terminal()
        for place, table in enumerate(tables):
            if place:
                console.print()
            lay_out(console, table)
        for warning in warnings:
            console.print(line(warning))
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
    for failure in failures(failed):
        console.print(failure, soft_wrap=True)
    console.say(f"Written: {folder}/ with results.parquet, summary.json and {page.name}")
