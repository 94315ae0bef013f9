"""The paged allocator with SGLang's cache: sharing by the page, eviction by the leaf."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from allocators.answers import Ask, Grant, Refusal
from allocators.content import Tokens
from allocators.radixnode import Node
from allocators.radixpaged import RadixAllocator
from tests.audited import finds

LONGEST = 24


def pool(blocks: int = 16, size: int = 2) -> RadixAllocator:
    return RadixAllocator(blocks, size, 64, 4)


def serve(allocator: RadixAllocator, tokens: list[int]) -> tuple[int, int]:
    """Admit a prompt; returns its row and the tokens hit."""
    content = Tokens(tokens)
    hit = allocator.lookup(content, len(tokens))
    grant = allocator.admit(Ask(content, len(tokens), len(tokens), hit))
    assert isinstance(grant, Grant)
    return grant.row, hit.tokens


def blocks(allocator: RadixAllocator, row: int) -> list[int]:
    result: list[int] = allocator.table.row(row).tolist()
    return result


def test_what_a_sequence_leaves_is_found_again() -> None:
    allocator = pool()
    row, _ = serve(allocator, [1, 2, 3, 4, 5])
    first = blocks(allocator, row)
    allocator.release(row)
    assert allocator.usage().cached == 4
    again, hit = serve(allocator, [1, 2, 3, 4, 9])
    assert hit == 4
    assert blocks(allocator, again)[:2] == first[:2]
    allocator.check()


def test_the_least_recently_used_leaf_gives_up_all_its_pages() -> None:
    allocator = pool(blocks=8)
    for start in (10, 20, 10):  # the third is a use of the first
        allocator.release(serve(allocator, [start, 1, 2, 3, 4, 5, 6])[0])
    assert allocator.usage().cached == 12
    row, _ = serve(allocator, [30, 1, 2, 3, 4])
    assert allocator.lookup(Tokens([20, 1, 9]), 3).tokens == 0
    assert allocator.lookup(Tokens([10, 1, 2, 3, 4, 5, 6]), 7).tokens == 6
    assert allocator.usage().cached == 6
    allocator.release(row)
    allocator.check()


def test_an_output_is_evicted_before_the_prompt_it_answers() -> None:
    allocator = pool(blocks=6)
    content = Tokens([1, 2, 3, 4, 50, 51, 52, 53])
    row = allocator.admit(Ask(content, 4, 4))
    assert isinstance(row, Grant)
    for length in range(5, 9):
        allocator.grow(np.array([row.row]), np.array([length]))
    allocator.release(row.row)
    assert [node.blocks.tolist() for node in allocator.pool.tree] == [[1, 2], [3, 4]]
    serve(allocator, [9, 9, 9, 9, 9])
    assert allocator.lookup(Tokens([1, 2, 3, 4, 50, 51, 0]), 7).tokens == 4
    allocator.check()


def test_a_path_in_use_is_not_evicted_and_not_counted_as_free() -> None:
    allocator = pool(blocks=4)
    row, _ = serve(allocator, [1, 2, 3, 4, 5])
    allocator.release(row)
    serve(allocator, [1, 2, 3, 4, 9])
    content = Tokens([7] * 4)
    assert allocator.admit(Ask(content, 4, 4)) == Refusal(allocator.admit(Ask(content, 4, 4)).reason, 2, 1)  # type: ignore[union-attr] # refused
    allocator.check()


def test_a_page_filled_twice_is_held_once() -> None:
    allocator = pool()
    first, _ = serve(allocator, [1, 2, 3, 4])
    second, hit = serve(allocator, [1, 2, 3, 4])
    assert hit == 2, "the last token is computed again"
    assert blocks(allocator, first) == blocks(allocator, second)
    assert allocator.usage().held == 4
    assert allocator.usage().saved == 4
    allocator.check()


def test_a_fork_lengthens_its_own_branch() -> None:
    allocator = pool()
    content = Tokens([1, 2, 3, 4])
    grant = allocator.admit(Ask(content, 4, 3))
    assert isinstance(grant, Grant)
    other = content.branch(3)
    other.extend([9])
    child = allocator.fork(grant.row, content=other).row
    growth = allocator.grow(np.array([grant.row, child]), np.array([4, 4]))
    assert len(growth.copies) == 1
    allocator.release(grant.row)
    allocator.release(child)
    assert allocator.lookup(Tokens([1, 2, 3, 4, 0]), 5).tokens == 4
    assert allocator.lookup(Tokens([1, 2, 3, 9, 0]), 5).tokens == 4
    allocator.check()


def test_reset_empties_the_tree() -> None:
    allocator = pool()
    row, _ = serve(allocator, [1, 2, 3, 4, 5])
    assert allocator.reset() is not None
    allocator.release(row)
    assert allocator.reset() is None
    assert allocator.usage() == RadixAllocator(16, 2, 64).usage()
    allocator.check()


# -- at random -----------------------------------------------------------------------------------------

token = st.integers(0, 1)
picks = st.integers(0, 1 << 30)


def structure(allocator: RadixAllocator) -> Any:
    """What is where, once all rows have entered what they have filled."""
    allocator = deepcopy(allocator)
    for row in list(allocator.apart):
        allocator.catch_up(row)
    tree = sorted((node.path(), node.run.keys, node.locks, node.growing) for node in allocator.pool.tree)
    queue = allocator.pool.queue.order().tolist()
    return tree, queue, allocator.table.blocks.tolist(), allocator.table.length.tolist(), allocator.usage()


class RadixMachine(RuleBasedStateMachine):
    """A pool, the tokens of its rows, and a memory in which they are written."""

    @initialize(num_blocks=st.integers(3, 16), size=st.integers(1, 4))
    def begin(self, num_blocks: int, size: int) -> None:
        self.allocator = RadixAllocator(num_blocks, size, LONGEST, 2)
        self.contents: dict[int, Tokens] = {}
        self.memory = np.full((num_blocks + 1, size), -1)

    @rule(tokens=st.lists(token, min_size=1, max_size=LONGEST), part=picks, spare=st.integers(0, 2))
    def admit(self, tokens: list[int], part: int, spare: int) -> None:
        allocator, content, size = self.allocator, Tokens(tokens), self.allocator.block_size
        hit = allocator.lookup(content, len(tokens))
        cached = {tuple(self.memory[node.path()].ravel().tolist()) for node in allocator.pool.tree}
        known = {path[:end] for path in cached for end in range(size, len(path) + 1, size)}
        most = max((end for end in range(0, len(tokens), size) if tuple(tokens[:end]) in known), default=0)
        assert hit.tokens == most
        now = hit.tokens + 1 + part % (len(tokens) - hit.tokens)
        before = structure(allocator)
        answer = allocator.admit(Ask(content, len(tokens), now, hit, spare=spare))
        if isinstance(answer, Refusal):
            assert structure(allocator) == before
            assert answer.shortfall == answer.need + spare - allocator.pool.free > 0
        else:
            content.truncate(now)
            self.contents[answer.row] = content
            self._write(answer.row, hit.tokens)

    @precondition(lambda self: self.contents)
    @rule(pick=picks, batch=st.lists(st.lists(token, max_size=6), min_size=1, max_size=4))
    def grow(self, pick: int, batch: list[list[int]]) -> None:
        """A batch is exactly one call a row."""
        allocator, rows = self.allocator, self._some(pick, len(batch))
        before = allocator.table.length[rows]
        lengths = before + [len(tokens) for tokens in batch[: len(rows)]]
        for row, tokens in zip(rows, batch, strict=False):
            self.contents[row].extend(tokens)
        single = deepcopy(allocator)
        can = allocator.can_grow(np.array(rows), lengths)
        growth = allocator.grow(np.array(rows), lengths)
        copies, granted = [], 0
        for row, length in zip(rows, lengths.tolist(), strict=True):
            alone = single.grow(np.array([row]), np.array([length]))
            copies += alone.copies
            if alone.refusal is not None:
                assert alone.refusal == growth.refusal
                break
            granted += 1
        assert can == (granted == len(rows))
        assert (growth.granted, list(growth.copies)) == (granted, copies)
        assert structure(allocator) == structure(single)
        for copy in growth.copies:
            self.memory[copy.target] = self.memory[copy.source]
        for row, length in zip(rows, before.tolist(), strict=True):
            self.contents[row].truncate(int(allocator.table.length[row]))
            self._write(row, length)

    @precondition(lambda self: self.contents)
    @rule(pick=picks, tokens=st.lists(token, min_size=1, max_size=12), width=st.integers(1, 4), alike=st.booleans())
    def advance(self, pick: int, tokens: list[int], width: int, alike: bool) -> None:
        """A leap is exactly so many calls of grow."""
        allocator, rows = self.allocator, self._some(pick, width)
        lengths = allocator.table.length[rows]
        for place, row in enumerate(rows):
            self.contents[row].extend(tokens if alike else [each ^ (place & 1) for each in tokens])
        single = deepcopy(allocator)
        leap = allocator.advance(np.array(rows), lengths, len(tokens))
        held, cached = [], []
        for step in range(leap.steps):
            assert single.grow(np.array(rows), lengths + step + 1).granted == len(rows)
            held.append(single.usage().held)
            cached.append(single.usage().cached)
        assert (leap.held.tolist(), leap.cached.tolist()) == (held, cached)
        assert structure(allocator) == structure(single)
        assert leap.steps or not single.can_grow(np.array(rows), lengths + 1)
        for copy in leap.copies:
            self.memory[copy.target] = self.memory[copy.source]
        for row, length in zip(rows, lengths.tolist(), strict=True):
            self.contents[row].truncate(int(allocator.table.length[row]))
            self._write(row, length)

    @precondition(lambda self: self.contents)
    @rule(pick=picks, known=st.booleans())
    def fork(self, pick: int, known: bool) -> None:
        (row,) = self._some(pick, 1)
        content = self.contents[row].branch(len(self.contents[row].tokens))
        child = self.allocator.fork(row, content=content if known else None).row
        self.contents[child] = content

    @precondition(lambda self: self.contents)
    @rule(pick=picks)
    def release(self, pick: int) -> None:
        (row,) = self._some(pick, 1)
        self.allocator.release(row)
        del self.contents[row]

    @rule()
    def reset(self) -> None:
        assert (self.allocator.reset() is None) == (not self.contents)

    @invariant()
    def agree(self) -> None:
        allocator = self.allocator
        allocator.check()
        assert allocator.table.rows() == sorted(self.contents)
        usage, pool = allocator.usage(), allocator.pool
        assert usage.held + usage.cached + len(pool.queue) * allocator.block_size == allocator.capacity
        for row, content in self.contents.items():
            read = self.memory[allocator.table.row(row)].ravel()[: len(content.tokens)]
            assert read.tolist() == content.tokens, "a sequence reads what it did not write"

    def _some(self, pick: int, width: int) -> list[int]:
        rows = sorted(self.contents)
        return [rows[(pick + index) % len(rows)] for index in range(min(width, len(rows)))]

    def _write(self, row: int, start: int) -> None:
        tokens, size = self.contents[row].tokens, self.allocator.block_size
        for place in range(start, len(tokens)):
            self.memory[self.allocator.table.blocks[row, place // size], place % size] = tokens[place]


TestRadixAllocator = RadixMachine.TestCase
TestRadixAllocator.settings = settings(
    max_examples=50, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


# -- corruption ----------------------------------------------------------------------------------------


def busy() -> RadixAllocator:
    allocator = pool()
    first, _ = serve(allocator, [1, 2, 3, 4, 5])
    serve(allocator, [1, 2, 7, 8, 9])
    allocator.fork(first)
    allocator.release(serve(allocator, [6, 6, 6])[0])
    allocator.check()
    return allocator


def relabel(node: Node) -> None:
    node.run = node.run._replace(content=Tokens([8] * 9))


CORRUPTIONS: dict[str, tuple[Callable[[RadixAllocator], Any], str]] = {
    "a page that is in the queue too": (
        lambda a: a.pool.queue.give_back(a.pool.cached_blocks()),
        "the free queue does not hold exactly",
    ),
    "a page that lost its key": (
        lambda a: a.pool.cache.forget(a.pool.cached_blocks()),
        "the free queue does not hold exactly",
    ),
    "a page of other tokens": (lambda a: relabel(next(iter(a.pool.tree))), "is not where it belongs"),
    "a path that nobody has locked": (
        lambda a: a.pool.tree.unlock(a.nodes[0]),
        "a node is not locked just by the rows",
    ),
    "a lock that nobody has": (
        lambda a: a.pool.tree.lock(next(n for n in a.pool.tree if not n.locks)),
        "a node is not locked just by the rows",
    ),
    "a row at another place": (
        lambda a: a.nodes.update({0: a.nodes[1], 1: a.nodes[0]}),
        "the place of row 0 in the tree",
    ),
    "a row without a place": (lambda a: a.nodes.pop(0), "or one that is has none"),
    "a page that the tree does not hold": (lambda a: a.pool.add(a.table.row(1)[-1:]), "the tree does not hold just"),
    "cached pages miscounted": (lambda a: setattr(a.pool, "cached", 7), "1 blocks are cached, counted 7"),
}


@pytest.mark.parametrize("case", CORRUPTIONS)
def test_check_finds_it(case: str) -> None:
    finds(busy(), *CORRUPTIONS[case])
