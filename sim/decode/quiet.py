"""What else a machine does while something is measured on it: a process that does the same again and again notices.

Whatever holds up a host for milliseconds - another process on its core, another virtual machine on
its hardware, a kernel that looks who uses which memory - shows in a run whose steps take two, and no
simulation foresees it.  So before a run every core is watched for a few seconds and the quietest is
taken for it, and while it runs a process beside it writes to some memory, over and over, and adds
up the time that this took longer than it should.

    python -m sim.decode.quiet [CPU SECONDS]    looks until its standard input ends, or as long as is said
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
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

GAP = 500_000
"""Nanoseconds between two looks at the clock that count; in between each of the pages is written to, in some 20,000."""
PAGES, PAGE = 4096, 4096
LOOK = 20_000_000
"""Nanoseconds after which it looks whether it is still wanted."""
STEAL = 7
"""Place of the stolen time in a line of /proc/stat (proc(5))."""
SECONDS = 4.0
"""For which cores are watched."""


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


class Witness:
    """Spins beside what is done in a `with` block."""

    def __init__(self, cpu: int | None = None) -> None:
        """Spin on one core, or wherever there is room."""
        self._words = [] if cpu is None else [str(cpu)]

    def __enter__(self) -> Self:
        """Begin to look."""
        self._process = _start(self._words)
        return self

    def __exit__(self, *_: object) -> None:
        """Have it say what it saw."""
        self.seen = _said(self._process)


def quietest(seconds: float = SECONDS) -> list[int]:
    """Watch all cores at once; returns them, those first on which a process was held up least.  Empty off Linux."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    watched = {cpu: _start([str(cpu), str(seconds)]) for cpu in sorted(os.sched_getaffinity(0))}
    shares = {cpu: _said(process).share for cpu, process in watched.items()}
    return sorted(shares, key=shares.__getitem__)


@contextmanager
def pinned(cpu: int | None) -> Iterator[None]:
    """Keep this thread, and those that it starts, on one core."""
    if cpu is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def stolen_s(cpu: int) -> float:
    """Seconds since the start that the hypervisor has not run a core which wanted to; 0.0 where it does not say so."""
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        name, *ticks = line.split()
        if name == f"cpu{cpu}" and len(ticks) > STEAL:
            return int(ticks[STEAL]) / os.sysconf("SC_CLK_TCK")
    return 0.0


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
