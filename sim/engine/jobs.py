"""Jobs: requests while they are being served.

While a job waits or prefills, its progress is stored in the object.  While it decodes, its
sequences store it relative to a clock (`sim.engine.decoding`): all of them advance by one token
per step, and a step must not loop over the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocators.content import Content

NEVER = -1
"""An instant that has not come; simulated time starts at 0."""


class Job:
    """One request in the engine (vLLM's Request; the PagedAttention paper's sequence group)."""

    __slots__ = (
        "arrival",
        "cached",
        "computed",
        "content",
        "finished",
        "first_token",
        "furthest",
        "generated",
        "host_rows",
        "index",
        "last_token",
        "moved",
        "output",
        "preemptions",
        "prompt",
        "reason",
        "recomputed",
        "rows",
        "samples",
        "scheduled",
        "stalls",
        "swapped_blocks",
        "ticket",
        "wanted",
    )

    def __init__(self, index: int, arrival: int, prompt: int, output: int, samples: int, content: Content) -> None:
        """Make a job that arrives at `arrival` nanoseconds."""
        self.index = index
        self.arrival = arrival
        self.prompt = prompt
        self.wanted = output
        self.output = output
        """Output tokens of each sample after cutting to the model's context."""
        self.reason = ""
        self.samples = samples
        self.content = content
        self.ticket = NEVER
        """Position in the running order, set on admission."""
        self.rows: Sequence[int] = ()
        """Rows of the block table: one per sample, but a single one until samples that share blocks fork."""
        self.host_rows: Sequence[int] = ()
        """Rows of the host's table while swapped out."""
        self.computed = 0
        """Tokens whose K/V is in the cache.  Not updated while the job decodes."""
        self.generated = 0
        """Output tokens of each sample so far.  Not updated while the job decodes."""
        self.furthest = 0
        """Most tokens ever computed; computing fewer again is recomputation."""
        self.scheduled = self.first_token = self.last_token = self.finished = NEVER
        self.cached = self.recomputed = self.swapped_blocks = self.preemptions = 0
        self.stalls: list[int] = []
        self.moved = False
        """Whether it has been on the host, where there may still be copies of its blocks."""

    @property
    def known(self) -> int:
        """Tokens of each sample: prompt and output so far."""
        return self.prompt + self.generated

    @property
    def final(self) -> int:
        """Token slots that a sample will have used when it ends: the K/V of its last token is never written."""
        return self.prompt + self.output - 1

    def __repr__(self) -> str:
        """Name the request, for messages."""
        return f"request {self.index} ({self.prompt} prompt tokens, {self.generated} of {self.output} output tokens)"


class StalledError(Exception):
    """The engine cannot make progress; the message names the sequence and the reason."""
