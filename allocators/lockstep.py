"""Allocators whose rows hold exactly their tokens, and their leaps: every row's slots change in every step."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from allocators.answers import Ask, Grant, Leap, Refusal
from allocators.base import Allocator
from allocators.compiled import mypyc_attr
from allocators.content import Content
from allocators.errors import AllocatorError
from allocators.table import Ints

CELLS = 1 << 16
"""Most changes, rows times steps, that one leap lists."""


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
    """Steps that rows of these lengths can do before one is longer than `longest`, or a leap is too long to list."""
    return int(min(longest - lengths.max(initial=0), max(1, CELLS // max(len(lengths), 1))))


def lockstep(lengths: Ints, steps: int, held: Ints, rounding: Ints, copied: int = 0) -> Leap:
    """List a leap in which every row has one slot more after each step.

    Args:
        lengths: int64[n], tokens before the first step.
        steps: how many were done.
        held: int64[steps], as in `Leap`.
        rounding: int64[steps], as in `Leap`.
        copied: tokens copied before the first step.

    """
    count = len(lengths)
    when = np.repeat(np.arange(steps), count)
    who = np.arange(steps * count) % count
    slots = (lengths + np.arange(1, steps + 1)[:, None]).ravel()
    return Leap(steps, when, who, slots, held, np.zeros(steps, np.int64), (), copied, rounding)
