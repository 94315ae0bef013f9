"""The prefix cache: which physical blocks hold tokens that another sequence may need.

A full block is identified by a key that stands for every token from the start of its sequence
to the end of the block (`allocators.content`).  Two blocks may have the same key, because a block
that was computed twice is not replaced in its table; a look-up finds the older one.  A cached
block keeps its key after its sequence has ended, until it is taken for other tokens.

Nothing is removed from the index when blocks lose their keys: a block counts only as long as it carries the key it is
listed under.

As an optimisation, blocks that follow an entered one may be *folded*: kept as a run behind its key.  Whoever looks for
any of them has that key among those of its own tokens, as a key stands for all tokens before it.  So their keys, which
usually nobody asks for, are found and entered only when somebody comes with the key that they are behind.
"""

from __future__ import annotations

from array import array
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np

from allocators.compiled import mypyc_attr
from allocators.errors import CorruptionError
from allocators.runs import Run, key_in
from allocators.table import Ints

if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST = 16
"""Keys to look up in the first round."""


@mypyc_attr(serializable=True)
class Folded:
    """A run of blocks behind a key."""

    def __init__(self, age: int, mark: int, run: Run) -> None:
        """Begin a run."""
        self.age = age
        """Number of runs begun so far, this one included."""
        self.mark = mark
        """What its blocks carry in the place of a key."""
        self.run = run
        """What the blocks are, as far as their first page is concerned."""
        self.group = run.group
        self.end = run.start
        """The page that would follow."""
        self.blocks = array("i")
        """The blocks, in logical order.  Those evicted are still listed, and may be listed again further on."""

    def append(self, block: int) -> None:
        """Put a block at the end, which must be marked, too."""
        self.blocks.append(block)
        self.end += 1

    def at(self, places: Ints) -> Ints:
        """Return int64[k]: the blocks in some places."""
        return np.frombuffer(self.blocks, np.int32)[places].astype(np.int64)

    def keys(self, group: int, count: int) -> list[int]:
        """Return the keys that the first blocks would have in a group (see `key_in`)."""
        return self.run._replace(stop=self.run.start + count, group=group).keys


def _age(found: tuple[Folded, Ints]) -> int:
    return found[0].age


