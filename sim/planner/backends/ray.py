"""Jobs on a Ray cluster that runs already: one task each, on one core."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from sim.errors import UserError
from sim.planner.backends.reach import knock
from sim.planner.job import Failed, work
from workloads.errors import first_line

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from sim.planner.job import Job, Record


class Ray:
    """Does jobs as tasks of a Ray cluster."""

    def __init__(self, address: str | None) -> None:
        """Attach to the cluster at `address` (host:port or ray://host:port); None is the one of this machine.

        Raises:
            UserError: Ray is not installed, or no cluster answers.

        """
        try:
            import ray  # noqa: PLC0415 - optional
        except ImportError:
            raise UserError("--backend ray: Ray is not installed: pip install ray") from None
        self._ray = ray
        self._ours = not ray.is_initialized()
        try:
            if address is not None:
                knock(address)
            if self._ours:
                ray.init(address=address or "auto", log_to_driver=False, logging_level="ERROR", configure_logging=False)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            where = address or "this machine"
            why = first_line(error)
            raise UserError(f"--backend ray: no cluster at {where}: {why} (start one with: ray start --head)") from None
        self.workers = max(1, int(ray.cluster_resources().get("CPU", 1)))

    def outcomes(self, jobs: Iterable[Job]) -> Generator[tuple[Job, Record | Failed]]:
        """See `Backend.outcomes`.  Ray itself does a task again whose process or node died."""
        task = self._ray.remote(num_cpus=1, max_retries=1)(work)
        waiting = deque(jobs)
        running: dict[Any, Job] = {}
        try:
            while waiting or running:
                while waiting and len(running) < 2 * self.workers:
                    job = waiting.popleft()
                    running[task.remote(job)] = job
                done, _ = self._ray.wait(list(running), num_returns=1)
                for reference in done:
                    yield running.pop(reference), self._outcome(reference)
        finally:
            for reference in running:
                self._ray.cancel(reference, force=True)

    def _outcome(self, reference: Any) -> Record | Failed:
        try:
            outcome: Record | Failed = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:  # the task could not even begin
            return Failed(f"on its worker: {first_line(error.cause)}")
        except self._ray.exceptions.RayError:
            return Failed("its worker died, twice")
        return outcome

    def close(self) -> None:
        """Leave the cluster, which goes on."""
        if self._ours:
            self._ray.shutdown()
