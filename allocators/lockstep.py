"""Allocators in which a row has exactly as many slots as tokens, so that its slots change in every step."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

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
    """An allocator in which a row has as many slots as tokens; everything else that it holds is rounding."""

    @property
    def rounds_up(self) -> bool:
        """See `Allocator.rounds_up`."""
        return True

    @abstractmethod
    def open_row(self, tokens: int, whole: int, spare: int, samples: int) -> Grant | Refusal:
        """Open a row of `tokens` tokens if there is room for `samples` rows of `whole` tokens and `spare` blocks."""

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

    def demand_longer(self, rows: Ints, lengths: Ints) -> Ints:
        """Return int64[n], the lengths of rows; raise `AllocatorError` unless they are open and at most `lengths`."""
        before: Ints = self.table.length[rows]
        if np.count_nonzero(before) < len(before):
            raise AllocatorError(f"{self.kind}: row {int(rows[before == 0][0])} is not open")
        if np.count_nonzero(lengths < before):
            raise AllocatorError(f"{self.kind}: a sequence cannot shrink")
        return before


def most_steps(rows: int, most: int, longest: int) -> int:
    """Return how many steps rows of up to `most` tokens can do before one exceeds `longest`, or the leap its limit."""
    return min(longest - most, max(1, CELLS // max(rows, 1)))
