"""Where jobs are run: in this process, on the cores of this machine, on Ray, on Dask.

A backend takes jobs and yields each with its outcome as it comes, in any order.  It guarantees,
whatever happens to its workers, that every job comes back exactly once; a job whose worker died is
run once more and only then given up; leaving the loop early (Ctrl-C) leaves nothing running.
Records are small and written by the caller, so workers need not share its file system.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from sim.errors import UserError
from sim.planner.backends.local import Cores, Here

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from sim.planner.job import Failed, Job, Record

Kind: TypeAlias = Literal["loky", "ray", "dask"]


class Backend(Protocol):
    """Does jobs."""

    @property
    def workers(self) -> int:
        """Jobs done at once."""

    def outcomes(self, jobs: Iterable[Job]) -> Generator[tuple[Job, Record | Failed]]:
        """Do jobs; yield each with its record, or why there is none, as it is done."""

    def close(self) -> None:
        """Let go of the workers; of a cluster, leave it as it was."""


def make(kind: Kind = "loky", jobs: int = 1, address: str | None = None) -> Backend:
    """Make a backend.

    Args:
        kind: loky is the cores of this machine; ray and dask attach to a cluster that runs.
        jobs: processes on this machine; -1 is one a core.  A cluster knows its own.
        address: of the cluster; None finds the one that its own environment variable or default names.

    Raises:
        UserError: the number makes no sense, the package is missing, or there is no cluster.

    """
    if kind == "ray":
        from sim.planner.backends.ray import Ray  # noqa: PLC0415 - optional

        return Ray(address)
    if kind == "dask":
        from sim.planner.backends.dask import Dask  # noqa: PLC0415 - optional

        return Dask(address)
    if address is not None:
        raise UserError("--address: loky has no cluster to attach to; give --backend ray or --backend dask")
    if jobs == 0 or jobs < -1:
        raise UserError(f"--jobs {jobs}: give a number of processes, or -1 for one a core")
    return Here() if jobs == 1 else Cores(jobs)
