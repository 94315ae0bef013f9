"""The radix tree of SGLang's RadixAttention: cached prefixes as paths from a root.

An edge holds a run of pages (blocks), a node stands at its end; two sequences share a path
as far as their pages agree, to the page.  A node is *locked* while somebody uses a path
through it.  Eviction takes whole leaves that nobody uses, the least recently used first,
so a prefix outlives everything that continues it.

Pages are known by their keys (`allocators.content`), which stand for everything from the
start: a namespace (SGLang's `extra_key`, `cache_salt`) is a root of keys.  Time is a count.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from allocators.base import AllocatorError, CorruptionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Node:
    """A run of pages that begins where its parent's ends."""

    __slots__ = ("blocks", "children", "growing", "keys", "locks", "parent", "used")

    def __init__(self, keys: list[int], blocks: list[int], parent: Node | None, used: int) -> None:
        """Make an unlocked node without children."""
        self.keys = keys
        self.blocks = blocks
        self.parent = parent
        """None for the root, and for a node that was evicted."""
        self.children: dict[int, Node] = {}
        """By the key of their first page."""
        self.locks = 0
        self.used = used
        """Time of last use."""
        self.growing = False
        """Whether it is the end of a sequence that may still grow, and has never had a child: then it grows too."""

    def __lt__(self, other: Node) -> bool:
        """Make nodes that were used at one time comparable: a heap needs it, but no two leaves are."""
        return len(self.keys) < len(other.keys)

    def ancestry(self) -> Iterator[Node]:
        """Go from this node up to the root, which is left out."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent

    def path(self) -> list[int]:
        """Return the blocks from the root to the node's end."""
        return [block for node in [*self.ancestry()][::-1] for block in node.blocks]


