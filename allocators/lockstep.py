"""Allocators whose rows hold exactly their tokens, so that every row's slots change in every step."""

from __future__ import annotations

from abc import abstractmethod

from allocators.answers import Ask, Grant, Refusal
from allocators.base import Allocator
from allocators.compiled import mypyc_attr
from allocators.content import Content
from allocators.errors import AllocatorError
from allocators.table import Ints

CELLS = 1 << 16
"""Most lengths, rows times steps, that one leap looks at."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class ExactRows(Allocator):
    """An allocator whose rows have as many slots as tokens; whatever else it holds for them is rounding."""

    @property
    def rounds_up(self) -> bool:
        """See `Allocator.rounds_up`."""
        return True

    @abstractmethod
    def open_row(self, tokens: int, whole: int, spare: int, samples: int) -> Grant | Refusal:
        """Open a row of `tokens` tokens, if there is room for `samples` rows of `whole` and `spare` blocks besides."""

    def admit(self, ask: Ask) -> Grant | Refusal:
        """See `Allocator.admit`."""
        if ask.tokens < 1:
            raise AllocatorError(f"{self.kind}: a sequence has at least one token, got {ask.tokens}")
        return self.open_row(ask.tokens, max(ask.tokens, ask.whole), ask.spare, ask.samples)

    def fork(self, row: int, output: int | None = None, content: Content | None = None) -> Grant | Refusal:
        """See `Allocator.fork`.  Nothing is shared: all tokens are copied."""
        self.demand_open(row)
        length = int(self.table.length[row])
        grant = self.open_row(length, length, 0, 1)
        return grant if isinstance(grant, Refusal) else grant._replace(copied=length)

    def demand_longer(self, rows: Ints, lengths: Ints) -> None:
        """Raise `AllocatorError` unless rows are open and no longer than `lengths`."""
        before = self.table.length[rows]
        if not before.all():
            raise AllocatorError(f"{self.kind}: row {int(rows[before == 0][0])} is not open")
        if (lengths < before).any():
            raise AllocatorError(f"{self.kind}: a sequence cannot shrink")


def most_steps(lengths: Ints, longest: int) -> int:
    """Steps that rows of these lengths can do before one is longer than `longest`, or a leap looks too far."""
    return int(min(longest - lengths.max(initial=0), max(1, CELLS // max(len(lengths), 1))))
