"""How long steps last in which all sequences only decode, where that follows from their number and their tokens.

A leap asks for some tens of steps, between which the tokens grow by as many as there are sequences.  To compute such a
short array takes as long as to compute one for all tokens from none to thousands, and the same numbers of sequences
decode again and again: so that is done once for each, and leaps cut their steps out of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from allocators.table import Ints
    from sim.costs.model import CostModel

MOST = 1 << 14
"""Tokens up to which durations are kept; with more, sequences are so many that leaps are few."""


class Remembered:
    """Nanoseconds of pure decode steps by number of sequences and tokens in the cache."""

    def __init__(self, cost: CostModel, *, copied: bool = False) -> None:
        """Ask `cost`, whose steps must depend on nothing else; if `copied`, each copies all tokens but the newest."""
        self._cost = cost
        self._copied = copied
        self._tables: dict[int, Ints] = {}
        """By number of sequences: int64[n], nanoseconds of the next step if they have 0 to n - 1 tokens."""

    def steps(self, count: int, known: int, steps: int) -> Ints:
        """Return int64[steps], a new array: the nanoseconds of each of the next steps of `count` sequences.

        Args:
            count: sequences, each of which gets a token in every step.
            known: tokens that they have in the cache, in all.
            steps: how many.

        """
        end = known + count * (steps - 1) + 1
        if end > MOST:
            return self._computed(count, known, end, count)
        table = self._tables.get(count)
        if table is None or len(table) < end:
            table = self._tables[count] = self._computed(count, 0, min(2 * end, MOST), 1)
        return table[known:end:count].copy()

    def _computed(self, count: int, known: int, end: int, stride: int) -> Ints:
        """Compute the steps of `count` sequences that have `known` tokens, or every `stride` more below `end`."""
        contexts = np.arange(known + count, end + count, stride, dtype=np.float64)
        return self._cost.decode_ns(count, contexts, copied=self._copied)