def parted(keys: Ints, blocks: Ints) -> tuple[Ints, Ints]:
    """Part blocks that a row gives back, from its last to its first, into those that have keys and the others."""
    bare = len(keys) - int(np.count_nonzero(keys))
    if not np.count_nonzero(keys[:bare]):  # usually, only the last ones have none
        return blocks[bare:], blocks[:bare]
    return blocks[keys != 0], blocks[keys == 0]


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class PrefixCache:
    """Maps keys to blocks and blocks to keys.  Several are passed as a list of n keys and int64[n] of block ids."""

    def __init__(self, num_blocks: int) -> None:
        """Make a cache in which none of the blocks 1 to `num_blocks` has a key."""
        self.key = np.zeros(num_blocks + 1, np.int64)
        """int64[num_blocks + 1]: each block's key, 0 if none; for a folded block, the mark of its run."""
        self._oldest: dict[int, int] = {}
        """Key -> its block, the oldest if there are several; it may have lost the key since."""
        self._younger: dict[int, list[int]] = {}
        """Key -> its other blocks, if any, the oldest first; likewise."""
        self._runs: dict[int, list[Folded]] = {}
        """Key -> the runs that are folded behind it; those behind the oldest keys come first."""
        self._begun = 0
        """Runs begun so far."""

    def __len__(self) -> int:
        """Blocks that have a key."""
        return int(np.count_nonzero(self.key))

    @property
    def unused(self) -> bool:
        """Whether certainly no block has a key, as none has been given since this was made or cleared."""
        return not self._oldest and not self._runs

    @property
    def folds(self) -> bool:
        """Whether any run is folded."""
        return bool(self._runs)

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

    def fold(self, key: int, run: Run, blocks: Ints) -> None:
        """Keep blocks, which have no keys yet, as a run behind `key`, or at the end of the run that is there.

        Args:
            key: of a block before them, whatever the group (see `key_in`).
            run: what they are.
            blocks: int64[run.pages], the blocks.

        """
        behind = self.behind(key, run.group, run.start) or self.begin(key, run)
        behind.blocks.frombytes(blocks.astype(np.int32).tobytes())
        behind.end += len(blocks)
        self.key[blocks] = behind.mark
        while not self._is_there(next(iter(self._runs))):  # the oldest are taken first
            del self._runs[next(iter(self._runs))]

    def behind(self, key: int, group: int, page: int) -> Folded | None:
        """Return the run of a group that is folded behind `key` and goes on with `page`."""
        for behind in self._runs.get(key, ()):
            if behind.group == group and behind.end == page:
                return behind
        return None

    def begin(self, key: int, run: Run) -> Folded:
        """Begin a run behind `key`; `run` says where, and has no block yet."""
        self._begun += 1
        begun = Folded(self._begun, ~key_in(self._begun, key), run)
        self._runs.setdefault(key, []).append(begun)
        return begun

    def _is_there(self, key: int) -> bool:
        """Whether any block of the runs behind a key has not been taken since."""
        for behind in self._runs[key]:
            blocks = np.frombuffer(behind.blocks, np.int32)
            if self.key.item(blocks.item(0)) == behind.mark or (self.key[blocks] == behind.mark).any():
                return True
        return False

    def mark(self, blocks: Sequence[int], marks: Sequence[int]) -> None:
        """Give blocks, which have no keys yet, the marks of the runs to which they were appended."""
        self.key[blocks] = marks

    def unfold(self, keys: Sequence[int]) -> bool:
        """Enter the runs that are folded behind any of `keys`; return whether there was a block to enter.

        So are those behind any key of these runs: the same tokens may have been computed before.
        """
        if not self._runs or self._runs.keys().isdisjoint(keys):
            return False
        found: list[tuple[Folded, Ints]] = []
        near = [key for key in keys if key in self._runs]
        while near:
            for behind in self._runs.pop(near.pop(), ()):
                there = self._there(behind)
                if len(there):
                    found.append((behind, there))
                    near += [each for each in behind.keys(0, there.item(-1) + 1) if each in self._runs]
        found.sort(key=_age)  # as they were computed
        for behind, there in found:
            named = behind.keys(behind.group, there.item(-1) + 1)
            self.enter([named[place] for place in there.tolist()], behind.at(there))
        return bool(found)

    def _there(self, behind: Folded) -> Ints:
        """Return int64[k]: the places in a run of blocks that have not been taken since."""
        blocks = np.frombuffer(behind.blocks, np.int32)
        places: Ints = (self.key[blocks] == behind.mark).nonzero()[0]
        left = blocks[places]
        if len(np.unique(left)) == len(left):
            return places
        last = dict(zip(left.tolist(), places.tolist(), strict=True))  # of a block that came back
        return np.array(sorted(last.values()), np.int64)

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
        self._runs = {key: runs for key, runs in self._runs.items() if any(one.mark in carried for one in runs)}

    def clear(self) -> None:
        """Forget every key."""
        self.key[:] = 0
        self._oldest.clear()
        self._younger.clear()
        self._runs.clear()

    def check(self) -> None:
        """Raise `CorruptionError` unless both directions agree."""
        if not self._younger.keys() <= self._oldest.keys() or not all(self._younger.values()):
            raise CorruptionError("a key is listed without a block")
        listed: list[int] = []
        for key, oldest in self._oldest.items():
            listed += [each for each in (oldest, *self._younger.get(key, ())) if self.key[each] == key]
        for runs in self._runs.values():
            for behind in runs:
                listed += behind.at(self._there(behind)).tolist()
        if len(set(listed)) != len(listed) or len(listed) != len(self):
            raise CorruptionError(f"{len(self)} blocks carry a key, {len(listed)} are listed under one")
