"""Progress of a run on standard error: a bar for each allocator, or a line where there is no terminal."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from sim.cli.output import Terminal, terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import TaskID

    from sim.runner import Progress


@contextmanager
def shown(repeats: int, *, quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """Yield what a runner reports to: bars while the block lasts, lines, or nothing if quiet."""
    console = terminal(stderr=True)
    if quiet:
        yield None
    elif not console.is_terminal:
        lines = _Lines(console, repeats)
        yield lines
        lines.through()
    else:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Bars(*columns, console=console, transient=True) as bars:
            yield _Rows(bars, repeats)


class _Rows:
    """One bar for each allocator, over all its replications."""

    def __init__(self, bars: Bars, repeats: int) -> None:
        self._bars = bars
        self._repeats = repeats
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, progress: Progress) -> None:
        if progress.label not in self._tasks:
            total = progress.total * self._repeats
            self._tasks[progress.label] = self._bars.add_task(progress.label, total=total)
        done = progress.repeat * progress.total + progress.done
        self._bars.update(self._tasks[progress.label], completed=done)


class _Lines:
    """One line for each run that is through, for logs."""

    def __init__(self, console: Terminal, repeats: int) -> None:
        self._console = console
        self._repeats = repeats
        self._last: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        if self._last and (self._last.label, self._last.repeat) != (progress.label, progress.repeat):
            self.through()
        self._last = progress

    def through(self) -> None:
        """Tell of the last run, which is over: the next has begun, or there is none."""
        if self._last is not None:
            label, repeat, done, total = self._last
            which = f", replication {repeat + 1} of {self._repeats}" if self._repeats > 1 else ""
            count = f"{total:,}" if done == total else f"{done:,} of {total:,}"
            self._console.print(f"{label}{which}: {count} requests", markup=False, soft_wrap=True)
