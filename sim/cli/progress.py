"""Progress of a run on standard error: a bar for each allocator, or a line where there is no terminal."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sim.cli.output import Terminal, terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress as Bars
    from rich.progress import ProgressColumn, TaskID

    from sim.planner.execute import BatchProgress
    from sim.serve import Progress


def bars(console: Terminal, *more: ProgressColumn, quiet: bool = False) -> Bars:
    """Make bars that vanish when the work is done: what, how far, since when, and `more`; none without a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415  (start-up)
    from rich.progress import Progress as Bars  # noqa: PLC0415  (start-up)

    what = TextColumn("{task.description}", markup=False)
    columns = what, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), *more
    return Bars(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)


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
        with bars(console) as rows:
            yield _Rows(rows, repeats)


@contextmanager
def counted(*, quiet: bool) -> Iterator[Callable[[BatchProgress], None] | None]:
    """Yield what a planner reports to: one bar with the time left, a line now and then, or nothing if quiet."""
    console = terminal(stderr=True)
    if quiet:
        yield None
    elif not console.is_terminal:
        yield _Counts(console)
    else:
        from rich.progress import TimeRemainingColumn  # noqa: PLC0415  (start-up time of what shows no bars)

        with bars(console, TimeRemainingColumn()) as rows:
            task = rows.add_task("simulations", total=None)

            def show(so_far: BatchProgress) -> None:
                failed = f", {so_far.failed} failed" if so_far.failed else ""
                what = f"{so_far.what}, round {so_far.round}" if so_far.round else so_far.what
                rows.update(task, completed=so_far.done + so_far.failed, total=so_far.total, description=what + failed)

            yield show


class _Counts:
    """A line each time another twentieth is done, with the time left where that can be known, for logs."""

    PARTS = 20

    def __init__(self, console: Terminal) -> None:
        self._console = console
        self._total = self._before = self._said = self._round = 0
        self._started = 0.0

    def __call__(self, so_far: BatchProgress) -> None:
        done = so_far.done + so_far.failed
        search = f"round {so_far.round} of the search: " if so_far.round else ""
        if so_far.total != self._total or done < self._said or so_far.round != self._round:
            self._total, self._before, self._said, self._started = so_far.total, done, done, time.perf_counter()
            self._round = so_far.round
            if done:
                self._say(f"{search}{done:,} of {so_far.total:,} simulations are there already")
            return
        if (done - self._said) * self.PARTS < so_far.total and done < so_far.total:
            return
        self._said = done
        each = (time.perf_counter() - self._started) / max(1, done - self._before)
        left = f", about {_time(each * (so_far.total - done))} left" if done < so_far.total and not so_far.round else ""
        failed = f", {so_far.failed} failed" if so_far.failed else ""
        self._say(f"{search}{done:,} of {so_far.total:,} simulations{failed}{left}")

    def _say(self, words: str) -> None:
        self._console.say(words)


def _time(seconds: float) -> str:
    """Write a time roughly: 12 s, 4 min, 2.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


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
            self._console.say(f"{label}{which}: {count} requests")
