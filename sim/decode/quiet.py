"""What else a machine does while something is measured on it: a process that only looks at the clock notices.

Whatever holds up a host for milliseconds - another process on its core, another virtual machine on
its hardware - shows in a run whose steps take two, and no simulation foresees it.  So another
process spins beside the run, on a core of its own, and adds up the time that it was not running.

    python -m sim.decode.quiet      spins until its standard input ends, and says what it saw
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from select import select
from typing import Any, NamedTuple, Self

GAP = 500_000
"""Nanoseconds between two looks at the clock that count: a look takes a hundred."""
LOOK = 20_000_000
"""Nanoseconds after which it looks whether it is still wanted."""


class Witnessed(NamedTuple):
    """What a witness saw."""

    seconds: float
    """It was there for."""
    held_up_s: float
    """Of these it was not running, a gap at a time."""
    gaps: int
    longest_s: float

    @property
    def share(self) -> float:
        """Share of the time that it was held up."""
        return self.held_up_s / self.seconds if self.seconds else 0.0


class Witness:
    """Spins beside what is done in a `with` block."""

    def __enter__(self) -> Self:
        """Begin to look."""
        command = [sys.executable, "-m", "sim.decode.quiet"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603  our own
        return self

    def __exit__(self, *_: object) -> None:
        """Have it say what it saw."""
        said = self._process.communicate()[0]
        facts: dict[str, Any] = json.loads(said)
        self.seen = Witnessed(**facts)


def look() -> Witnessed:
    """Look at the clock until standard input ends."""
    began = last = time.perf_counter_ns()
    following, held, gaps, longest = began + LOOK, 0, 0, 0
    while True:
        now = time.perf_counter_ns()
        gap, last = now - last, now
        if gap > GAP:
            held, gaps, longest = held + gap, gaps + 1, max(longest, gap)
        if now > following:
            following = now + LOOK
            if select([sys.stdin], [], [], 0)[0]:
                return Witnessed((now - began) / 1e9, held / 1e9, gaps, longest / 1e9)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(look()._asdict()))
