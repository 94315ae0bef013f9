"""Placements against a bitmap: every free span is known by brute force, addresses included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from allocators.buddy import Buddy
from allocators.errors import CorruptionError
from allocators.holes import BestFit, FirstFit
from allocators.placement import Span
from allocators.preallocated import Slots


def runs(bits: list[bool]) -> list[Span]:
    """Maximal runs of free blocks."""
    found = []
    start = 0
    for index, free in enumerate([*bits, False]):
        if not free:
            if index > start:
                found.append(Span(start, index - start))
            start = index + 1
    return found


def aligned(bits: list[bool]) -> list[Span]:
    """Maximal free buddies: aligned powers of two, inside one tree of the forest, whose parent is not free."""
    found = []
    base = 0
    for order in reversed(range(len(bits).bit_length())):
        if len(bits) >> order & 1:
            found += _split(bits, base, 1 << order)
            base += 1 << order
    return found


def _split(bits: list[bool], start: int, size: int) -> list[Span]:
    if all(bits[start : start + size]):
        return [Span(start, size)]
    half = size // 2
    return _split(bits, start, half) + _split(bits, start + half, half) if half else []


class PlacementMachine(RuleBasedStateMachine):
    """Take and give at random; the bitmap says where each span must lie."""

    kind = ""

    @initialize(blocks=st.integers(1, 70), length=st.integers(1, 12))
    def start(self, blocks: int, length: int) -> None:
        self.length = length
        self.bits = [True] * blocks
        self.held: list[Span] = []
        self.placement = {
            "buddy": lambda: Buddy(blocks),
            "first-fit": lambda: FirstFit(blocks),
            "best-fit": lambda: BestFit(blocks),
            "slots": lambda: Slots(blocks, length),
        }[self.kind]()

    def holes(self) -> list[Span]:
        if self.kind == "buddy":
            return aligned(self.bits)
        if self.kind == "slots":
            starts = range(0, len(self.bits), self.length)
            return [
                Span(at, len(self.bits[at : at + self.length]))
                for at in starts
                if all(self.bits[at : at + self.length])
            ]
        return runs(self.bits)

    def expected(self, need: int) -> Span | None:
        size = self.size(need)
        fits = [hole for hole in self.holes() if hole.size >= size]
        if not fits or (self.kind == "slots" and need > self.length):
            return None
        best = min(fits) if self.kind in ("first-fit", "slots") else min(fits, key=lambda hole: (hole.size, hole.start))
        return Span(best.start, size)

    def size(self, need: int) -> int:
        if self.kind == "buddy":
            return next(1 << order for order in range(10) if 1 << order >= need)
        return max(need, self.length) if self.kind == "slots" else need

    @rule(need=st.integers(1, 40))
    def take(self, need: int) -> None:
        expected = self.expected(need)
        assert self.placement.size(need) == self.size(need)
        span = self.placement.take(need)
        assert span == expected
        if span is not None:
            assert all(self.bits[span.start : span.stop])
            self.bits[span.start : span.stop] = [False] * span.size
            self.held.append(span)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        span = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.placement.give(span)
        self.bits[span.start : span.stop] = [True] * span.size

    @rule(need=st.integers(1, 40))
    def measure(self, need: int) -> None:
        size = self.size(need)
        assert self.placement.stranded(need) == sum(hole.size for hole in self.holes() if hole.size < size)
        given = [hole.size for hole in self.holes() if self.kind != "slots" or hole.size == self.length]
        assert self.placement.largest() == max(given, default=0)

    @invariant()
    def is_sound(self) -> None:
        if hasattr(self, "placement"):
            self.placement.check(self.held)
            assert self.placement.free == sum(self.bits)
            assert sorted(self.placement.holes()) == self.holes()


@pytest.mark.parametrize("kind", ["buddy", "first-fit", "best-fit", "slots"])
def test_placement_agrees_with_a_bitmap(kind: str) -> None:
    machine = type(kind, (PlacementMachine,), {"kind": kind}).TestCase
    machine.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
    machine().runTest()


def test_a_pool_of_any_size_is_a_forest_and_becomes_it_again_when_empty() -> None:
    buddy = Buddy(15_729)
    forest = sorted(buddy.holes())
    assert [span.size for span in forest] == [8192, 4096, 2048, 1024, 256, 64, 32, 16, 1]
    assert all(span.start % span.size == 0 for span in forest)
    held = [buddy.take(need) for need in (2048, 300, 1, 77, 500, 1, 1023, 4096)]
    for span in held[::2] + held[1::2]:
        assert span is not None
        buddy.give(span)
    assert sorted(buddy.holes()) == forest


def test_of_equal_spans_the_lowest_is_taken_and_only_the_shortest_is_cut() -> None:
    buddy = Buddy(16)
    spans = [buddy.take(2) for _ in range(8)]
    for index in (5, 1, 7):
        buddy.give(spans[index])
    assert [buddy.take(2).start for _ in range(3)] == [2, 10, 14]
    for index in (2, 3, 6):  # a span of four blocks at 4, and one of two at 12
        buddy.give(spans[index])
    assert [buddy.take(1).start for _ in range(3)] == [12, 13, 4]


def test_the_paper_s_pool_holds_seven_longest_sequences() -> None:
    buddy = Buddy(15_729)
    assert [buddy.take(2048) for _ in range(8)].count(None) == 1
    assert buddy.stranded(2048) == 15_729 - 7 * 2048


def test_best_fit_leaves_the_large_hole_to_the_large_request() -> None:
    for make, largest in ((FirstFit, 6), (BestFit, 10)):
        holes = make(20)
        first, gap, last, tail = (holes.take(size) for size in (10, 1, 4, 1))
        assert None not in (first, gap, last, tail)
        holes.give(first)
        holes.give(last)
        assert [span.size for span in holes.holes()] == [10, 4, 4]
        holes.take(4)
        assert holes.largest() == largest


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda buddy: buddy._holes[1].append(6), "counted free"),
        (lambda buddy: (buddy._holes[0].append(0), setattr(buddy, "free", buddy.free + 1)), "follow upon"),
        (lambda buddy: (buddy._holes[3].clear(), buddy._holes[2].extend([8, 12])), "have not joined"),
        (lambda buddy: (buddy._holes[3].clear(), setattr(buddy, "free", 4)), "end at block 8"),
    ],
)
def test_damage_to_a_buddy_tree_is_found(damage: Callable[[Buddy], object], words: str) -> None:
    buddy = Buddy(16)
    held = [buddy.take(3)]
    buddy.check(held)
    damage(buddy)
    with pytest.raises(CorruptionError, match=words):
        buddy.check(held)


def test_damage_to_a_list_of_holes_is_found() -> None:
    holes = FirstFit(16)
    held = [holes.take(4), holes.take(4)]
    holes.check(held)
    holes.starts[:], holes.sizes[:] = [8, 12], [4, 4]
    with pytest.raises(CorruptionError, match="have not joined"):
        holes.check(held)
