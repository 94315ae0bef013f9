"""The plan: what one step runs.  A scheduler makes it, an executor runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from allocators.base import Copy
    from sim.jobs import Job


class Chunk(NamedTuple):
    """Part of one job's known tokens, to be computed in this step."""

    job: Job
    start: int
    """Tokens already in the cache."""
    tokens: int
    """Tokens computed now."""


@dataclass(slots=True)
class Plan:
    """One step: the first `decodes` decoding sequences in running order advance by a token, and `chunks` prefill."""

    decodes: int = 0
    chunks: list[Chunk] = field(default_factory=list)
    admitted: list[Job] = field(default_factory=list)
    """Jobs taken from the queue, resumed ones included, in order."""
    preempted: list[Job] = field(default_factory=list)
    """Jobs that lost their memory, in order."""
    copies: list[Copy] = field(default_factory=list)
    """K/V blocks to copy on the device before the step."""
    copied_tokens: int = 0
    """Tokens whose K/V is copied on the device, by those copies or by moving a whole sequence."""
    swapped_blocks: int = 0
    """Blocks moved over PCIe, both ways."""
    swaps_out: list[Copy] = field(default_factory=list)
    swaps_in: list[Copy] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to run."""
        return not self.decodes and not self.chunks
