"""Sliding-window attention: a token attends to the last `tokens` tokens, itself included.

What lies further back is never read again, so its blocks can be given back while the
sequence runs, and a prefix hit needs only the blocks that the next token will read.
"""

from __future__ import annotations

from typing import NamedTuple


class Window(NamedTuple):
    """The arithmetic of a window over blocks."""

    tokens: int
    """Tokens a token attends to, itself included."""
    block_size: int

    def behind(self, length: int) -> int:
        """Blocks that the next token of a sequence of `length` tokens does not reach, nor any after it."""
        return max(0, length - self.tokens + 1) // self.block_size

    @property
    def reach(self) -> int:
        """Blocks in a row that a prefix hit, which ends with a block, must have."""
        return -(-(self.tokens - 1) // self.block_size)

    def most(self, first: int, final: int, samples: int = 1) -> int:
        """Blocks that sequences hold at the most while each grows from `first` to `final` tokens one by one.

        Several share the full blocks of their first tokens.  While one grows, those that have not
        yet grown still hold what the window is about to leave behind.
        """
        if final < self.tokens and samples == 1:  # nothing is left behind
            return -(-final // self.block_size) if first < final else 0
        if samples == 1:
            lengths = range(first, final)[-self.block_size :]  # what is held depends on the length modulo the block
            return max((-(-(length + 1) // self.block_size) - self.behind(length) for length in lengths), default=0)
        full = first // self.block_size
        most = 0
        repeats = first + self.tokens + 2 * self.block_size  # from there on every length does as one a block before
        for length in range(first, min(final, repeats)) if self.behind(final) else range(first, final)[-1:]:
            behind = self.behind(length - 1) if length > first else 0
            own = -(-(length + 1) // self.block_size) - max(full, behind)
            most = max(most, max(0, full - behind) + samples * own)
        return most
