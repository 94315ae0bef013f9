"""The prefix cache: which physical blocks hold tokens that another sequence may need.

A full block is identified by a key that stands for every token from the start of its sequence
to the end of the block (`allocators.content`).  Two blocks may have the same key, because a block
that was computed twice is not replaced in its table; a look-up finds the older one.  A cached
block keeps its key after its sequence has ended, until it is taken for other tokens.

Nothing is removed from the index when blocks lose their keys: a block counts only as long as it carries the key it is
listed under.

Blocks that follow an entered one need not be entered until somebody comes to it (`allocators.folded`).
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np

from allocators.compiled import mypyc_attr
from allocators.errors import CorruptionError
from allocators.folded import FoldedBlocks
from allocators.table import Ints

if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST = 16
"""Keys to look up in the first round."""


def parted(keys: Ints, blocks: Ints) -> tuple[Ints, Ints]:
    """Part blocks that a row gives back, from its last to its first, into those that have keys and the others."""
    bare = len(keys) - int(np.count_nonzero(keys))
    if not np.count_nonzero(keys[:bare]):  # usually, only the last ones have none
        return blocks[bare:], blocks[:bare]
    return blocks[keys != 0], blocks[keys == 0]


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class PrefixCache(FoldedBlocks):
    """Maps keys to blocks and blocks to keys.  Several are passed as a list of n keys and int64[n] of block ids."""

    def __init__(self, num_blocks: int) -> None:
        """Make a cache in which none of the blocks 1 to `num_blocks` has a key."""
        super().__init__(num_blocks)
        self._oldest: dict[int, int] = {}
        """Key -> its block, the oldest if there are several; it may have lost the key since."""
        self._younger: dict[int, list[int]] = {}
        """Key -> its other blocks, if any, the oldest first; likewise."""

    def __len__(self) -> int:
        """Blocks that have a key."""
        return int(np.count_nonzero(self.key))

    @property
    def unused(self) -> bool:
        """Whether certainly no block has a key, as none has been given since this was made or cleared."""
        return not self._oldest and not self.folds

    def find(self, key: int) -> int:
        """Return the oldest block with this key, or 0."""
        block = self._oldest.get(key, 0)
        if block and self.key.item(block) != key:
            return next(iter(self.carriers(key)), 0)
        return block

    def carriers(self, key: int) -> list[int]:
        """Return the blocks with this key, the oldest first; leave out of the index those that have lost it."""
        listed = (self._oldest.pop(key, 0), *self._younger.pop(key, ()))
        blocks = [block for block in listed if self.key.item(block) == key]
        if blocks:
            self._oldest[key] = blocks[0]
        if len(blocks) > 1:
            self._younger[key] = blocks[1:]
        return blocks

    def carries(self, block: int, key: int) -> bool:
        """Whether a block has this key."""
        return bool(self.key[block] == key)

    def sole(self, key: int) -> bool:
        """Whether exactly one block has this key."""
        if key in self._younger:
            return len(self.carriers(key)) == 1
        return self.find(key) > 0

    def run(self, keys: Sequence[int]) -> list[int]:
        """Return the blocks of the longest prefix of `keys` that is cached."""
        look_up, count = self._oldest.get, FIRST
        found = list(map(look_up, keys[:count], repeat(0)))  # 0 is no block
        while 0 not in found and count < len(keys):  # more and more at a time: usually few keys hit, or very many
            found += map(look_up, keys[count : 4 * count], repeat(0))
            count *= 4
        if 0 in found:
            del found[found.index(0) :]
        for place in np.flatnonzero(self.key[found] != np.array(keys[: len(found)], np.int64)).tolist():
            found[place] = self.find(keys[place])
            if not found[place]:
                return found[:place]
        return found

    def window(self, keys: Sequence[int], enough: int) -> list[int]:
        """Return the longest prefix of `keys` of which the last `enough` blocks are cached, with 0 for all before them.

        If there is none, return the same as `run`.
        """
        tail: list[int] = []
        for place in range(len(keys) - 1, -1, -1):
            block = self.find(keys[place])
            if not block:
                tail.clear()
                continue
            tail.append(block)
            if len(tail) == enough:
                return [0] * place + tail[::-1]
        return tail[::-1]

    def enter(self, keys: Sequence[int], blocks: Ints) -> None:
        """Give each block its key; the blocks must not have one yet.  Later blocks count as younger."""
        given = blocks.tolist()
        if len(set(keys)) < len(keys):  # blocks of several rows
            for key, block in zip(keys, given, strict=True):
                self.enter_one(key, block)
            return
        oldest = list(map(self._oldest.setdefault, keys, given))
        if oldest != given or not self._younger.keys().isdisjoint(keys):
            there = (self.key[oldest] == np.array(keys, np.int64)).tolist()
            for place, key in enumerate(keys):
                if key in self._younger:
                    self.enter_one(key, given[place])
                elif there[place]:
                    self._younger[key] = [given[place]]
                else:
                    self._oldest[key] = given[place]
        self.key[blocks] = keys

    def enter_one(self, key: int, block: int) -> None:
        """Do `enter` for one block."""
        if key in self._oldest and self.carriers(key):
            self._younger.setdefault(key, []).append(block)
        else:
            self._oldest[key] = block
        self.key[block] = key

    def unfold(self, keys: Sequence[int]) -> bool:
        """Enter what `FoldedBlocks.taken_out` returns; return whether there was a block to enter."""
        found = self.taken_out(keys)
        for behind, there in found:
            named = behind.keys(behind.group, there.item(-1) + 1)
            self.enter([named[place] for place in there.tolist()], behind.at(there))
        return bool(found)

    def forget(self, blocks: Ints) -> None:
        """Remove the keys of blocks."""
        self.key[blocks] = 0
        if len(self._oldest) + len(self._runs) >= 2 * len(self.key):  # most of these are of no block any more
            self._tidy()

    def _tidy(self) -> None:
        """Leave out of the index what no block carries any more."""
        for key in list(self._younger):
            self.carriers(key)
        carried = set(self.key.tolist())
        self._oldest = {key: block for key, block in self._oldest.items() if key in carried}
        self.keep_folded(carried)

    def clear(self) -> None:
        """Forget every key."""
        self.key[:] = 0
        self._oldest.clear()
        self._younger.clear()
        self.keep_folded(set())

    def check(self) -> None:
        """Raise `CorruptionError` unless both directions agree."""
        if not self._younger.keys() <= self._oldest.keys() or not all(self._younger.values()):
            raise CorruptionError("a key is listed without a block")
        listed: list[int] = []
        for key, oldest in self._oldest.items():
            listed += [each for each in (oldest, *self._younger.get(key, ())) if self.key[each] == key]
        listed += self.folded()
        if len(set(listed)) != len(listed) or len(listed) != len(self):
            raise CorruptionError(f"{len(self)} blocks carry a key, {len(listed)} are listed under one")
