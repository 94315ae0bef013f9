"""Detects what else a machine does during a measurement, with a process that repeats the same work and times it.

Whatever delays a host by milliseconds (another process on its core, another virtual machine on its
hardware, a kernel that checks which memory is in use) shows in a run whose steps take two, and no
simulation foresees it.  So before a run every core is watched for a few seconds and the quietest is
used, and during the run a process on another core writes to some memory over and over and adds up the
time that this took longer than it should.  That is not a core that shares its hardware with the run's
(hyper-threading): what is busy on one such core slows the other down.

    python -m sim.decode.quiet [CPU SECONDS]    watches until its standard input ends, or for that long
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

GAP = 500_000
"""Nanoseconds between two looks at the clock that count; in between each of the pages is written to, in some 20,000."""
PAGES, PAGE = 4096, 4096
LOOK = 20_000_000
"""Nanoseconds after which it looks whether it is still wanted."""
STEAL = 7
"""Place of the stolen time in a line of /proc/stat (proc(5))."""
SECONDS = 4.0
"""For which cores are watched."""
CALM = 0.01
"""Share of the time that others may hold up what is measured without making it worthless."""


class Witnessed(NamedTuple):
    """What a witness saw."""

    seconds: float
    """It was there for."""
    held_up_s: float
    """Of these it was held up, a gap at a time."""
    gaps: int
    longest_s: float

    @property
    def share(self) -> float:
        """Share of the time that it was held up."""
        return self.held_up_s / self.seconds if self.seconds else 0.0


class Watch:
    """What is seen beside one run."""

    share = 0.0
    """Share of the time in which others held up its core, or one beside it; known when the run is over."""


class Quiet:
    """Keeps runs on the core of a machine on which others are at work least, and watches them."""

    def __init__(self, seconds: float = SECONDS) -> None:
        """Watch all cores at once to choose two: one for the runs, one for who watches them."""
        self.cores: tuple[int, ...] = ()
        """The two; none off Linux, where threads are not pinned."""
        if hasattr(os, "sched_getaffinity"):
            watched = {cpu: _start([str(cpu), str(seconds)]) for cpu in sorted(os.sched_getaffinity(0))}
            self.cores = two_of({cpu: _said(process).share for cpu, process in watched.items()}, siblings)

    @contextmanager
    def watched(self) -> Iterator[Watch]:
        """Keep this thread, and those that it starts, on the core, and watch what others do to it."""
        watch, began, before = Watch(), time.perf_counter(), self._stolen_s()
        beside = [] if len(self.cores) == 1 else [_start([str(cpu) for cpu in self.cores[1:]])]  # not on our only core
        shares = []
        try:
            with _pinned(self.cores[:1]):
                yield watch
        finally:
            shares += [_said(witness).share for witness in beside]
        watch.share = max(*shares, (self._stolen_s() - before) / (time.perf_counter() - began), 0.0)

    def _stolen_s(self) -> float:
        """Seconds since the start that the hypervisor has not run the core though it wanted to, if it says so."""
        for line in Path("/proc/stat").read_text(encoding="ascii").splitlines() if self.cores else ():
            name, *ticks = line.split()
            if name == f"cpu{self.cores[0]}" and len(ticks) > STEAL:
                return int(ticks[STEAL]) / os.sysconf("SC_CLK_TCK")
        return 0.0


def two_of(shares: Mapping[int, float], siblings: Callable[[int], Collection[int]]) -> tuple[int, ...]:
    """Choose a core for runs and, if there is one, another for who watches them.

    Args:
        shares: of the time that each core was held up.
        siblings: tells which cores share a core's hardware, itself included.

    """

    def disturbed(cpu: int) -> tuple[float, float]:
        return max(shares.get(each, 0.0) for each in siblings(cpu)), shares[cpu]

    first, *others = sorted(shares, key=disturbed)
    apart = [cpu for cpu in others if cpu not in siblings(first)]
    return (first, *(apart or others)[:1])


def siblings(cpu: int) -> set[int]:
    """Return the logical cores of one physical core, as Linux tells; where it tells of none, the usual neighbours.

    A virtual machine may not know.  Siblings are then numbered one after the other, or half of all apart.
    """
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    known = set(_listed(path.read_text(encoding="ascii"))) if path.exists() else set()
    count = os.cpu_count() or 1
    return known if len(known) > 1 else {cpu, cpu ^ 1, (cpu + count // 2) % count}


def _listed(text: str) -> Iterator[int]:
    """Read a list of cores such as `0,8` or `0-1`."""
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


@contextmanager
def _pinned(cores: Collection[int]) -> Iterator[None]:
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def look(seconds: float | None = None) -> Witnessed:
    """Look at the clock for some time, or until standard input ends."""
    began = last = time.perf_counter_ns()
    following, held, gaps, longest = began + LOOK, 0, 0, 0
    memory, written = bytearray(PAGES * PAGE), bytes(PAGES)
    while True:
        memory[::PAGE] = written
        now = time.perf_counter_ns()
        gap, last = now - last, now
        if gap > GAP:
            held, gaps, longest = held + gap, gaps + 1, max(longest, gap)
        if now > following:
            following = now + LOOK
            if select([sys.stdin], [], [], 0)[0] if seconds is None else now - began > seconds * 1e9:
                return Witnessed((now - began) / 1e9, held / 1e9, gaps, longest / 1e9)


def _start(words: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "sim.decode.quiet", *words]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603  our own


def _said(process: subprocess.Popen[bytes]) -> Witnessed:
    said, _ = process.communicate()
    facts: dict[str, Any] = json.loads(said)
    return Witnessed(**facts)


def main(words: list[str]) -> None:
    """Look, on one core if it is named, and for so long if that is said; then say what was seen."""
    if words:
        os.sched_setaffinity(0, {int(words[0])})
    sys.stdout.write(json.dumps(look(*map(float, words[1:]))._asdict()))


if __name__ == "__main__":
    main(sys.argv[1:])
