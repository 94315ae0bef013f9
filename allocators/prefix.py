"""The prefix cache: which physical blocks hold tokens that another sequence may need.

A full block is known by a key that stands for every token from the start of its sequence
to the block's end (`allocators.content`).  Two blocks may carry one key, because tables
are append-only and a block computed twice is not replaced; a look-up answers the oldest.
What is cached outlives its sequence, until its block is taken for something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from allocators.base import CorruptionError, Ints
from allocators.compiled import mypyc_attr

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class PrefixCache:
    """Key -> blocks, and block -> key."""

    def __init__(self, num_blocks: int) -> None:
        """Know nothing about the blocks 1 to `num_blocks`."""
        self.key = np.zeros(num_blocks + 1, np.int64)
        """int64[num_blocks + 1]: each block's key, 0 if it has none."""
        self._blocks: dict[int, list[int]] = {}

    def __len__(self) -> int:
        """Blocks that have a key."""
        return int(np.count_nonzero(self.key))

    @property
    def empty(self) -> bool:
        """Whether no block has a key."""
        return not self._blocks

    def find(self, key: int) -> int:
        """Return the oldest block with this key, or 0."""
        blocks = self._blocks.get(key)
        return blocks[0] if blocks else 0

    def carries(self, block: int, key: int) -> bool:
        """Whether a block has this key."""
        return bool(self.key[block] == key)

    def sole(self, key: int) -> bool:
        """Whether just one block has this key."""
        return len(self._blocks.get(key, ())) == 1

    def lacks(self, keys: Iterable[int]) -> bool:
        """Whether none of these keys is known."""
        return self._blocks.keys().isdisjoint(keys)

    def run(self, keys: Sequence[int]) -> list[int]:
        """Return the blocks of the longest prefix of `keys` that is cached."""
        found: list[int] = []
        for key in keys:
            blocks = self._blocks.get(key)
            if not blocks:
                break
            found.append(blocks[0])
        return found

    def window(self, keys: Sequence[int], enough: int) -> list[int]:
        """Return the longest prefix of `keys` of which the last `enough` are cached, 0 standing for those before.

        If there is none, what `run` returns.
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
        """Give each block its key; the blocks must have none.  Later ones are younger."""
        self.key[blocks] = keys
        for key, block in zip(keys, blocks.tolist(), strict=True):
            self._blocks.setdefault(key, []).append(block)

    def forget(self, blocks: Ints) -> None:
        """Take their keys from blocks that have one."""
        for key, block in zip(self.key[blocks].tolist(), blocks.tolist(), strict=True):
            same = self._blocks[key]
            same.remove(block)
            if not same:
                del self._blocks[key]
        self.key[blocks] = 0

    def clear(self) -> None:
        """Forget every key."""
        self.key[:] = 0
        self._blocks.clear()

    def check(self) -> None:
        """Raise `CorruptionError` unless both directions say the same."""
        for key, blocks in self._blocks.items():
            if not blocks:
                raise CorruptionError(f"key {key} is listed without a block")
            for block in blocks:
                if self.key[block] != key:
                    raise CorruptionError(f"block {block} is listed under key {key} but carries {self.key[block]}")
        listed = [block for blocks in self._blocks.values() for block in blocks]
        if len(set(listed)) != len(listed) or len(listed) != len(self):
            raise CorruptionError(f"{len(self)} blocks carry a key, {len(listed)} are listed under one")
