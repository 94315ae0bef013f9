"""The radix tree: what it shares, protects and evicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocators.content import Tokens
from allocators.errors import AllocatorError, CorruptionError
from allocators.radix import RadixTree
from allocators.radixnode import Node
from allocators.runs import Run
from allocators.table import Ints


def key(*tokens: int) -> Run:
    """Pages of one token."""
    return Run(Tokens(tokens), 1, 0, len(tokens))


def at(*blocks: int) -> Ints:
    return np.array(blocks, np.int64)


def evicted(tree: RadixTree, pages: int) -> list[list[int]]:
    return [leaf.tolist() for leaf in tree.evict(pages)]


def test_a_prefix_is_found_to_the_page_and_splits_the_node_it_ends_in() -> None:
    tree = RadixTree()
    _, there = tree.insert(key(1, 2, 3, 4), at(11, 12, 13, 14))
    assert there == 0
    assert tree.find(key(1, 2, 9)) == [11, 12]
    assert len(list(tree)) == 1, "finding changes nothing"
    node = tree.match(key(1, 2, 9))
    assert node.path() == [11, 12]
    assert len(list(tree)) == 2
    assert tree.match(key(9)).path() == []
    tree.check()


def test_inserting_takes_over_only_what_is_new() -> None:
    tree = RadixTree()
    tree.insert(key(1, 2, 3), at(11, 12, 13))
    node, there = tree.insert(key(1, 2, 5, 6), at(21, 22, 23, 24))
    assert there == 2
    assert node.path() == [11, 12, 23, 24]
    assert (tree.evictable, tree.protected) == (5, 0)
    tree.check()


def test_the_least_recently_used_leaf_goes_whole() -> None:
    tree = RadixTree()
    tree.insert(key(1, 2, 3), at(11, 12, 13))
    tree.insert(key(1, 5, 6), at(0, 25, 26))
    tree.insert(key(7), at(37))
    tree.match(key(1, 2, 3))
    assert evicted(tree, 1) == [[25, 26]]
    assert evicted(tree, 2) == [[37], [12, 13]]
    assert evicted(tree, 9) == [[11]]
    assert evicted(tree, 1) == []
    tree.check()


def test_what_is_locked_stays_with_all_that_leads_to_it() -> None:
    tree = RadixTree()
    node, _ = tree.insert(key(1, 2, 3), at(11, 12, 13))
    upper = tree.match(key(1, 2))
    tree.lock(upper)
    assert (tree.evictable, tree.protected) == (1, 2)
    assert evicted(tree, 9) == [[13]]
    with pytest.raises(AllocatorError, match="evicted"):
        tree.lock(node)
    tree.unlock(upper)
    with pytest.raises(AllocatorError, match="not locked"):
        tree.unlock(upper)
    assert evicted(tree, 9) == [[11, 12]]
    tree.check()


def test_the_root_can_be_locked_like_any_node() -> None:
    tree = RadixTree()
    node = tree.match(key(1))
    tree.lock(node)
    tree.unlock(node)
    tree.check()


def test_a_lock_outlives_a_split() -> None:
    tree = RadixTree()
    node, _ = tree.insert(key(1, 2, 3), at(11, 12, 13))
    tree.lock(node)
    tree.match(key(1))
    assert (tree.evictable, tree.protected) == (0, 3)
    tree.unlock(node)
    assert (tree.evictable, tree.protected) == (3, 0)
    tree.check()


def test_using_a_leaf_often_does_not_fill_the_heap() -> None:
    tree = RadixTree()
    for name in range(10):
        tree.insert(key(name), at(name))
    for turn in range(2000):
        tree.match(key(turn % 10))
    assert len(tree._heap) <= 4 * 10 + 64
    assert evicted(tree, 10) == [[name] for name in range(10)]


# -- against a model that keeps every page for itself ----------------------------------------------


@dataclass
class Pages:
    """A trie of single pages; nodes of the radix tree are runs of pages between marked ends."""

    time: int = 0
    block: dict[tuple[int, ...], int] = field(default_factory=dict)
    used: dict[tuple[int, ...], int] = field(default_factory=dict)
    ends: set[tuple[int, ...]] = field(default_factory=set)
    locked: list[tuple[int, ...]] = field(default_factory=list)

    def known(self, tokens: tuple[int, ...]) -> int:
        return next((end for end in range(len(tokens), 0, -1) if tokens[:end] in self.block), 0)

    def mark(self, tokens: tuple[int, ...], length: int) -> None:
        """Use a path of `length` pages: the node it ends in is split there, and the part above is the younger."""
        self.time += 2
        for end in range(1, length + 1):
            self.used[tokens[:end]] = self.time
        if length and tokens[:length] not in self.ends:
            self.ends.add(tokens[:length])
            below = tokens[:length]
            while below not in self.ends or below == tokens[:length]:
                below = next(path for path in self.block if path[:-1] == below)
                self.used[below] = self.time
            for end in range(length, 0, -1):
                if end < length and tokens[:end] in self.ends:
                    break
                self.used[tokens[:end]] = self.time + 1

    def insert(self, tokens: tuple[int, ...], blocks: list[int]) -> int:
        there = self.known(tokens)
        self.mark(tokens, there)
        self.time += 2
        for end in range(there + 1, len(tokens) + 1):
            self.block[tokens[:end]] = blocks[end - 1]
            self.used[tokens[:end]] = self.time
        if there < len(tokens):
            self.ends.add(tokens)
        return there

    def free(self, path: tuple[int, ...]) -> bool:
        return not any(locked[: len(path)] == path for locked in self.locked)

    def evict(self, pages: int) -> list[list[int]]:
        gone: list[list[int]] = []
        while pages > 0:
            leaves = [path for path in self.block if self.free(path) and not any(p[:-1] == path for p in self.block)]
            if not leaves:
                break
            leaf = min(leaves, key=self.used.__getitem__)
            run = [self.block.pop(leaf)]
            self.ends.discard(leaf)
            while (leaf := leaf[:-1]) and leaf not in self.ends:
                run.insert(0, self.block.pop(leaf))
            gone.append(run)
            pages -= len(run)
        return gone


paths = st.lists(st.integers(0, 2), max_size=7).map(tuple)
ops = st.lists(
    st.tuples(st.sampled_from(["insert", "insert", "match", "lock", "unlock", "evict"]), paths, st.integers(0, 9)),
    max_size=50,
)


@given(ops=ops)
@settings(deadline=None, max_examples=300)
def test_it_behaves_as_a_trie_of_single_pages_would(ops: list[tuple[str, tuple[int, ...], int]]) -> None:
    tree, model, blocks = RadixTree(), Pages(), 0
    locked: list[Node] = []
    for verb, path, number in ops:
        if verb == "insert":
            fresh = list(range(blocks, blocks := blocks + len(path)))
            assert tree.insert(key(*path), at(*fresh))[1] == model.insert(path, fresh)
        elif verb == "evict":
            assert evicted(tree, number) == model.evict(number)
        elif verb == "unlock" and locked:
            tree.unlock(locked.pop(number % len(locked)))
            model.locked.pop(number % len(model.locked))
        elif verb in ("match", "lock"):
            known = model.known(path)
            found = [model.block[path[:end]] for end in range(1, known + 1)]
            assert tree.find(key(*path)) == found
            node = tree.match(key(*path))
            model.mark(path, known)
            assert node.path() == found
            if verb == "lock":
                tree.lock(node)
                locked.append(node)
                model.locked.append(path[:known])
        tree.check()
        protected = sum(not model.free(path) for path in model.block)
        assert (tree.evictable, tree.protected) == (len(model.block) - protected, protected)


# -- corruption ----------------------------------------------------------------------------------------


def leaf(tree: RadixTree) -> Node:
    return next(node for node in tree if not node.children)


def locked_alone(tree: RadixTree) -> None:
    """A child is locked twice below a parent that is locked once; its pages are counted as they should."""
    child = next(node for node in tree if node.run.start == 2)
    child.locks = 2
    tree.evictable -= child.run.pages
    tree.protected += child.run.pages


CORRUPTIONS: dict[str, tuple[Callable[[RadixTree], Any], str]] = {
    "pages miscounted": (lambda t: setattr(t, "evictable", 7), "counted .7, 2."),
    "locked pages miscounted": (lambda t: setattr(t, "protected", 7), "counted .4, 7."),
    "nodes miscounted": (lambda t: setattr(t, "_nodes", 7), "the tree has 4 nodes, counted 7"),
    "a page without a block": (
        lambda t: setattr(leaf(t), "blocks", leaf(t).blocks[1:]),
        "a node has 2 pages in 1 blocks",
    ),
    "a child under another key": (
        lambda t: setattr(leaf(t), "run", leaf(t).run._replace(content=Tokens([8] * 9))),
        "is not where it belongs",
    ),
    "a child of nobody": (lambda t: setattr(leaf(t), "parent", None), "is not where it belongs"),
    "a lock below no lock": (locked_alone, "locked more often than its parent"),
    "a leaf that is never evicted": (lambda t: t._heap.clear(), "could be evicted, but would never be"),
}


@pytest.mark.parametrize("case", CORRUPTIONS)
def test_check_finds_it(case: str) -> None:
    tree = RadixTree()
    for path in ((1, 2, 3), (1, 2, 4), (5, 6)):
        tree.insert(key(*path), at(*path))
    tree.lock(tree.match(key(1, 2)))
    tree.check()
    corrupt, words = CORRUPTIONS[case]
    corrupt(tree)
    with pytest.raises(CorruptionError, match=words):
        tree.check()
