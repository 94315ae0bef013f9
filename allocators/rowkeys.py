"""The keys of rows: what the full blocks of each row are called in a prefix cache, and where the row lists them.

Where several groups of layers have blocks of their own, each has them for the same tokens, under keys of its own.  A
block's *place* is its number among those of its row and group; with one group it is the column in the block table.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np

from allocators.base import Allocator
from allocators.compiled import mypyc_attr
from allocators.content import Content
from allocators.runs import Run
from allocators.table import Ints

Left: TypeAlias = tuple[int, int, int, int]
"""A block that a row gives back, as a window has passed it: the row, the group of layers, the block's place among those
of the row, and the block."""


class Naming(NamedTuple):
    """Keys of blocks, and where in the block table they are."""

    keys: list[int]
    rows: list[int]
    columns: list[int]
    """Their places among the blocks of their rows, which are their columns if there is one group."""


def last_of_each(naming: Naming) -> list[tuple[int, int, int]]:
    """Return the last block of each row: (row, key, column)."""
    last = {row: (row, key, column) for key, row, column in zip(*naming, strict=True)}
    return list(last.values())


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class RowKeys(Allocator):
    """The part of an allocator that knows what its rows' tokens are."""

    def __init__(self, num_blocks: int, block_size: int, max_model_len: int, max_rows: int) -> None:
        """Make an empty pool of one group of layers; the arguments are those of `Allocator`."""
        super().__init__(num_blocks, block_size, max_model_len, max_rows)
        self.block_tokens = block_size
        """Tokens of a full block."""
        self.attention = range(1)
        """The groups that keep blocks of tokens."""
        self.first_column = [0]
        """By group: the column of its first block of tokens."""
        self.stride = 1
        """Columns from each of them to the next."""
        self.keeper = 0
        """The group whose blocks rows keep longest."""
        self.contents: dict[int, Content] = {}
        """Identity of the tokens of each row whose full blocks have keys.  Such a row is either entangled or apart."""

    def naming(self, row: int, start: int, stop: int) -> Naming:
        """Find the keys of the blocks in places `[start, stop)` of one row."""
        keys = Run(self.contents[row], self.block_tokens, start, stop).keys
        return Naming(keys, [row] * len(keys), list(range(start, stop)))

    def _full(self, row: int) -> int:
        """Count the full blocks of a row."""
        return self.table.length.item(row) // self.block_tokens

    def _keys(self, row: int, count: int) -> list[int]:
        """Return the keys of the first blocks of a row."""
        if count == 1:  # which is known, from when it was entered
            return [self.contents[row].key(self.block_tokens, 0)]
        return self.contents[row].keys(self.block_tokens, count)[:count]

    def cells(self, row: int, group: int, start: int, stop: int) -> Ints:
        """Return int64[stop - start]: the blocks of a row in some places of a group, 0 where a window has passed."""
        first, stride = self.first_column[group], self.stride
        return self.table.blocks[row, first + start * stride : first + stop * stride : stride].astype(np.int64)

    def _left(self, row: int, group: int) -> int:
        """Count the blocks of a group that a row does not hold because a window has passed them."""
        first, full = self.first_column[group], self._full(row)
        return full - int(np.count_nonzero(self.table.blocks[row, first : first + full * self.stride : self.stride]))

    def _columns(self, group: int, places: list[int]) -> list[int]:
        """Return the columns of some places of a group."""
        first, stride = self.first_column[group], self.stride
        return [first + place * stride for place in places] if first or stride > 1 else places
