"""The prefix cache: which physical blocks hold tokens that another sequence may need.

A full block is identified by a key that stands for every token from the start of its sequence
to the end of the block (`allocators.content`).  Two blocks may have the same key, because a block
that was computed twice is not replaced in its table; a look-up finds the older one.  A cached
block keeps its key after its sequence has ended, until it is taken for other tokens.

As an optimisation, blocks that follow an entered one may be *folded*: kept as a run behind its key.  Whoever looks for
any of them has that key among those of its own tokens, as a key stands for all tokens before it.  So their keys, which
usually nobody asks for, are found and entered only when somebody comes with the key that they are behind.
"""

from __future__ import annotations

from collections import deque
from itertools import repeat
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from allocators.compiled import mypyc_attr
from allocators.content import Run, key_in
from allocators.errors import CorruptionError
from allocators.table import Ints

if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST = 16
"""Keys to look up in the first round."""


class Folded(NamedTuple):
    """A run of blocks behind a key."""

    age: int
    """Number of runs that were begun before it."""
    run: Run
    """What the blocks are, as far as their first page is concerned; how many there are is in `blocks`."""
    blocks: list[int]
    """The blocks, in logical order.  Those that were evicted are still listed, and may be listed again further on."""

    def keys(self, group: int) -> list[int]:
        """Return the keys that the blocks would have in a group (see `key_in`)."""
        return self.run._replace(stop=self.run.start + len(self.blocks), group=group).keys


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
        self._runs: dict[int, list[Folded]] = {}
        """Key -> the runs that are folded behind it, at most one for each group of layers."""
        self._begun = 0
        """Runs begun so far."""

    def __len__(self) -> int:
        """Blocks that have a key."""
        return int(np.count_nonzero(self.key))

    @property
    def empty(self) -> bool:
        """Whether no block has a key."""
        return not self._oldest and not self._runs

    @property
    def folds(self) -> bool:
        """Whether any run is folded."""
        return bool(self._runs)

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
        """Keep blocks, which have no keys yet, as a run behind `key`, or at the end of the run that is there.

        Args:
            key: of a block before them, whatever the group (see `key_in`).
            run: what they are.
            blocks: int64[run.pages], the blocks.

        """
        self.key[blocks] = key_in(run.group, key)
        self.folded[blocks] = True
        behind = self._behind(key, run.group)
        if behind is not None:
            behind.blocks.extend(blocks.tolist())
            return
        if len(self._runs) > len(self.key):  # more than there are blocks: drop those of which nothing is left
            self._runs = {
                each: runs for each, runs in self._runs.items() if any(len(self._there(each, one)) for one in runs)
            }
        self._runs.setdefault(key, []).append(Folded(self._begun, run, blocks.tolist()))
        self._begun += 1

    def fold_one(self, key: int, group: int, block: int) -> bool:
        """Do `fold` for one block, if there is a run of its group behind `key`; return whether there is."""
        behind = self._behind(key, group)
        if behind is None:
            return False
        self.key[block] = key_in(group, key)
        self.folded[block] = True
        behind.blocks.append(block)
        return True

    def _behind(self, key: int, group: int) -> Folded | None:
        """Return the run of a group behind a key."""
        for behind in self._runs.get(key, ()):
            if behind.run.group == group:
                return behind
        return None

    def unfold(self, keys: Sequence[int]) -> bool:
        """Enter the runs that are folded behind any of `keys`; return whether there was a block to enter.

        So are those behind any key of these runs: the same tokens may have been computed before.
        """
        if not self._runs or self._runs.keys().isdisjoint(keys):
            return False
        found: list[tuple[int, int, Folded]] = []
        near = [key for key in keys if key in self._runs]
        while near:
            key = near.pop()
            for behind in self._runs.pop(key, ()):
                found.append((behind.age, key, behind))
                near += [each for each in behind.keys(0) if each in self._runs]
        found.sort(key=itemgetter(0))  # as they were computed
        there = [self._unfold_one(key, behind) for _, key, behind in found]
        return any(there)

    def _unfold_one(self, key: int, behind: Folded) -> bool:
        there = self._there(key, behind)
        blocks = np.array(behind.blocks, np.int64)[there]
        self.folded[blocks] = False
        keys = behind.keys(behind.run.group)
        self.enter([keys[place] for place in there.tolist()], blocks)
        return len(blocks) > 0

    def _there(self, key: int, behind: Folded) -> Ints:
        """Return int64[k]: the places in a run of blocks that have not been taken since."""
        blocks = np.array(behind.blocks, np.int64)
        places = np.flatnonzero(self.folded[blocks] & (self.key[blocks] == key_in(behind.run.group, key)))
        last = dict(zip(blocks[places].tolist(), places.tolist(), strict=True))  # of a block that came back
        return places if len(last) == len(places) else np.array(sorted(last.values()), np.int64)

    def forget(self, blocks: Ints) -> None:
        """Remove the keys of blocks, which must have one."""
        every = blocks
        if self._runs:
            blocks = blocks[~self.folded[blocks]]
            self.folded[every] = False
        keys = self.key[blocks].tolist()
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
        for key, runs in self._runs.items():
            for behind in runs:
                listed += np.array(behind.blocks, np.int64)[self._there(key, behind)].tolist()
        if len(set(listed)) != len(listed) or len(listed) != len(self):
            raise CorruptionError(f"{len(self)} blocks carry a key, {len(listed)} are listed under one")
