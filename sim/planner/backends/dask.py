"""Jobs on a Dask cluster that runs already: one task each."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Any

from sim.errors import UserError
from sim.planner.backends.reach import knock
from sim.planner.job import Failed, work
from workloads.errors import first_line

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from sim.planner.job import Job, Record


class Dask:
    """Does jobs as tasks of a Dask cluster."""

    def __init__(self, address: str | None) -> None:
        """Attach to the scheduler at `address` (tcp://host:port); None is the one of DASK_SCHEDULER_ADDRESS.

        Raises:
            UserError: distributed is not installed, or no scheduler answers.

        """
        try:
            import distributed  # noqa: PLC0415 - optional
        except ImportError:
            raise UserError("--backend dask: distributed is not installed: pip install distributed") from None
        self._distributed = distributed
        address = address or os.environ.get("DASK_SCHEDULER_ADDRESS")
        if address is None:
            raise UserError(
                "--backend dask: give --address, such as tcp://127.0.0.1:8786 (start one with: dask scheduler)"
            )
        try:
            if address.startswith("tcp://"):
                knock(address)
            self._client = distributed.Client(address, timeout="10s", set_as_default=False)
        except (OSError, ValueError) as error:
            raise UserError(f"--backend dask: no scheduler at {address}: {first_line(error)}") from None
        self.workers = max(1, sum(self._client.nthreads().values()))

    def outcomes(self, jobs: Iterable[Job]) -> Generator[tuple[Job, Record | Failed]]:
        """See `Backend.outcomes`.

        Dask gives a task whose worker died to another one, as often as its setting
        `distributed.scheduler.allowed-failures` says, 3 times unless changed.
        """
        waiting = deque(jobs)
        running: dict[Any, Job] = {}
        done = self._distributed.as_completed(loop=self._client.loop)
        try:
            while waiting or running:
                while waiting and len(running) < 2 * self.workers:
                    job = waiting.popleft()
                    future = self._client.submit(work, job, pure=False)
                    running[future] = job
                    done.add(future)
                future = next(done)
                yield running.pop(future), _outcome(future)
        finally:
            if running:
                self._client.cancel(list(running), force=True)

    def close(self) -> None:
        """Leave the cluster, which goes on."""
        self._client.close()


def _outcome(future: Any) -> Record | Failed:
    error = future.exception()
    if error is not None:
        died = type(error).__name__ == "KilledWorker"
        return Failed("its worker died, again and again" if died else f"on its worker: {first_line(error)}")
    outcome: Record | Failed = future.result()
    return outcome
