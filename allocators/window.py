"""Sliding-window attention: a token attends to the last `tokens` tokens, itself included.

Tokens further back are never read again, so their blocks can be given back while the sequence
runs, and a prefix hit needs only the blocks that the next token will read.
"""

from __future__ import annotations

from typing import NamedTuple


class Window(NamedTuple):
    """The arithmetic of a window over blocks."""

    tokens: int
    """Tokens that a token attends to, itself included."""
    block_size: int

    def behind(self, length: int) -> int:
        """Leading blocks of a sequence of `length` tokens to which no later token attends."""
        return max(0, length - self.tokens + 1) // self.block_size

    @property
    def reach(self) -> int:
        """Blocks at its end that a prefix hit must have; a hit always ends with a full block."""
        return -(-(self.tokens - 1) // self.block_size)

    def most(self, first: int, final: int, samples: int = 1) -> int:
        """Return the most blocks that `samples` sequences hold while each grows from `first` to `final` tokens.

        They share the full blocks of their first tokens.  In each step they grow one after the other, and those that
        have not yet grown still hold the blocks that the window is about to pass.
        """
        if final < self.tokens and samples == 1:  # nothing is left behind
            return -(-final // self.block_size) if first < final else 0
        if samples == 1 and min(final - first, final - self.tokens) > self.block_size:
            return self.reach + 1  # as much as any length can hold
        if samples == 1:
            lengths = range(first, final)[-self.block_size :]  # what is held depends on the length modulo the block
            return max((-(-(length + 1) // self.block_size) - self.behind(length) for length in lengths), default=0)
        full = first // self.block_size
        most = 0
        repeats = first + self.tokens + 2 * self.block_size  # beyond, each length equals the one a block before
        for length in range(first, min(final, repeats)) if self.behind(final) else range(first, final)[-1:]:
            behind = self.behind(length - 1) if length > first else 0
            own = -(-(length + 1) // self.block_size) - max(full, behind)
            most = max(most, max(0, full - behind) + samples * own)
        return most
