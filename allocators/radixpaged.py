"""Paged allocation with SGLang's cache: what outlives its sequence is kept in a radix tree.

Everything but the fate of cached blocks is as in `allocators.paged`.  A cached block is not
in the free queue but in the tree (`allocators.radix`); when the queue runs dry, the least
recently used leaf that no sequence's path goes through gives up all its blocks.

The new pages of a prompt are one node and the output behind it is another, which grows with
it.  A page that is in the tree already is not added again: the sequence that has filled it
a second time takes part in the first one and gives its own block back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from allocators.base import Ask, CorruptionError, Grant, Ints, Refusal
from allocators.blockpool import BlockPool
from allocators.content import Content
from allocators.leap import spread
from allocators.options import Option
from allocators.paged import PagedAllocator
from allocators.radix import Node, RadixTree
from allocators.rows import Bools, Naming


class RadixPool(BlockPool):
    """Blocks whose cached ones are the pages of a tree."""

    def __init__(self, num_blocks: int) -> None:
        """Make a pool in which every block is free."""
        super().__init__(num_blocks)
        self.tree = RadixTree()

    @property
    def free(self) -> int:
        """Blocks that can be taken: those in the queue, and pages that no sequence's path goes through."""
        return len(self.queue) + self.tree.evictable

    @property
    def held(self) -> int:
        """Blocks that some sequence holds."""
        return self.num_blocks - len(self.queue) - self.cached

    def take(self, count: int) -> tuple[Ints, Ints]:
        """See `BlockPool.take`; leaves are evicted, whole, when the queue is empty."""
        place, evicted = len(self.queue), np.zeros(count, np.int64)
        for leaf in self.tree.evict(count - place):
            blocks = np.array(leaf, np.int64)
            self.cache.forget(blocks)
            self.queue.give_back(blocks)
            self.cached -= len(leaf)
            self.evicted += len(leaf)
            evicted[place] = len(leaf)
            place += len(leaf)
        return super().take(count)[0], evicted

    def share(self, blocks: Ints) -> None:
        """See `BlockPool.share`; besides, the path through those that are in the tree is locked until `unlock`."""
        node = self.path(blocks)
        self.tree.touch(node)
        self.tree.lock(node)
        super().share(blocks)

    def join(self, block: int) -> None:
        """Give a page of the tree, whose path is locked already, one more holder."""
        super().share(np.array([block], np.int64))

    def path(self, blocks: Ints) -> Node:
        """Return the node that ends with the last of a row's blocks that is in the tree, splitting one if need be."""
        pages = blocks[self.cache.key[blocks] != 0]
        return self.tree.ending(int(pages[-1])) if len(pages) else self.tree.root

    def forget(self) -> None:
        """Drop every key and with it the tree; its blocks go to the back of the queue."""
        self.queue.give_back(self.cached_blocks())
        self.tree = RadixTree()
        super().forget()

    def _keep(self, blocks: Ints) -> None:
        """Leave cached blocks in the tree."""

    def _revive(self, blocks: Ints) -> None:
        """Leave cached blocks in the tree."""

    def queued(self) -> Ints:
        """See `BlockPool.queued`."""
        return np.flatnonzero((self.references[1:] == 0) & (self.cache.key[1:] == 0)) + 1

    def check(self, references: Ints) -> None:
        """See `BlockPool.check`."""
        super().check(references)
        self.tree.check()
        pages = {block: key for node in self.tree for block, key in zip(node.blocks, node.keys, strict=True)}
        if pages != {int(block): int(self.cache.key[block]) for block in np.flatnonzero(self.cache.key)}:
            raise CorruptionError("the tree does not hold just the blocks that have keys")


