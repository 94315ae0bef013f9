"""Folded blocks: cached blocks whose keys are not found until somebody might ask for them.

Blocks that follow an entered one may be *folded*: kept as a run behind its key.  Whoever looks for any of them has that
key among those of its own tokens, as a key stands for all tokens before it.  So their keys, which usually nobody asks
for, are found and entered only when somebody comes with the key that they are behind.  Until then they carry a mark in
the place of a key, which tells those that are still there from those that have been taken for other tokens.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np

from allocators.compiled import mypyc_attr
from allocators.runs import Run, key_in
from allocators.table import Ints

if TYPE_CHECKING:
    from collections.abc import Sequence


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


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class FoldedBlocks:
    """What blocks carry, and the runs of those that are folded.  Several blocks are passed as int64[n] of ids."""

    def __init__(self, num_blocks: int) -> None:
        """Make a cache in which none of the blocks 1 to `num_blocks` has a key."""
        self.key = np.zeros(num_blocks + 1, np.int64)
        """int64[num_blocks + 1]: each block's key, 0 if none; for a folded block, the mark of its run."""
        self._runs: dict[int, list[Folded]] = {}
        """Key -> the runs that are folded behind it; those behind the oldest keys come first."""
        self._begun = 0
        """Runs begun so far."""

    @property
    def folds(self) -> bool:
        """Whether any run is folded."""
        return bool(self._runs)

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
            # The first of what a closed row has left is taken last; what a window has passed before is taken in order.
            if behind.mark in (self.key.item(behind.blocks[0]), self.key.item(behind.blocks[-1])):
                return True
            blocks = np.frombuffer(behind.blocks, np.int32)
            if np.count_nonzero(self.key.take(blocks) == behind.mark):
                return True
        return False

    def mark(self, blocks: Sequence[int], marks: Sequence[int]) -> None:
        """Give blocks, which have no keys yet, the marks of the runs to which they were appended."""
        self.key[blocks] = marks

    def taken_out(self, keys: Sequence[int]) -> list[tuple[Folded, Ints]]:
        """Take out the runs that are folded behind any of `keys`, and those behind any key of these runs.

        (The same tokens may have been computed before.)

        Returns:
            Each run of which a block is still there and their places in it, in the order in which they were begun.

        """
        if not self._runs or self._runs.keys().isdisjoint(keys):
            return []
        found: list[tuple[Folded, Ints]] = []
        near = [key for key in keys if key in self._runs]
        while near:
            for behind in self._runs.pop(near.pop(), ()):
                there = self._there(behind)
                if len(there):
                    found.append((behind, there))
                    near += [each for each in behind.keys(0, there.item(-1) + 1) if each in self._runs]
        found.sort(key=_age)
        return found

    def _there(self, behind: Folded) -> Ints:
        """Return int64[k]: the places in a run of blocks that have not been taken since."""
        blocks = np.frombuffer(behind.blocks, np.int32)
        places: Ints = (self.key[blocks] == behind.mark).nonzero()[0]
        left = blocks[places]
        if len(set(left.tolist())) == len(left):
            return places
        last = dict(zip(left.tolist(), places.tolist(), strict=True))  # of a block that came back
        return np.array(sorted(last.values()), np.int64)

    def keep_folded(self, carried: set[int]) -> None:
        """Forget the runs of which no block carries the mark; `carried` is what blocks carry."""
        self._runs = {key: runs for key, runs in self._runs.items() if any(one.mark in carried for one in runs)}

    def folded(self) -> list[int]:
        """List the blocks that are folded, from all runs."""
        runs = [behind for each in self._runs.values() for behind in each]
        return [block for behind in runs for block in behind.at(self._there(behind)).tolist()]
