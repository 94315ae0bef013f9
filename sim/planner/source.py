"""What the requests of a workload are like, as far as it decides how they are planned with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

from workloads.generate import requests
from workloads.source import turns

if TYPE_CHECKING:
    from workloads.read_once import Traces
    from workloads.schema import Workload


class Source(NamedTuple):
    """Where requests come from."""

    different: int | None
    """How many replications differ: a trace is the same every time; None if as many as one likes."""
    shared: bool
    """Whether prompts may begin alike."""

    @classmethod
    def of(cls, workload: Workload, traces: Traces) -> Self:
        """Look at the first replication, and at the one that would be the same if nothing were drawn."""
        again = turns(workload.requests)
        first, other = (requests(workload, repeat, traces=traces) for repeat in (0, again))
        return cls(again if first.same_as(other) else None, first.prefixes is not None)

    @property
    def drawn(self) -> bool:
        """Whether replications differ at all."""
        return self.different != 1

    def replications(self, wanted: int) -> int:
        """Return how many of the replications that are wanted differ from one another."""
        return wanted if self.different is None else min(wanted, self.different)
