"""How many tokens sharing saves because of some rows.

A pool knows how many rows hold each of its blocks, and how many tokens sharing saves in total.  To exclude some rows
from that total, only the blocks that these rows hold need to be looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from allocators.table import Ints


def shared_with(references: Ints, cells: Sequence[npt.NDArray[np.integer]], lengths: Ints, block_size: int) -> int:
    """Count the tokens that sharing saves and would not save if some rows were closed.

    Args:
        references: int64[blocks + 1], rows that hold each block.
        cells: for each of those rows, its blocks in logical order, none missing.
        lengths: int64[len(cells)], tokens of each of those rows.
        block_size: tokens per block.

    """
    blocks = np.concatenate(cells)
    places = np.concatenate([np.arange(len(each)) for each in cells])
    filled = np.minimum(np.repeat(lengths, [len(each) for each in cells]) - places * block_size, block_size)
    held, first, rows = np.unique(blocks, return_index=True, return_counts=True)
    again = rows - (references[held] == rows)  # if no other row holds a block, its first holder saves nothing
    return int(again @ filled[first])
