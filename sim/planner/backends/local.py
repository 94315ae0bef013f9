"""This process, or the cores of this machine through loky (joblib's executor)."""

from __future__ import annotations

import signal
from collections import deque
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from typing import TYPE_CHECKING, Any

import joblib
from joblib.externals.loky import get_reusable_executor

from sim.planner.job import Failed, work

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from sim.planner.job import Job, Record


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

    def outcomes(self, jobs: Iterable[Job]) -> Generator[tuple[Job, Record | Failed]]:
        """See `Backend.outcomes`.

        When a process dies, loky gives up everything in flight, so it is not known whose process
        it was.  As only as many jobs are in flight as there are processes, the suspects are few:
        they are done again one at a time, and one that kills its process then is found out.
        """
        waiting = deque(jobs)
        suspects: deque[Job] = deque()
        running: dict[Future[Record | Failed], Job] = {}
        try:
            while waiting or suspects or running:
                queue, room = (suspects, 1) if suspects else (waiting, self.workers)
                while queue and len(running) < room:
                    job = queue.popleft()
                    running[self._executor().submit(work, job)] = job
                alone = queue is suspects
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    outcome = _outcome(future)
                    if outcome is not None:
                        yield job, outcome
                    elif alone:
                        yield job, Failed("its worker died, twice")
                    else:
                        suspects.append(job)
        finally:
            if running:
                self.close()

    def _executor(self) -> Any:
        """Return the pool of processes; a new one if the last was broken."""
        self._pool = get_reusable_executor(max_workers=self.workers, timeout=60, initializer=_deaf)
        return self._pool

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, kill_workers=True)
            self._pool = None


def _deaf() -> None:
    """Leave Ctrl-C to the process that hands out jobs: it ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _outcome(future: Future[Record | Failed]) -> Record | Failed | None:
    """Return what a future holds; None if its process died."""
    try:
        return future.result()
    except BrokenExecutor:
        return None
