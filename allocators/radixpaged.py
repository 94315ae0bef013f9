"""Paged allocation with SGLang's cache: blocks that outlive their sequence are kept in a radix tree.

Everything except what happens to cached blocks is as in `allocators.paged`: they are in the tree
(`allocators.radix`), and leave it a leaf at a time (`allocators.radixpool`).

The new pages of a prompt form one node, and the output after it another one, which grows with it.
Until another row reaches the end of that node, pages need not be entered one by one
(`KeyedRows.apart`).  A page that is in the tree already is not added again: a sequence that has
filled a second copy of it switches to the tree's block and gives its own back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, cast

import numpy as np

from allocators.answers import Ask, Grant, Refusal
from allocators.blockpool import BlockPool
from allocators.compiled import mypyc_attr
from allocators.content import Content
from allocators.errors import CorruptionError
from allocators.leap import spread
from allocators.options import BLOCK_SIZE, Option
from allocators.paged import PagedAllocator
from allocators.radixnode import NOTHING, Node
from allocators.radixpool import RadixPool
from allocators.rowkeys import Naming, last_of_each
from allocators.runs import Run
from allocators.table import Bools, Ints


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class RadixAllocator(PagedAllocator):
    """A pool whose cached blocks are the pages of a radix tree."""

    kind: ClassVar[str] = "radix"
    options: ClassVar[Mapping[str, Option]] = MappingProxyType(
        {"block_size": BLOCK_SIZE._replace(default=1, doc="token slots per page")}
    )
    pool_type: ClassVar[type[BlockPool]] = RadixPool

    def __init__(self, num_blocks: int, block_size: int, max_model_len: int, max_rows: int = 256) -> None:
        """Make an empty pool; arguments as for every `Allocator`."""
        super().__init__(num_blocks, block_size, max_model_len, max_rows, prefix_cache=True)
        self.radix = cast("RadixPool", self.pool)
        """`pool`, by its real type."""
        self.nodes: dict[int, Node] = {}
        """The node in which each row's tokens end; the row holds a lock on the path to it."""
        self._begin: Node | None = None
        """The node in which the next row to be opened starts, if not the root."""

    def admit(self, ask: Ask) -> Grant | Refusal:
        """See `Allocator.admit`.  The prompt's new pages form a node of their own."""
        answer = super().admit(ask)
        if isinstance(answer, Grant) and self.nodes[answer.row].locks == 1:
            self.nodes[answer.row].growing = False
        return answer

    def fork(self, row: int, output: int | None = None, content: Content | None = None) -> Grant:
        """See `Allocator.fork`."""
        self.demand_open(row)
        self.rejoin(row)
        self._begin = self.nodes[row]
        self.radix.tree.lock(self._begin)
        return super().fork(row, output, content)

    def open_row(self, blocks: Ints, length: int) -> int:
        """See `SharingRows.open_row`."""
        row = super().open_row(blocks, length)
        self.nodes[row], self._begin = self._begin or self.radix.tree.root, None
        return row

    def is_fresh(self, content: Content, blocks: Ints) -> bool:
        """See `PagedAllocator.is_fresh`."""
        return self.find(content, len(blocks)) == list(blocks)

    def take_part(self, content: Content, blocks: Ints) -> None:
        """See `PagedAllocator.take_part`.  Counts as a use of the path, and locks it until the row is closed."""
        super().take_part(content, blocks)
        self._begin = self.radix.tree.ending(self._run(content, 0, len(blocks)))
        self.radix.tree.touch(self._begin)
        self.radix.tree.lock(self._begin)

    def _run(self, content: Content, start: int, stop: int) -> Run:
        return Run(content, self.block_size, start, stop)

    def close_row(self, row: int) -> None:
        """See `SharingRows.close_row`.  Counts as a use of the row's path."""
        super().close_row(row)
        node = self.nodes.pop(row)
        self.radix.tree.touch(node)
        self.radix.tree.unlock(node)

    def enter(self, naming: Naming) -> None:
        """See `KeyedRows.enter`."""
        self.meet(naming.keys)
        if len(naming.keys) > len(set(naming.rows)) and self.order_matters(naming) is None:
            self._enter_new(naming)
        else:
            self._enter_in_order(naming)
        for row, key, column in last_of_each(naming):
            self._may_part(row, key, column + 1)

    def enter_row(self, row: int, start: int, stop: int) -> None:
        """See `KeyedRows.enter_row`.  If the tree lacks the first page, it lacks all that follow."""
        if start >= stop:
            return
        run = self._run(self.contents[row], start, stop)
        if run.key(0) in self.nodes[row].children:
            self.enter(self.naming(row, start, stop))
        else:
            self._add(row, run)
            self._may_part(row, run.key(run.pages - 1), stop)

    def enter_run(self, row: int, start: int, stop: int) -> None:
        """See `KeyedRows.enter_run`."""
        self._add(row, self._run(self.contents[row], start, stop))

    def leave(self, row: int) -> None:
        """See `KeyedRows.leave`.  The tree stores runs, so nothing need be folded."""
        self.rejoin(row)

    def find(self, content: Content, count: int) -> list[int]:
        """See `PagedAllocator.find`."""
        return self.radix.tree.find(self._run(content, 0, count))

    def _enter_in_order(self, naming: Naming) -> None:
        """Do `enter` page by page: a row that fills a page the tree has already switches to the tree's block."""
        pool, nodes, cells = self.radix, self.nodes, self.table.blocks.data
        for _, row, column in zip(*naming, strict=True):
            own = np.array([cells[row, column]], np.int64)
            nodes[row], is_new = pool.tree.follow(nodes[row], self._run(self.contents[row], column, column + 1), own)
            if is_new:
                pool.add(own)
            else:
                there = int(nodes[row].blocks[-1])
                pool.share(np.array([there], np.int64))
                cells[row, column] = there
                pool.let_go(own)

    def _enter_new(self, naming: Naming) -> None:
        """Do `enter` for pages of which the tree has none: each row adds one run."""
        columns: dict[int, list[int]] = {}
        for row, column in zip(naming.rows, naming.columns, strict=True):
            columns.setdefault(row, []).append(column)
        for row, those in columns.items():
            self._add(row, self._run(self.contents[row], those[0], those[-1] + 1))

    def _add(self, row: int, run: Run) -> None:
        """Extend the tree from where a row ends by pages that it does not have."""
        blocks = self.table.blocks[row, run.start : run.stop].astype(np.int64)
        self.nodes[row], _ = self.radix.tree.follow(self.nodes[row], run, blocks)
        self.radix.add(blocks)

    def _may_part(self, row: int, key: int, entered: int) -> None:
        """Let a row, whose last page has `key`, part if no other row uses or continues the node it ends in."""
        node = self.nodes[row]
        if node.locks == 1 and not node.children:
            self.part(row, key, entered)

    def can_grow(self, rows: Ints, lengths: Ints) -> bool:
        """See `Allocator.can_grow`.  A page that another row holds already costs a block only for a moment."""
        if super().can_grow(rows, lengths):
            return True
        self.gather(rows.tolist())
        if lengths.max() > self.max_model_len or self.turns(rows, lengths) is None:
            return False
        due, need, _ = self._demand(rows, lengths)
        free, shared, size = self.pool.free, set[int](), self.block_size
        for row, length, blocks in zip(rows[due], lengths[due].tolist(), need.tolist(), strict=True):
            if blocks > free:
                return False
            columns = np.arange(self.table.length[row] // size, length // size)
            keys = self.name(np.full(len(columns), row), columns).keys
            run = self._run(self.contents[row], int(columns[0]), int(columns[0]) + len(keys)) if keys else NOTHING
            there = self.radix.tree.find(run, self.nodes[row])
            held = {key for key, block in zip(keys, there, strict=False) if self.pool.references[block]}
            free -= blocks - sum(key in shared or key in held for key in keys)
            shared.update(keys)
        return True

    def order_matters(self, naming: Naming) -> int | None:
        """See `KeyedRows.order_matters`: rows that come before may evict a page that the tree has now."""
        begun, seen = set[int](), set[int]()
        for place, (key, row, _) in enumerate(zip(*naming, strict=True)):
            if key in seen or (row not in begun and key in self.nodes[row].children):
                return place
            begun.add(row)
            seen.add(key)
        return None

    def turns(self, rows: Ints, lengths: Ints) -> Bools | None:
        """See `OnDemandRows.turns`."""
        if self.entangled.isdisjoint(rows.tolist()):
            return None
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
        if any(node.locks != locks[id(node)] for node in self.radix.tree):
            raise CorruptionError("a node is not locked just by the rows whose path goes through it")
        if self.radix.tree.evictable != self.pool.cached:
            raise CorruptionError("a page that nobody holds is locked, or one that is held is not")
        for row, content in self.contents.items():
            pages = int(self.table.length[row]) // self.block_size
            keys = [key for node in [*self.nodes[row].ancestry()][::-1] for key in node.run.keys]
            pages = self.apart.get(row, pages)
            if row in self.apart and (self.nodes[row].locks > 1 or self.nodes[row].children):
                raise CorruptionError(f"row {row} is apart, but not alone where it ends in the tree")
            if keys != content.keys(self.block_size, pages)[:pages]:
                raise CorruptionError(f"the place of row {row} in the tree is not that of its tokens")
