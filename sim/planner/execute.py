"""Executing jobs with a backend: results are stored, failures are reported, and nothing is computed twice."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from sim.planner.job import Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sim.planner.backends import Backend
    from sim.planner.job import Job, Record
    from sim.planner.store import Store


class BatchProgress(NamedTuple):
    """How far a batch of jobs has come."""

    done: int
    """Jobs with a record, those that were there before included."""
    total: int
    failed: int
    what: str
    """The job that came back last, or what begins."""
    round: int = 0
    """Which batch of a search it is, from 1: nobody knows how many will follow.  0 if it is the only one."""


@dataclass
class JobRunner:
    """Runs jobs and remembers their results, with a directory, a backend and a callback for progress."""

    store: Store
    backend: Backend
    progress: Callable[[BatchProgress], None] | None = None
    searches: bool = False
    """Whether batch follows on batch."""
    rounds: int = 0
    """Batches so far, of a search."""
    failures: dict[str, Failed] = field(default_factory=dict)
    """By key: jobs that failed in this session; they are not tried again in it."""

    def records(self, jobs: Iterable[Job]) -> dict[str, Record]:
        """Return the record of each job by its key, doing those that are not done.

        Jobs that fail are missing from it and stand in `failures`.
        """
        self.rounds += self.searches
        wanted = {job.key: job for job in jobs}
        found = {key: record for key, job in wanted.items() if (record := self.store.get(job)) is not None}
        rest = [job for key, job in wanted.items() if key not in found and key not in self.failures]
        failed = len(wanted) - len(found) - len(rest)
        self._tell(len(found), len(wanted), failed, "")
        with closing(self.backend.outcomes(rest)) as outcomes:
            for job, outcome in outcomes:
                if isinstance(outcome, Failed):
                    self.failures[job.key] = outcome
                    failed += 1
                else:
                    self.store.put(job, outcome)
                    found[job.key] = outcome
                self._tell(len(found), len(wanted), failed, job.label)
        return found

    def _tell(self, done: int, total: int, failed: int, what: str) -> None:
        if self.progress is not None:
            self.progress(BatchProgress(done, total, failed, what, self.rounds))
