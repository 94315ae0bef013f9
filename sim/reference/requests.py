"""A request and its sequences, as plain objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sim.engine.jobs import NEVER

if TYPE_CHECKING:
    from allocators.content import Content


@dataclass(eq=False, slots=True)
class Sequence:
    """One stream of tokens with a row of the block table (of the host's while swapped out)."""

    row: int
    tokens: int
    """Tokens whose K/V is in the cache."""


@dataclass(eq=False, slots=True)
class Request:
    """A request from arrival to its end.  All its sequences are equally long."""

    index: int
    arrival: int
    """Nanoseconds, as all times here."""
    prompt: int
    wanted: int
    """Output tokens asked for."""
    output: int
    """... and cut to the model's context."""
    samples: int
    content: Content
    part: str | None = None
    """Of the mix; None if there is none."""
    reason: str = ""
    sequences: list[Sequence] = field(default_factory=list)
    """Empty while it waits without memory."""
    swapped: bool = False
    decoding: bool = False
    """Whether its known tokens were all computed since it was last admitted."""
    generated: int = 0
    """Output tokens known, of each sample."""
    furthest: int = 0
    """Most tokens of a sequence that were ever in the cache: what lies below is computed again."""
    scheduled: int = NEVER
    first_token: int = NEVER
    last_token: int = NEVER
    finished: int = NEVER
    cached: int = 0
    recomputed: int = 0
    swapped_blocks: int = 0
    preemptions: int = 0
    stalls: list[int] = field(default_factory=list)

    @property
    def known(self) -> int:
        """Tokens of each sample: prompt and output so far."""
        return self.prompt + self.generated

    @property
    def computed(self) -> int:
        """Tokens of each sample whose K/V is in the cache."""
        return self.sequences[0].tokens if self.sequences else 0

    @property
    def final(self) -> int:
        """Token slots a sample fills in the end: the last token's K/V is never written."""
        return self.prompt + self.output - 1

    def __repr__(self) -> str:
        """Name the request, for messages."""
        return f"request {self.index} ({self.prompt} prompt tokens, {self.generated} of {self.output} output tokens)"