class RadixTree:
    """Prefixes of pages, shared, locked and evicted leaf by leaf."""

    def __init__(self) -> None:
        """Make an empty tree."""
        self.root = Node([], [], None, 0)
        self.evictable = 0
        """Pages in nodes that nobody has locked."""
        self.protected = 0
        """Pages in locked nodes."""
        self._time = 0
        self._heap: list[tuple[int, Node]] = []
        """(Time of use, leaf) of every leaf that may be evicted, among entries that are no longer true."""
        self._nodes = 0
        self._home: dict[int, Node] = {}
        """Block -> the node that holds it."""

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

    def find(self, keys: Sequence[int]) -> list[int]:
        """Return the blocks of the longest prefix of `keys` in the tree.  Changes nothing."""
        blocks: list[int] = []
        node = self.root
        while len(blocks) < len(keys) and keys[len(blocks)] in node.children:
            node = node.children[keys[len(blocks)]]
            same = _common(node.keys, keys, len(blocks))
            blocks += node.blocks[:same]
            if same < len(node.keys):
                break
        return blocks

    def match(self, keys: Sequence[int]) -> Node:
        """Find the longest prefix of `keys`, mark it used, and return the node that ends with it.

        A node in the middle of which it ends is split.
        """
        return self._descend(self.root, keys)[0]

    def insert(self, keys: Sequence[int], blocks: Sequence[int], start: Node | None = None) -> tuple[Node, int]:
        """Add what is not there yet of a sequence of pages.

        Args:
            keys: the pages, behind `start`.
            blocks: their blocks; those of pages that are there already are not taken over.
            start: the node where the sequence begins, by default the root.

        Returns:
            The node that ends with the sequence, and how many of its pages were there.

        """
        node, there = self._descend(start or self.root, keys)
        if there < len(keys):
            leaf = Node(list(keys[there:]), list(blocks[there:]), node, self._tick())
            node.children[keys[there]] = leaf
            node.growing = False
            self._home.update(dict.fromkeys(leaf.blocks, leaf))
            self._nodes += 1
            self.evictable += len(leaf.keys)
            self._offer(leaf)
            node = leaf
        return node, there

    def follow(self, node: Node, key: int, block: int) -> tuple[Node, bool]:
        """Go one page on from a node that the caller has locked, once, and lock where it leads instead.

        A page that is not there yet is added: to the node itself if it is the end of the
        caller's own growing sequence, else as a new node.

        Returns:
            The node that ends with the page, and whether `block` was added for it.

        """
        if node.growing and node.locks == 1:
            node.keys.append(key)
            node.blocks.append(block)
            self._home[block] = node
            self.protected += 1
            return node, True
        child, there = self.insert([key], [block], node)
        child.growing = child.growing or not there
        self._lock(child)
        return child, not there

    def extend(self, node: Node, keys: Sequence[int], blocks: Sequence[int]) -> None:
        """Add pages to the end of a growing sequence that its caller alone has locked, once; no page follows there."""
        node.keys += keys
        node.blocks += blocks
        self._home.update(dict.fromkeys(blocks, node))
        self.protected += len(keys)

    def home(self, block: int) -> Node:
        """Return the node that holds `block`, which is in the tree."""
        return self._home[block]

    def ending(self, block: int) -> Node:
        """Return the node that ends with `block`, which is in the tree; a node that goes on behind it is split."""
        node = self._home[block]
        pages = node.blocks.index(block) + 1
        return node if pages == len(node.blocks) else self._split(node, pages)

    def touch(self, node: Node) -> None:
        """Mark the path to `node` as used."""
        time = self._tick()
        for each in node.ancestry():
            each.used = time
        self._offer(node)

    def lock(self, node: Node) -> None:
        """Protect the path to `node` from eviction, once more."""
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
        for each in node.ancestry():
            each.locks -= 1
            if not each.locks:
                self.evictable += len(each.keys)
                self.protected -= len(each.keys)
        self._offer(node)

    def evict(self, pages: int) -> list[list[int]]:
        """Remove unlocked leaves, the least recently used first, until `pages` pages are gone or none is left.

        Returns:
            The blocks of each leaf, in the order of eviction.

        """
        gone: list[list[int]] = []
        while pages > 0 and self._heap:
            used, leaf = heappop(self._heap)
            if used != leaf.used or not self._is_evictable(leaf):
                continue
            gone.append(leaf.blocks)
            pages -= len(leaf.blocks)
            self.evictable -= len(leaf.blocks)
            for block in leaf.blocks:
                del self._home[block]
            parent, leaf.parent = leaf.parent, None
            self._nodes -= 1
            if parent is not None:
                del parent.children[leaf.keys[0]]
                self._offer(parent)
        return gone

    def check(self) -> None:
        """Raise `CorruptionError` at the first invariant that does not hold."""
        nodes = list(self)
        offered = {id(leaf) for used, leaf in self._heap if used == leaf.used}
        for node in (self.root, *nodes):
            for key, child in node.children.items():
                if child.parent is not node or child.keys[0] != key:
                    raise CorruptionError(f"the child under key {key} is not where it belongs")
                if child.locks > node.locks and node is not self.root:
                    raise CorruptionError("a node is locked more often than its parent")
            if len(node.keys) != len(node.blocks) or bool(node.keys) == (node is self.root):
                raise CorruptionError(f"a node has {len(node.keys)} keys for {len(node.blocks)} blocks")
            if self._is_evictable(node) and id(node) not in offered:
                raise CorruptionError("a leaf could be evicted, but would never be")
        pages = [sum(len(node.keys) for node in nodes if bool(node.locks) is locked) for locked in (False, True)]
        if pages != [self.evictable, self.protected]:
            counted = [self.evictable, self.protected]
            raise CorruptionError(f"{pages} pages are evictable and protected, counted {counted}")
        if self._home != {block: node for node in nodes for block in node.blocks}:
            raise CorruptionError("a block is not in the node where it is sought")
        if len(nodes) != self._nodes:
            raise CorruptionError(f"the tree has {len(nodes)} nodes, counted {self._nodes}")

    def _descend(self, node: Node, keys: Sequence[int]) -> tuple[Node, int]:
        """Follow `keys` from `node`, marking what is passed as used; return where they end and how many were found."""
        time, found = self._tick(), 0
        while found < len(keys) and keys[found] in node.children:
            child = node.children[keys[found]]
            same = _common(child.keys, keys, found)
            child.used = time
            self._offer(child)
            node = child if same == len(child.keys) else self._split(child, same)
            found += same
        return node, found

    def _split(self, node: Node, pages: int) -> Node:
        """Put the first pages of a node into a new parent of it."""
        parent = node.parent
        if parent is None:
            raise AllocatorError("the root has no pages to split")
        upper = Node(node.keys[:pages], node.blocks[:pages], parent, self._tick())
        upper.locks = node.locks
        self._home.update(dict.fromkeys(upper.blocks, upper))
        parent.children[upper.keys[0]] = upper
        node.parent, node.keys, node.blocks = upper, node.keys[pages:], node.blocks[pages:]
        upper.children[node.keys[0]] = node
        self._nodes += 1
        return upper

    def _lock(self, node: Node) -> None:
        if not node.locks:
            self.evictable -= len(node.keys)
            self.protected += len(node.keys)
        node.locks += 1

    def _is_evictable(self, node: Node) -> bool:
        return node.parent is not None and not node.locks and not node.children

    def _offer(self, node: Node) -> None:
        """Enter a node for eviction if it may be evicted; sweep the heap when most of it is out of date."""
        if self._is_evictable(node):
            heappush(self._heap, (node.used, node))
            if len(self._heap) > 4 * self._nodes + 64:
                self._heap = [(leaf.used, leaf) for leaf in self if self._is_evictable(leaf)]
                heapify(self._heap)

    def _demand_in_tree(self, node: Node) -> None:
        if node is not self.root and node.parent is None:
            raise AllocatorError("the node was evicted")


def _common(run: Sequence[int], keys: Sequence[int], start: int) -> int:
    """Count the pages that `run` and `keys[start:]` begin with alike."""
    most = min(len(run), len(keys) - start)
    return next((place for place in range(most) if run[place] != keys[start + place]), most)
