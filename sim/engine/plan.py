"""The plan: what one step runs.  A scheduler makes it, an executor runs it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from allocators.answers import NO_MAPPINGS, Reason
from sim.engine.jobs import Job

if TYPE_CHECKING:
    from collections.abc import Iterable

    from allocators.answers import Copy, Refusal


class Chunk(NamedTuple):
    """Part of one job's known tokens, to be computed in this step."""

    job: Job
    start: int
    """Tokens already in the cache."""
    tokens: int
    """Tokens computed now."""


class Loss(NamedTuple):
    """What a preemption took, and for whom."""

    request: int
    """Whose memory it was."""
    slots: int
    """Token slots it held."""
    swapped: bool
    """Whether its K/V went to the host."""
    cause: int
    """Request that lacked memory."""
    reason: Reason
    """What it lacked."""


class MoveKind(StrEnum):
    """Where a block goes."""

    COPY = "copy"
    OUT = "out"
    IN = "in"


class Move(NamedTuple):
    """K/V of one whole block to be moved before the step runs."""

    kind: MoveKind
    source: int
    """Device block; host block if the move is in."""
    target: int
    """Device block; host block if the move is out."""


class Plan:
    """One step: the first `decodes` decoding sequences in running order advance by a token, and `chunks` prefill."""

    __slots__ = (
        "admitted",
        "before",
        "behind",
        "chunks",
        "copied_tokens",
        "decodes",
        "exposed",
        "hidden",
        "losses",
        "mappings",
        "moves",
        "preempted",
        "refusal",
        "restored",
        "start",
        "swapped_blocks",
    )

    def __init__(self, decodes: int = 0, chunks: list[Chunk] | None = None, *, copied_tokens: int = 0) -> None:
        """Make a plan for nothing else."""
        self.decodes = decodes
        self.chunks: list[Chunk] = [] if chunks is None else chunks
        self.admitted: list[Job] = []
        """Jobs taken from the queue, resumed ones included, in order."""
        self.preempted: list[Job] = []
        """Jobs that lost their memory, in order."""
        self.losses: list[Loss] = []
        """... and what each of them lost."""
        self.restored: list[Job] = []
        """Those of the admitted jobs that came back from the host."""
        self.refusal: Refusal | None = None
        """Why the last of them had to give up its own memory, if it did."""
        self.moves: list[Move] = []
        """Block moves due before the step, in this order: a block swapped out may be the target of the next copy."""
        self.copied_tokens = copied_tokens
        """Tokens whose K/V is copied on the device, by those copies or by moving a whole sequence."""
        self.swapped_blocks = 0
        """Blocks moved over PCIe, both ways."""
        self.mappings = NO_MAPPINGS
        """Physical pages mapped and unmapped since the step before began."""
        self.start = 0
        """When the step begins, in nanoseconds."""
        self.behind = 0
        """Nanoseconds of the step before if it ran decodes alone, else 0: an engine's host can be at work on this step
        meanwhile."""
        self.before = 0
        """Nanoseconds of the step before after it had its pages: while it runs, those of this one can be mapped, and
        the host can be at work on it."""
        self.hidden = 0
        """Nanoseconds of calls for pages that ran meanwhile; the executor says so."""
        self.exposed = 0
        """... and of those that this step has to wait for."""

    def move(self, kind: MoveKind, blocks: Iterable[Copy]) -> None:
        """Add block moves of one kind."""
        self.moves += [Move(kind, source, target) for source, target in blocks]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to run."""
        return not self.decodes and not self.chunks
