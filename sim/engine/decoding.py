"""The decoding sequences, stored so that a step costs nothing for sequences to which nothing happens.

All of them advance by one token per step, so none is updated: a clock counts the steps, and the
state of a sequence is stored relative to it.  A sequence that started at clock `c` with `n` tokens
has `clock + start` tokens, where `start = n - c`, and it gets its last token when the clock reaches
`end`.  A calendar lists which sequences end when, so a step looks only at its own page.  (The
calendar of which sequences need memory when is in `sim.engine.growing`.)
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections import Counter
from heapq import heappop, heappush
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence as Several

    from sim.engine.jobs import Job
    from workloads.requests import Requests

    Ints = npt.NDArray[np.int64]


class Sequence:
    """One sequence while it decodes."""

    __slots__ = ("due", "end", "final", "last", "order", "owner", "row", "slots", "start")

    def __init__(self, owner: Job, row: int, slots: int, order: int, clock: int) -> None:
        """Start with the tokens that `owner` has computed."""
        self.owner = owner
        self.row = row
        self.slots = slots
        """Token slots it holds, as far as the engine knows."""
        self.order = order
        """Position in running order: by ticket, then by number within its job."""
        self.start = owner.computed - clock
        """Tokens in the cache minus the clock."""
        self.end = clock + owner.output - owner.generated
        """Clock at which it gets its last token."""
        self.final = owner.final
        """Token slots that it will have used when it ends."""
        self.due = clock
        """Clock at the end of the step for which the allocator must next be asked."""
        self.last = owner.last_token
        """When it got its most recent token, if not at the same time as the others."""


MOST = 1 << 20
"""Most sequences of one job."""
in_order = attrgetter("order")


def enter(page: list[Sequence], sequence: Sequence) -> None:
    """Insert a sequence in a list that is in running order; usually at the end."""
    if not page or page[-1].order < sequence.order:
        page.append(sequence)
    else:
        insort(page, sequence, key=in_order)


class Decoding:
    """The decoding sequences in running order."""

    ROW = 0
    LENGTH = 1
    TICKET = 2
    REQUEST = 3

    def __init__(self, requests: Requests | None = None) -> None:
        """Start empty; of `requests` it needs to know which parts they belong to, if they are a mix."""
        self._part: npt.NDArray[np.int8] = np.zeros(0, np.int8) if requests is None else requests.part
        self._counts = [0] * (0 if requests is None else len(requests.parts))
        """Sequences of each part of a mix."""
        self.clock = 0
        """Steps decoded so far."""
        self.members: list[Sequence] = []
        self._orders: list[int] = []
        """The `order` of each."""
        self.emitted = 0
        """When the sequences got their most recent token (nanoseconds), except those in `apart`."""
        self.apart: list[Sequence] = []
        """Sequences that got it at another time, which is `Sequence.last`."""
        self._ends: dict[int, list[Sequence]] = {}
        """By clock: the sequences that end then."""
        self._soonest: list[int] = []
        """The keys of `_ends` as a heap, possibly with some that have been removed."""
        self._columns: tuple[array[int], ...] = tuple(array("q") for _ in range(4))
        """Rows, starts, tickets and requests of all sequences, in running order."""

    def __len__(self) -> int:
        """Number of decoding sequences."""
        return len(self.members)

    @property
    def owners(self) -> list[Job]:
        """The job of each sequence."""
        return [sequence.owner for sequence in self.members]

    def column(self, which: int) -> Ints:
        """Return int64[n]: the rows, tokens in the cache, tickets or requests of all sequences, as a copy."""
        column: Ints = np.frombuffer(self._columns[which], np.int64)
        return column + self.clock if which == self.LENGTH else column.copy()

    def rows(self) -> array[int]:
        """Return the rows of all sequences, as a copy."""
        return self._columns[self.ROW][:]

    def longest(self, count: int) -> int:
        """Return the tokens in the cache of the longest of the first `count` sequences, at least one."""
        return int(self.column(self.LENGTH)[:count].max())

    def length(self, sequence: Sequence) -> int:
        """Tokens that a sequence has in the cache."""
        return self.clock + sequence.start

    # -- coming and going ------------------------------------------------------------------

    def insert(self, owner: Job, row: int, slots: int) -> Sequence:
        """Add a sequence of `owner` behind all sequences whose tickets are not larger."""
        members = self.members
        place = count = len(members)
        order = owner.ticket * MOST
        if count and self._orders[-1] >= order:
            place = self.before(owner.ticket + 1)
            if place and self._orders[place - 1] >= order:
                order = self._orders[place - 1] + 1
        sequence = Sequence(owner, row, slots, order, self.clock)
        if not count:
            self.emitted = owner.last_token
        elif owner.last_token != self.emitted:
            self.apart.append(sequence)
        members.insert(place, sequence)
        self._orders.insert(place, order)
        rows, starts, tickets, requests = self._columns
        rows.insert(place, row)
        starts.insert(place, sequence.start)
        tickets.insert(place, owner.ticket)
        requests.insert(place, owner.index)
        if self._counts:
            self._counts[self._part.item(owner.index)] += 1
        self._enter(sequence)
        return sequence

    def remove(self, place: int) -> Sequence:
        """Remove a sequence and return it."""
        sequence = self.members.pop(place)
        del self._orders[place]
        for column in self._columns:
            del column[place]
        self._leave(sequence)
        if self._counts:
            self._counts[self._part.item(sequence.owner.index)] -= 1
        if self.apart and sequence in self.apart:
            self.apart.remove(sequence)
        return sequence

    def place(self, owner: Job) -> int:
        """Place of the first of a job's sequences, which are consecutive; len(self) if it has none."""
        place = self.before(owner.ticket)
        members = self.members
        return place if place < len(members) and members[place].owner is owner else len(members)

    def before(self, ticket: int) -> int:
        """Number of sequences with a smaller ticket."""
        return bisect_left(self._orders, ticket * MOST)

    def settle(self, place: int) -> None:
        """Write the progress of a sequence back to its owner."""
        sequence, owner = self.members[place], self.members[place].owner
        owner.computed = owner.furthest = self.length(sequence)
        owner.generated = owner.output - (sequence.end - self.clock)
        owner.last_token = sequence.last if sequence in self.apart else self.emitted

    def rename(self, place: int, rows: Several[int]) -> None:
        """Assign new rows to the sequences from `place` on."""
        column = self._columns[self.ROW]
        for nth, row in enumerate(rows, place):
            self.members[nth].row = column[nth] = row

    # -- time ------------------------------------------------------------------------------

    def soonest(self) -> int:
        """Steps until the first sequence ends; there must be one."""
        soonest = self._soonest
        while soonest[0] not in self._ends:
            heappop(soonest)
        return soonest[0] - self.clock

    def gap(self, decodes: int, end: int) -> tuple[int, int]:
        """Return the most common time since the last token among the first `decodes` sequences, and how many have it.

        The others have stalled; their times are added to `Job.stalls`.

        Args:
            decodes: sequences that get a token in this step.
            end: when it ends, nanoseconds.

        """
        usual = end - self.emitted
        if not decodes:
            return 0, 0
        if not self.apart:
            return usual, decodes
        members = self.members[:decodes]
        apart = {each: end - each.last for each in self.apart if each.order <= members[-1].order}
        counts = Counter(apart.values())
        counts[usual] += decodes - len(apart)
        gap = min(counts, key=lambda gap: (-counts[gap], gap))
        for sequence in apart if gap == usual else members:
            own = apart.get(sequence, usual)
            if own != gap:
                sequence.owner.stalls.append(own)
        return gap, counts[gap]

    def by_part(self, decodes: int, last: int) -> list[int]:
        """Return how many of the first `decodes` sequences got their last token at `last`, by part of a mix."""
        if decodes == len(self.members) and not self.apart:
            return self._counts
        counts, apart = [0] * len(self._counts), set(self.apart)
        for sequence in self.members[:decodes]:
            if (sequence.last if sequence in apart else self.emitted) == last:
                counts[self._part.item(sequence.owner.index)] += 1
        return counts

    def advance(self, steps: int, now: int, staying: Several[Sequence] = ()) -> list[Sequence]:
        """Let `steps` steps pass, the last of them ending at `now`, for all sequences except those in `staying`.

        Returns:
            The sequences that have ended; they are still members.

        """
        if staying:
            self._hold(staying, steps)
        elif self.apart:
            self.apart.clear()
        self.clock += steps
        self.emitted = now
        return self._ends.get(self.clock, [])

    def _hold(self, staying: Several[Sequence], steps: int) -> None:
        """Shift the last sequences in running order by `steps`, in which they get no token."""
        starts = self._columns[self.LENGTH]
        for place, sequence in enumerate(staying, len(self.members) - len(staying)):
            if sequence not in self.apart:
                sequence.last = self.emitted
            self._leave(sequence)
            sequence.start -= steps
            starts[place] = sequence.start
            sequence.end += steps
            self._enter(sequence)
        self.apart = list(staying)

    def _enter(self, sequence: Sequence) -> None:
        page = self._ends.get(sequence.end)
        if page is None:
            self._ends[sequence.end] = [sequence]
            heappush(self._soonest, sequence.end)
        else:
            enter(page, sequence)

    def _leave(self, sequence: Sequence) -> None:
        page = self._ends[sequence.end]
        page.remove(sequence)
        if not page:
            del self._ends[sequence.end]
