"""Jobs: requests while they are being served.

A job that waits or prefills keeps its counts in the object.  A job that decodes keeps
them in `Decoding`, a struct of arrays over all decoding sequences, because all of them
advance by one token a step and a step must not loop over the batch in Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocators.content import Content

NEVER = -1
"""Stands for an instant that has not come; simulated time starts at 0."""


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
        """Make a job that has just arrived at `arrival` nanoseconds."""
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
        """Place in the running order, given on admission."""
        self.rows: Sequence[int] = ()
        """Rows of the block table: one a sequence once they have forked or are reserved apart."""
        self.host_rows: Sequence[int] = ()
        """Rows of the host's table while swapped out."""
        self.computed = 0
        """Tokens whose K/V is in the cache.  Stale while the job decodes."""
        self.generated = 0
        """Output tokens known, of each sample.  Stale while the job decodes."""
        self.furthest = 0
        """Most tokens ever computed: what lies below is recomputed."""
        self.scheduled = self.first_token = self.last_token = self.finished = NEVER
        self.cached = self.recomputed = self.swapped_blocks = self.preemptions = 0
        self.stalls: list[int] = []

    @property
    def known(self) -> int:
        """Tokens of each sample: prompt and output so far."""
        return self.prompt + self.generated

    @property
    def final(self) -> int:
        """Token slots a sample uses in the end: the last output token is never written."""
        return self.prompt + self.output - 1

    def __repr__(self) -> str:
        """Name the request, for messages."""
        return f"request {self.index} ({self.prompt} prompt tokens, {self.generated} of {self.output} output tokens)"


class Decoding:
    """The decoding sequences in running order, as columns of one int64 array.

    Columns (rows of `_data`): table row, tokens in the cache, output tokens left, ticket,
    slots held, time of the last token.
    """

    ROW, LENGTH, LEFT, TICKET, SLOTS, LAST = range(6)

    def __init__(self) -> None:
        """Start empty."""
        self._data: npt.NDArray[np.int64] = np.zeros((6, 64), np.int64)
        self.owners: list[Job] = []

    def __len__(self) -> int:
        """Sequences that decode."""
        return len(self.owners)

    def column(self, which: int) -> npt.NDArray[np.int64]:
        """One column of all sequences, as a view."""
        return self._data[which, : len(self.owners)]

    def insert(self, owner: Job, row: int, slots: int) -> None:
        """Add a sequence of `owner` behind all with a ticket not larger than its own."""
        count = len(self.owners)
        if count == self._data.shape[1]:
            self._data = np.concatenate([self._data, np.zeros_like(self._data)], axis=1)
        data = self._data
        place = count
        if count and data[self.TICKET, count - 1] > owner.ticket:
            place = int(np.searchsorted(data[self.TICKET, :count], owner.ticket, side="right"))
            data[:, place + 1 : count + 1] = data[:, place:count]
        data[:, place] = (row, owner.computed, owner.output - owner.generated, owner.ticket, slots, owner.last_token)
        self.owners.insert(place, owner)

    def remove(self, place: int) -> None:
        """Drop one sequence."""
        count = len(self.owners)
        self._data[:, place : count - 1] = self._data[:, place + 1 : count]
        del self.owners[place]

    def settle(self, place: int) -> None:
        """Write what the columns know of a sequence back to its owner."""
        owner = self.owners[place]
        column = self._data[:, place]
        owner.computed = owner.furthest = int(column[self.LENGTH])
        owner.generated = owner.output - int(column[self.LEFT])
        owner.last_token = int(column[self.LAST])

    def place(self, owner: Job) -> int:
        """First place of a job's sequences, which stand together; len(self) if it has none."""
        if not self.owners:
            return 0
        if self.owners[-1] is owner and owner.samples == 1:
            return len(self.owners) - 1
        tickets = self.column(self.TICKET)
        place = int(np.searchsorted(tickets, owner.ticket))
        return place if place < len(tickets) and tickets[place] == owner.ticket else len(tickets)