class RadixAllocator(PagedAllocator):
    """A pool whose cached blocks are the pages of a radix tree."""

    kind: ClassVar[str] = "radix"
    options: ClassVar[Mapping[str, Option]] = MappingProxyType(
        {"block_size": Option(int, 1, "token slots a page", minimum=1, maximum=1024)}
    )
    pool_type: ClassVar[type[BlockPool]] = RadixPool
    pool: RadixPool

    def __init__(self, num_blocks: int, block_size: int, max_model_len: int, max_rows: int = 256) -> None:
        """Make an empty pool; arguments as for every `Allocator`."""
        super().__init__(num_blocks, block_size, max_model_len, max_rows, prefix_cache=True)
        self.nodes: dict[int, Node] = {}
        """Where each row's tokens end in the tree: what its lock protects."""

    def admit(self, ask: Ask) -> Grant | Refusal:
        """See `Allocator.admit`.  The prompt's new pages are a node of their own."""
        answer = super().admit(ask)
        if isinstance(answer, Grant) and self.nodes[answer.row].locks == 1:
            self.nodes[answer.row].growing = False
        return answer

    def fork(self, row: int, output: int | None = None, content: Content | None = None) -> Grant:
        """See `Allocator.fork`."""
        grant = super().fork(row, output, content)
        self.pool.tree.lock(self.nodes[row])
        self.pool.tree.unlock(self.nodes[grant.row])
        self.nodes[grant.row] = self.nodes[row]
        return grant

    def open_row(self, blocks: Ints, length: int) -> int:
        """See `SharingRows.open_row`."""
        row = super().open_row(blocks, length)
        self.nodes[row] = self.pool.path(blocks)
        return row

    def close_row(self, row: int) -> None:
        """See `SharingRows.close_row`.  The end of a sequence is a use of its path."""
        super().close_row(row)
        node = self.nodes.pop(row)
        self.pool.tree.touch(node)
        self.pool.tree.unlock(node)

    def enter(self, naming: Naming) -> None:
        """See `SharingRows.enter`."""
        if len(naming.keys) > len(set(naming.rows)) and self.order_matters(naming) is None:
            self._enter_new(naming)
            return
        pool, nodes, cells = self.pool, self.nodes, self.table.blocks.data
        keys, blocks = [], []
        for key, row, column in zip(*naming, strict=True):
            own = cells[row, column]
            nodes[row], is_new = pool.tree.follow(nodes[row], key, own)
            if is_new:
                keys.append(key)
                blocks.append(own)
            else:
                there = nodes[row].blocks[-1]
                pool.join(there)
                cells[row, column] = there
                pool.let_go(np.array([own], np.int64))
        pool.cache.enter(keys, np.array(blocks, np.int64))

    def _enter_new(self, naming: Naming) -> None:
        """Do `enter` for pages none of which is there: what each row adds is a run of its own."""
        blocks = self.table.blocks[naming.rows, naming.columns].astype(np.int64)
        runs: dict[int, tuple[list[int], list[int]]] = {}
        for key, row, block in zip(naming.keys, naming.rows, blocks.tolist(), strict=True):
            run = runs.get(row)
            if run is None:
                run = runs[row] = [], []
            run[0].append(key)
            run[1].append(block)
        for row, (keys, own) in runs.items():
            node, _ = self.pool.tree.follow(self.nodes[row], keys[0], own[0])
            self.nodes[row] = node
            self.pool.tree.extend(node, keys[1:], own[1:])
        self.pool.cache.enter(naming.keys, blocks)

    def can_grow(self, rows: Ints, lengths: Ints) -> bool:
        """See `Allocator.can_grow`.  A page that somebody else holds already costs its block for a moment only."""
        if super().can_grow(rows, lengths):
            return True
        if lengths.max() > self.max_model_len or self.turns(rows, lengths) is None:
            return False
        due, need, _ = self._demand(rows, lengths)
        free, shared, size = self.pool.free, set[int](), self.block_size
        for row, length, blocks in zip(rows[due], lengths[due].tolist(), need.tolist(), strict=True):
            if blocks > free:
                return False
            columns = np.arange(self.table.length[row] // size, length // size)
            keys = self.name(np.full(len(columns), row), columns).keys
            free -= blocks - sum(key in shared or self._is_held(key) for key in keys)
            shared.update(keys)
        return True

    def _is_held(self, key: int) -> bool:
        block = self.pool.cache.find(key)
        return bool(block and self.pool.references[block])

    def order_matters(self, naming: Naming) -> int | None:
        """See `SharingRows.order_matters`: a page that is there may be evicted, or not, by who comes before."""
        keys, known = naming.keys, self.pool.cache
        if len(set(keys)) == len(keys) and known.lacks(keys):
            return None
        return next(place for place, key in enumerate(keys) if known.find(key) or key in keys[:place])

    def turns(self, rows: Ints, lengths: Ints) -> Bools | None:
        """See `PagedAllocator.turns`."""
        full = self.table.length[rows] // self.block_size
        who, nth = spread(lengths // self.block_size - full)
        alone = len(rows) < 2 or self.order_matters(self.name(rows[who], full[who] + nth)) is None
        return None if alone else np.ones(len(rows), np.bool_)

    def check(self) -> None:
        """See `Allocator.check`."""
        super().check()
        if self.nodes.keys() != set(self.table.rows()):
            raise CorruptionError("a row that is not open has a place in the tree, or one that is has none")
        locks = Counter(id(node) for end in self.nodes.values() for node in end.ancestry())
        if any(node.locks != locks[id(node)] for node in self.pool.tree):
            raise CorruptionError("a node is not locked just by the rows whose path goes through it")
        if self.pool.tree.evictable != self.pool.cached:
            raise CorruptionError("a page that nobody holds is locked, or one that is held is not")
        for row, content in self.contents.items():
            pages = int(self.table.length[row]) // self.block_size
            keys = [key for node in [*self.nodes[row].ancestry()][::-1] for key in node.keys]
            if keys != content.keys(self.block_size, pages)[:pages]:
                raise CorruptionError(f"the place of row {row} in the tree is not that of its tokens")
