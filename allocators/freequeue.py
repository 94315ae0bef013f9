"""The free queue: the blocks that no row holds, in the order in which they will be taken.

vLLM uses a doubly linked list, because a cached block that is reused leaves the queue from the
middle.  Here the queue is a slice of one array: taking `k` blocks reads a slice, giving blocks
back writes one, and a block that leaves from the middle leaves a hole (0), which `take` skips.
Every operation costs amortised O(1) per block and a few NumPy calls, however long the queue is.
"""

from __future__ import annotations

import numpy as np

from allocators.compiled import mypyc_attr
from allocators.errors import CorruptionError
from allocators.table import Ints


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class FreeQueue:
    """A double-ended queue of block ids, each at most once, with removal from the middle.

    Several ids are passed as int64[k].
    """

    def __init__(self, num_blocks: int) -> None:
        """Hold the ids 1 to `num_blocks`, ascending."""
        self._cells = np.zeros(4 * num_blocks, np.int64)
        self._place = np.full(num_blocks + 1, -1, np.int64)
        """The cell into which each id was last put; if the cell holds something else, the id has left the queue."""
        self._begin = self._end = 0
        """The cells from `_head` to `_tail` that are noted in `_place`; the others are noted when that is needed."""
        self._head = self._tail = 0
        self.size = num_blocks
        """Blocks in the queue."""
        self._lay(np.arange(1, num_blocks + 1))

    def __len__(self) -> int:
        """Blocks in the queue."""
        return self.size

    def __contains__(self, block: int) -> bool:
        """Whether `block` is in the queue."""
        self._note()
        place = int(self._place[block])
        return self._head <= place < self._tail and bool(self._cells[place] == block)

    @property
    def _holes(self) -> int:
        """Cells between front and back whose block has been removed."""
        return self._tail - self._head - self.size

    def order(self) -> Ints:
        """Return the ids from front (taken next) to back, as a copy."""
        cells = self._cells[self._head : self._tail]
        return cells[cells > 0]

    def take(self, count: int) -> Ints:
        """Remove the first `count` ids and return them in order.  There must be that many."""
        size = count
        found = self._cells[self._head : self._head + size].copy()
        if self._holes:
            while np.count_nonzero(found) < count:
                size = 2 * size + 8
                found = self._cells[self._head : min(self._head + size, self._tail)]
            places = np.flatnonzero(found)[:count]
            size = int(places[-1]) + 1 if count else 0
            found = found[places]
        self._head += size
        self.size -= count
        return found

    def give_front(self, blocks: Ints) -> None:
        """Add ids at the front: `blocks[0]` will be taken next."""
        if self._head < len(blocks):
            self._lay(self.order())
        self._begin = max(self._begin, self._head)
        self._end = max(self._end, self._begin)
        self._head -= len(blocks)
        self._cells[self._head : self._head + len(blocks)] = blocks
        self.size += len(blocks)

    def give_back(self, blocks: Ints) -> None:
        """Add ids at the back: `blocks[-1]` will be taken last."""
        if self._tail + len(blocks) > len(self._cells):
            self._lay(self.order())
        self._cells[self._tail : self._tail + len(blocks)] = blocks
        self._tail += len(blocks)
        self.size += len(blocks)

    def remove(self, blocks: Ints) -> None:
        """Remove ids from wherever they are.  They must be in the queue."""
        self._note()
        self._cells[self._place[blocks]] = 0
        self.size -= len(blocks)

    def check(self) -> None:
        """Raise `CorruptionError` unless every queued id is in the queue once, in the cell noted for it."""
        if not 0 <= self._head <= self._tail <= len(self._cells):
            raise CorruptionError(f"the free queue runs from {self._head} to {self._tail} of {len(self._cells)} cells")
        cells = self._cells[self._head : self._tail]
        if np.count_nonzero(cells) != self.size:
            raise CorruptionError(f"the free queue has {np.count_nonzero(cells)} blocks, counted {self.size}")
        if len(np.unique(cells[cells > 0])) != len(self):
            raise CorruptionError("a block is in the free queue twice")
        places = np.arange(max(self._head, self._begin), self._end)
        places = places[self._cells[places] > 0]
        blocks = self._cells[places]
        wrong = np.flatnonzero(self._place[blocks] != places)
        if len(wrong):
            block, place = int(blocks[wrong[0]]), int(places[wrong[0]])
            raise CorruptionError(f"free block {block} stands in cell {place}, noted {self._place[block]}")

    def _note(self) -> None:
        """Note the places of all ids in the queue."""
        begin, end = max(self._begin, self._head), max(self._end, self._head)
        for start, stop in (self._head, begin), (end, self._tail):
            self._place[self._cells[start:stop]] = np.arange(start, stop)
        self._begin, self._end = self._head, self._tail

    def _lay(self, blocks: Ints) -> None:
        """Write the queue in the middle of the array, with room on either side for every block that exists."""
        self._begin = self._end = self._head = (len(self._cells) - len(blocks)) // 2
        self._tail = self._head + len(blocks)
        self._cells[self._head : self._tail] = blocks
