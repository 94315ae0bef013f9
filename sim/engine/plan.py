"""Plans: what one step runs.  A scheduler makes a plan, an executor runs it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from allocators.answers import NO_MAPPINGS, Reason
from sim.engine.jobs import Job

if TYPE_CHECKING:
    from collections.abc import Iterable

    from allocators.answers import Copy, Refusal


class Chunk(NamedTuple):
    """A part of one job's tokens that is computed in this step."""

    job: Job
    start: int
    """Tokens already in the cache."""
    tokens: int
    """Tokens computed now."""


class Loss(NamedTuple):
    """What one preemption took, and for whom."""

    request: int
    """The request that lost its memory."""
    slots: int
    """Token slots that it held."""
    swapped: bool
    """Whether its K/V was moved to the host."""
    cause: int
    """The request that needed memory."""
    reason: Reason
    """Why that request was refused."""


class MoveKind(StrEnum):
    """Copies on the device, and swaps out to the host or in from it."""

    COPY = "copy"
    OUT = "out"
    IN = "in"


class Move(NamedTuple):
    """A block whose K/V must be moved before the step runs."""

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
        "unhidden",
        "waited",
    )

    def __init__(self, decodes: int = 0, chunks: list[Chunk] | None = None, *, copied_tokens: int = 0) -> None:
        """Make a plan without admissions, preemptions or block moves."""
        self.decodes = decodes
        self.chunks: list[Chunk] = [] if chunks is None else chunks
        self.admitted: list[Job] = []
        """Jobs taken from the queue, resumed ones included, in order."""
        self.preempted: list[Job] = []
        """Jobs that lost their memory, in order."""
        self.losses: list[Loss] = []
        """What each of them lost."""
        self.restored: list[Job] = []
        """Those of the admitted jobs that were swapped in from the host."""
        self.refusal: Refusal | None = None
        """Why the last preempted job had to give up its own memory, if it did."""
        self.moves: list[Move] = []
        """Block moves to do before the step, in this order: the next move may reuse a block that was swapped out."""
        self.copied_tokens = copied_tokens
        """Tokens whose K/V is copied on the device, by those moves or by copying a whole sequence."""
        self.swapped_blocks = 0
        """Blocks moved over PCIe, in both directions together."""
        self.mappings = NO_MAPPINGS
        """Physical pages mapped and unmapped since the step before began."""
        self.start = 0
        """When the step begins, in nanoseconds."""
        self.before = 0
        """Nanoseconds of the step before, without those for which it waited for pages: while it runs, the pages of
        this one can be mapped, and the host can prepare it, if it does not wait for its end."""
        self.unhidden = False
        """Whether no step hides what the host does for this one: nothing ran before, or the host waited for its end."""
        self.waited = False
        """Whether the host waits for the end of this step before it does anything for the next; set by the executor."""
        self.hidden = 0
        """Nanoseconds of mapping and unmapping pages that the step before hides; set by the executor."""
        self.exposed = 0
        """Nanoseconds of mapping and unmapping pages for which this step waits; set by the executor."""

    def move(self, kind: MoveKind, blocks: Iterable[Copy]) -> None:
        """Add block moves of one kind."""
        self.moves += [Move(kind, source, target) for source, target in blocks]

    @property
    def behind(self) -> int:
        """Nanoseconds, while the step before runs, in which the host can prepare this one."""
        return 0 if self.unhidden else self.before

    @property
    def empty(self) -> bool:
        """Whether there is nothing to run."""
        return not self.decodes and not self.chunks
