"""What the requests of a workload are like, as far as it decides how they are planned with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

from workloads.generate import requests

if TYPE_CHECKING:
    from workloads.schema import Workload


class Source(NamedTuple):
    """Where requests come from."""

    drawn: bool
    """Whether replications differ: a trace is the same every time."""
    shared: bool
    """Whether prompts may begin alike."""

    @classmethod
    def of(cls, workload: Workload) -> Self:
        """Look at two replications."""
        first, second = (requests(workload, repeat) for repeat in (0, 1))
        return cls(not first.same_as(second), first.prefixes is not None)
