"""The prefix cache: which physical blocks hold tokens that another sequence may need.

A full block is identified by a key that stands for every token from the start of its sequence
to the end of the block (`allocators.content`).  Two blocks may have the same key, because a block
that was computed twice is not replaced in its table; a look-up finds the older one.  A cached
block keeps its key after its sequence has ended, until it is taken for other tokens.

As an optimisation, blocks at the end of a sequence that has ended may be *folded*: kept as a run of blocks behind
an entered one.  They can only be found by way of that block, and are evicted before it, because the last blocks of a
sequence are taken first.  So their keys, which usually nobody asks for, are found and entered only when a look-up
reaches that block.
"""

from __future__ import annotations

from collections import deque
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np

from allocators.compiled import mypyc_attr
from allocators.content import Run
from allocators.errors import CorruptionError
from allocators.table import Ints

if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST = 16
"""Keys to look up in the first round."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class PrefixCache:
    """Maps keys to blocks and blocks to keys.  Several are passed as a list of n keys and int64[n] of block ids."""

    def __init__(self, num_blocks: int) -> None:
        """Make a cache in which none of the blocks 1 to `num_blocks` has a key."""
        self.key = np.zeros(num_blocks + 1, np.int64)
        """int64[num_blocks + 1]: each block's key, 0 if none; for a folded block, the key behind which its run is."""
        self.folded = np.zeros(num_blocks + 1, np.bool_)
        """bool[num_blocks + 1]: whether each block is part of a folded run."""
        self._oldest: dict[int, int] = {}
        """Key -> its block, the oldest if there are several."""
        self._younger: dict[int, list[int]] = {}
        """Key -> its other blocks, if any, the oldest first."""
        self._runs: dict[int, tuple[Run, Ints]] = {}
        """Key -> the run that is folded behind it, and its blocks."""

    def __len__(self) -> int:
        """Blocks that have a key."""
        return int(np.count_nonzero(self.key))

    @property
    def empty(self) -> bool:
        """Whether no block has a key."""
        return not self._oldest

    def find(self, key: int) -> int:
        """Return the oldest block with this key, or 0."""
        return self._oldest.get(key, 0)

    def carries(self, block: int, key: int) -> bool:
        """Whether a block has this key."""
        return bool(self.key[block] == key)

    def sole(self, key: int) -> bool:
        """Whether exactly one block has this key."""
        return key in self._oldest and key not in self._younger

    def run(self, keys: Sequence[int]) -> list[int]:
        """Return the blocks of the longest prefix of `keys` that is cached."""
        look_up, count = self._oldest.get, FIRST
        found = list(map(look_up, keys[:count], repeat(0)))  # 0 is no block
        while 0 not in found and count < len(keys):  # more and more at a time: usually few keys hit, or very many
            found += map(look_up, keys[count : 4 * count], repeat(0))
            count *= 4
        return found[: found.index(0)] if 0 in found else found

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
        self.key[blocks] = keys
        given = blocks.tolist()
        oldest = list(map(self._oldest.setdefault, keys, given))
        if oldest != given:
            for key, old, block in zip(keys, oldest, given, strict=True):
                if old != block:
                    self._younger.setdefault(key, []).append(block)

    def fold(self, key: int, run: Run, blocks: Ints) -> None:
        """Keep blocks as a run behind the only block with `key`; neither they nor their keys may be in the cache."""
        self.key[blocks] = key
        self.folded[blocks] = True
        self._runs[key] = run, blocks

    def unfold(self, keys: Sequence[int]) -> bool:
        """Enter the runs that are folded behind any of `keys`; return whether there was a block to enter."""
        if not self._runs or self._runs.keys().isdisjoint(keys):
            return False
        there = [self._unfold_one(key) for key in keys if key in self._runs]
        return any(there)

    def _unfold_one(self, key: int) -> bool:
        run, blocks = self._runs.pop(key)
        blocks = blocks[self.folded[blocks] & (self.key[blocks] == key)]  # the others, at its end, are evicted
        self.folded[blocks] = False
        self.enter(run.keys[: len(blocks)], blocks)
        return len(blocks) > 0

    def forget(self, blocks: Ints) -> None:
        """Remove the keys of blocks, which must have one."""
        every = blocks
        if self._runs:
            blocks = blocks[~self.folded[blocks]]
            self.folded[every] = False
        keys = self.key[blocks].tolist()
        if not self._runs.keys().isdisjoint(keys):
            for key in keys:  # the run behind it was evicted before it
                self._runs.pop(key, None)
        if self._younger.keys().isdisjoint(keys):
            deque(map(self._oldest.pop, keys), 0)
        else:
            for key, block in zip(keys, blocks.tolist(), strict=True):
                self._forget_one(key, block)
        self.key[every] = 0

    def _forget_one(self, key: int, block: int) -> None:
        younger = self._younger.get(key)
        if younger is None:
            del self._oldest[key]
            return
        if self._oldest[key] == block:
            self._oldest[key] = younger.pop(0)
        else:
            younger.remove(block)
        if not younger:
            del self._younger[key]

    def clear(self) -> None:
        """Forget every key."""
        self.key[:] = 0
        self.folded[:] = False
        self._oldest.clear()
        self._younger.clear()
        self._runs.clear()

    def check(self) -> None:
        """Raise `CorruptionError` unless both directions agree."""
        if not self._younger.keys() <= self._oldest.keys() or not all(self._younger.values()):
            raise CorruptionError("a key is listed without a block")
        listed = []
        for key, oldest in self._oldest.items():
            blocks = [oldest, *self._younger.get(key, ())]
            for block in blocks:
                if self.key[block] != key:
                    raise CorruptionError(f"block {block} is listed under key {key} but carries {self.key[block]}")
            listed += blocks
        for key, (run, those) in self._runs.items():
            there = self.folded[those] & (self.key[those] == key)
            if not self.sole(key) or run.pages != len(those) or (np.diff(there.astype(np.int8)) > 0).any():
                raise CorruptionError(f"what is folded behind key {key} is not a run behind one block")
            listed += those[there].tolist()
        if len(set(listed)) != len(listed) or len(listed) != len(self):
            raise CorruptionError(f"{len(self)} blocks carry a key, {len(listed)} are listed under one")
