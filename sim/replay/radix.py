"""Replays SGLang's radix tree: match, insert, lock, unlock and evict, by the page.

The recording numbers token slots; a page's block is its first slot divided by the page size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from allocators.content import Tokens
from allocators.radix import RadixTree
from allocators.radixnode import Node
from allocators.runs import Run
from sim.replay.blocks import Names
from sim.replay.recording import Line, Recording, Replay


class RadixReplay(Replay):
    """Operations of a RadixCache against `RadixTree`."""

    def __init__(self, recording: Recording) -> None:
        """Make an empty tree."""
        super().__init__(recording)
        self.page = recording.setting("page_size", 1)
        self.tree = RadixTree()
        self.locked: dict[int, Node] = {}
        self.names = Names()
        self.slots = 0
        """Token slots given to insertions so far."""

    def do_match(self, line: Line) -> dict[str, Any]:
        """Find the longest cached prefix, and lock it if asked to."""
        node = self.tree.match(self._run(line))
        if "lock" in line:
            self.tree.lock(node)
            self.locked[line["lock"]] = node
        indices = self._indices(node.path())
        return self._answer() | {"len": len(indices), "indices": indices}

    def do_insert(self, line: Line) -> dict[str, Any]:
        """Add a sequence; every page of it is given new slots, used or not."""
        run, first = self._run(line), self.slots // self.page
        _, there = self.tree.insert(run, np.arange(first, first + run.pages))
        answer = self._answer() | {"prefix_len": there * self.page, "new_indices_from": self.slots}
        self.slots += run.pages * self.page
        return answer

    def do_unlock(self, line: Line) -> dict[str, Any]:
        """Undo a lock."""
        self.tree.unlock(self.locked.pop(line["lock"]))
        return self._answer()

    def do_evict(self, line: Line) -> dict[str, Any]:
        """Evict at least `n` tokens, leaf by leaf."""
        freed = [self._indices(blocks.tolist()) for blocks in self.tree.evict(-(-line["n"] // self.page))]
        return self._answer() | {"freed": freed, "evicted": sum(map(len, freed))}

    def _run(self, line: Line) -> Run:
        tokens = line["tokens"]
        content = Tokens(tokens, self.names.root(line.get("extra_key"), line.get("cache_salt")))
        return Run(content, self.page, 0, len(tokens) // self.page)

    def _indices(self, blocks: list[int]) -> list[int]:
        return [block * self.page + slot for block in blocks for slot in range(self.page)]

    def _answer(self) -> dict[str, Any]:
        evictable, protected = self.tree.evictable * self.page, self.tree.protected * self.page
        return {"evictable": evictable, "protected": protected, "total": evictable + protected}
