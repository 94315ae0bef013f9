"""What an allocator tells about its pool: counts, and where blocks lie.

Ledgers, cost models, reports and pictures ask this; nothing here changes the pool.  Every allocator defines `usage`,
which is asked in every step.  The defaults of the others suit one that keeps nothing for reuse, shares nothing, maps
no pages, and can give any free block to anyone.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from allocators.answers import NO_MAPPINGS, Mappings, Usage
from allocators.compiled import mypyc_attr
from allocators.regular import RegularGrowth
from allocators.table import Ints


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Counting(RegularGrowth):
    """What can be asked about a pool of `num_blocks` blocks."""

    num_blocks: int

    @abstractmethod
    def usage(self) -> Usage:
        """Return how the pool is used, from running counts in O(1) that `check` verifies."""

    @property
    def capacity(self) -> int:
        """Token slots in the pool."""
        return self.num_blocks * self.block_size

    @property
    def free(self) -> int:
        """Token slots that are neither held nor cached."""
        usage = self.usage()
        return self.capacity - usage.held - usage.cached

    def repeated(self, aside: Sequence[int] = ()) -> int:
        """Count the tokens that rows share: the sum over blocks of (rows that list the block - 1) x tokens in it.

        When all rows decode, this many K/V tokens are read again after they were read for another row.  Where groups
        of layers have blocks of their own, the group that keeps all tokens is counted.  Changes nothing.  Takes O(1)
        plus the length of the excluded rows.

        Args:
            aside: open rows to exclude.

        """
        return 0

    def mappings(self) -> Mappings:
        """Return how many physical pages have been mapped and unmapped so far; calls for pages take time."""
        return NO_MAPPINGS

    def evictions(self) -> int:
        """Return how many cached blocks have been evicted so far to make room."""
        return 0

    def cached_blocks(self) -> Ints:
        """Return int64[k]: ids of the blocks that no row holds and that are kept for reuse, in any order."""
        return np.zeros(0, np.int64)

    def padding(self) -> tuple[Ints, Ints]:
        """Return the blocks that rows hold only because placement rounds up, and that their tables do not list.

        Returns:
            int64[k] rows and int64[k] block ids: one pair for each such block, in any order.

        """
        return np.zeros(0, np.int64), np.zeros(0, np.int64)

    def extents(self, rows: Ints) -> Ints | None:
        """Return int64[n]: blocks that each row holds, `padding` included; None unless each row's are consecutive.

        Args:
            rows: int64[n], open rows.

        """
        return None

    def largest_hole(self) -> int:
        """Token slots in the longest run of free blocks that could be given to one request."""
        return self.free

    def stranded(self, need: int) -> int:
        """Token slots that are free but in holes of fewer than `need` blocks (external fragmentation)."""
        return 0
