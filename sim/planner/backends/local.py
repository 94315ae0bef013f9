"""This process, or the cores of this machine through loky (joblib's executor)."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import joblib
from joblib.externals.loky import get_reusable_executor

from sim.planner.job import Failed, work

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from types import FrameType

    from sim.planner.job import Job, Record

TICK_S = 0.2
"""Seconds after which a wait for jobs looks whether Ctrl-C was pressed, and a worker whether it still has a parent."""


class Here:
    """Does one job after the other in this process."""

    workers = 1

    def outcomes(self, jobs: Iterable[Job]) -> Generator[tuple[Job, Record | Failed]]:
        """See `Backend.outcomes`; here a worker that dies takes everything with it."""
        for job in jobs:
            yield job, work(job)

    def close(self) -> None:
        """Nothing to let go."""


class Cores:
    """Does jobs in processes of this machine."""

    def __init__(self, jobs: int) -> None:
        """Use so many processes; -1 is one a core."""
        self.workers: int = joblib.cpu_count() if jobs == -1 else jobs
        self._pool: Any = None
        self._room: tempfile.TemporaryDirectory[str] | None = None

    def outcomes(self, jobs: Iterable[Job]) -> Generator[tuple[Job, Record | Failed]]:
        """See `Backend.outcomes`.

        When a process dies, loky gives up everything in flight, so it is not known whose process
        it was.  As only as many jobs are in flight as there are processes, the suspects are few:
        they are done again one at a time, and one that kills its process then is found out.
        """
        waiting = deque(jobs)
        suspects: deque[Job] = deque()
        running: dict[Future[Record | Failed], tuple[Job, bool]] = {}
        try:
            with patience() as hurry:
                while waiting or suspects or running:
                    hurry()
                    queue, room = (suspects, 1) if suspects else (waiting, self.workers)
                    while queue and len(running) < room:
                        job = queue.popleft()
                        running[self._executor().submit(work, job)] = job, queue is suspects
                    for future in wait(running, timeout=TICK_S, return_when=FIRST_COMPLETED).done:
                        job, again = running.pop(future)
                        outcome = _outcome(future)
                        if outcome is not None:
                            yield job, outcome
                        elif again:
                            yield job, Failed("its worker died, twice")
                        else:
                            suspects.append(job)
        finally:
            if running:
                self.close()

    def _executor(self) -> Any:
        """Return the pool of processes; a new one if the last was broken."""
        if self._room is None:
            self._room = tempfile.TemporaryDirectory(prefix="kvsim-", ignore_cleanup_errors=True)
        self._pool = get_reusable_executor(
            max_workers=self.workers, timeout=60, initializer=_begin, initargs=(os.getpid(), self._room.name)
        )
        return self._pool

    def close(self) -> None:
        """End the processes, whatever they are doing, and remove what they leave in their temporary folder."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, kill_workers=True)
            self._pool = None
        if self._room is not None:
            self._room.cleanup()
            self._room = None


@contextmanager
def patience() -> Iterator[Callable[[], None]]:
    """Keep Ctrl-C until it is asked for: the pool of processes must not be left in the middle of something.

    Yields what raises KeyboardInterrupt if Ctrl-C was pressed.  A second Ctrl-C does not wait.  SIGTERM, sent by
    `timeout` and cluster schedulers, is the same here: it would end this process alone and leave the others behind.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    pressed: list[int] = []

    def press(number: int, _: FrameType | None) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    def hurry() -> None:
        if pressed:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, press) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield hurry
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _begin(parent: int, room: str) -> None:
    """Prepare a process that does jobs.

    It leaves Ctrl-C to its parent, which ends the others, and does not outlive it: killed, that could end nobody.

    Args:
        parent: the process that hands out jobs.
        room: where temporary files go.

    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tempfile.tempdir = room
    threading.Thread(target=_follow, args=(parent, room), daemon=True).start()


def _follow(parent: int, room: str) -> None:
    """End this process when its parent has ended; whoever follows next adopts it (on Windows nobody does)."""
    while os.getppid() == parent:
        time.sleep(TICK_S)
    shutil.rmtree(room, ignore_errors=True)
    os._exit(1)


def _outcome(future: Future[Record | Failed]) -> Record | Failed | None:
    """Return what a future holds; None if its process died."""
    try:
        return future.result()
    except BrokenExecutor:
        return None
