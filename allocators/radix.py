"""The radix tree of SGLang's RadixAttention: cached prefixes as paths from a root.

An edge holds a run of pages (blocks), and a node is at its end; two sequences share a path as far as
their pages are equal.  A node is *locked* while a sequence uses a path through it.  Eviction removes
whole leaves that no sequence uses, the least recently used first, so a prefix is evicted after
everything that continues it.

Pages are identified by the keys of their content (`allocators.content`), which stand for everything from
the start; a namespace (SGLang's `extra_key`, `cache_salt`) is a root of keys.  Time is a counter of uses.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

import numpy as np

from allocators.compiled import mypyc_attr
from allocators.errors import AllocatorError, CorruptionError
from allocators.radixnode import NOTHING, Node
from allocators.runs import Run
from allocators.table import Ints

if TYPE_CHECKING:
    from collections.abc import Iterator


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class RadixTree:
    """Prefixes of pages, shared, locked and evicted leaf by leaf."""

    def __init__(self) -> None:
        """Make an empty tree."""
        self.root = Node(NOTHING, np.zeros(0, np.int64), None, 0)
        self.evictable = 0
        """Pages in nodes that are not locked."""
        self.protected = 0
        """Pages in locked nodes."""
        self._time = 0
        self._heap: list[tuple[int, Node]] = []
        """(Time of use, leaf) of every leaf that may be evicted, among entries that are no longer true."""
        self._nodes = 0

    def _tick(self) -> int:
        """Return a later instant than any before: time is the order of uses."""
        self._time += 1
        return self._time

    def __iter__(self) -> Iterator[Node]:
        """Go through all nodes but the root, parents before children."""
        stack = [self.root]
        while stack:
            node = stack.pop()
            stack += node.children.values()
            if node is not self.root:
                yield node

    def find(self, run: Run, start: Node | None = None) -> list[int]:
        """Return the blocks of the longest prefix of a run in the tree, which begins behind `start`, else the root.

        Changes nothing.
        """
        found: list[int] = []
        node = start or self.root
        while run.pages and (child := node.children.get(run.key(0))) is not None:
            same = child.run.common(run)
            found += child.blocks[:same].tolist()
            if same < child.run.pages:
                break
            node, run = child, run._replace(start=run.start + same)
        return found

    def match(self, run: Run) -> Node:
        """Find the longest prefix of a run, mark it used, and return the node that ends with it.

        A node in the middle of which it ends is split.
        """
        return self._descend(self.root, run)[0]

    def ending(self, run: Run) -> Node:
        """Return the node that ends with the last page of a run, which is in the tree, without marking it used.

        A node that goes on behind it is split.
        """
        node = self.root
        while run.pages:
            node = node.children[run.key(0)]
            if node.run.pages > run.pages:
                return self._split(node, run.pages)
            run = run._replace(start=run.start + node.run.pages)
        return node

    def insert(self, run: Run, blocks: Ints, start: Node | None = None) -> tuple[Node, int]:
        """Add those pages of a sequence that are not in the tree yet.

        Args:
            run: the pages, which follow `start`.
            blocks: their blocks; those of pages that are in the tree already are not used.
            start: the node at which the sequence begins, by default the root.

        Returns:
            The node that ends with the sequence, and how many of its pages were in the tree.

        """
        node, there = self._descend(start or self.root, run)
        if there < run.pages:
            node = self._add(node, run._replace(start=run.start + there), blocks[there:])
            self.evictable += node.run.pages
            self._offer(node)
        return node, there

    def follow(self, node: Node, run: Run, blocks: Ints) -> tuple[Node, bool]:
        """Move on from a node that the caller has locked once, to the node that `run` leads to, and lock that instead.

        Pages that are not in the tree yet are added: to the node itself if it is the end of the caller's own
        growing sequence, otherwise as a new node.

        Args:
            node: where the caller's sequence ends.
            run: a page, or several of which none is there.
            blocks: their blocks.

        Returns:
            The node that ends with the pages, and whether `blocks` were added for them.

        """
        if node.growing and node.locks == 1:
            node.run = run._replace(start=node.run.start)
            node.blocks = np.concatenate([node.blocks, blocks])
            self.protected += run.pages
            return node, True
        child, there = self._descend(node, run)
        if there:
            self._lock(child)
            return child, False
        child = self._add(node, run, blocks)
        child.growing, child.locks = True, 1
        self.protected += run.pages
        return child, True

    def touch(self, node: Node) -> None:
        """Mark the path to `node` as used."""
        time, each = self._tick(), node
        while each.parent is not None:
            each.used = time
            each = each.parent
        self._offer(node)

    def lock(self, node: Node) -> None:
        """Protect the path to `node` from eviction until it is unlocked as often as it was locked."""
        self._demand_in_tree(node)
        for each in node.ancestry():
            self._lock(each)

    def unlock(self, node: Node) -> None:
        """Undo one `lock`.

        Raises:
            AllocatorError: it is not locked.

        """
        if node is not self.root and not node.locks:
            raise AllocatorError("the node is not locked")
        each = node
        while each.parent is not None:
            each.locks -= 1
            if not each.locks:
                self.evictable += each.run.pages
                self.protected -= each.run.pages
            each = each.parent
        self._offer(node)

    def evict(self, pages: int) -> list[Ints]:
        """Remove unlocked leaves, the least recently used first, until `pages` pages are gone or none is left.

        Returns:
            The blocks of each leaf, in the order of eviction.

        """
        gone: list[Ints] = []
        while pages > 0 and self._heap:
            used, leaf = heappop(self._heap)
            if used != leaf.used or not self._is_evictable(leaf):
                continue
            gone.append(leaf.blocks)
            pages -= leaf.run.pages
            self.evictable -= leaf.run.pages
            parent, leaf.parent = leaf.parent, None
            self._nodes -= 1
            if parent is not None:
                del parent.children[leaf.key]
                self._offer(parent)
        return gone

    def check(self) -> None:
        """Raise `CorruptionError` at the first invariant that does not hold."""
        nodes = list(self)
        offered = {id(leaf) for used, leaf in self._heap if used == leaf.used}
        for node in (self.root, *nodes):
            for key, child in node.children.items():
                if (
                    child.parent is not node
                    or not child.key == key == child.run.key(0)
                    or child.run.start != node.run.stop
                ):
                    raise CorruptionError(f"the child under key {key} is not where it belongs")
                if child.locks > node.locks and node is not self.root:
                    raise CorruptionError("a node is locked more often than its parent")
            if node.run.pages != len(node.blocks) or bool(node.run.pages) == (node is self.root):
                raise CorruptionError(f"a node has {node.run.pages} pages in {len(node.blocks)} blocks")
            if self._is_evictable(node) and id(node) not in offered:
                raise CorruptionError("a leaf could be evicted, but would never be")
        pages = [sum(node.run.pages for node in nodes if bool(node.locks) is locked) for locked in (False, True)]
        if pages != [self.evictable, self.protected]:
            counted = [self.evictable, self.protected]
            raise CorruptionError(f"{pages} pages are evictable and protected, counted {counted}")
        if len(nodes) != self._nodes:
            raise CorruptionError(f"the tree has {len(nodes)} nodes, counted {self._nodes}")

    def _descend(self, node: Node, run: Run) -> tuple[Node, int]:
        """Follow a run from `node` and mark the path as used; return where it ends and how many pages were found."""
        time, begin = self._tick(), run.start
        while run.pages and (child := node.children.get(run.key(0))) is not None:
            same = child.run.common(run)
            child.used = time
            self._offer(child)
            node = child if same == child.run.pages else self._split(child, same)
            run = run._replace(start=run.start + same)
        return node, run.start - begin

    def _add(self, node: Node, run: Run, blocks: Ints) -> Node:
        """Add a child, whose pages the caller counts."""
        leaf = Node(run, blocks, node, self._tick())
        node.children[leaf.key] = leaf
        node.growing = False
        self._nodes += 1
        return leaf

    def _split(self, node: Node, pages: int) -> Node:
        """Put the first pages of a node into a new parent of it."""
        parent, middle = node.parent, node.run.start + pages
        if parent is None:
            raise AllocatorError("the root has no pages to split")
        upper = Node(node.run._replace(stop=middle), node.blocks[:pages], parent, self._tick())
        upper.locks = node.locks
        parent.children[upper.key] = upper
        node.parent, node.run, node.blocks = upper, node.run._replace(start=middle), node.blocks[pages:]
        node.key = node.run.key(0)
        upper.children[node.key] = node
        self._nodes += 1
        return upper

    def _lock(self, node: Node) -> None:
        if not node.locks:
            self.evictable -= node.run.pages
            self.protected += node.run.pages
        node.locks += 1

    def _is_evictable(self, node: Node) -> bool:
        return node.parent is not None and not node.locks and not node.children

    def _offer(self, node: Node) -> None:
        """Add a node to the heap if it may be evicted; rebuild the heap when most of it is out of date."""
        if self._is_evictable(node):
            heappush(self._heap, (node.used, node))
            if len(self._heap) > 4 * self._nodes + 64:
                self._heap = [(leaf.used, leaf) for leaf in self if self._is_evictable(leaf)]
                heapify(self._heap)

    def _demand_in_tree(self, node: Node) -> None:
        if node is not self.root and node.parent is None:
            raise AllocatorError("the node was evicted")
