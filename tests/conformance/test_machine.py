"""All methods in random order, against a model that knows only how long each sequence is.

For a longer run: `pytest tests/conformance/test_machine.py --hypothesis-profile long`.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from allocators.answers import Ask, Refusal
from allocators.content import Segments
from tests.conformance.cases import CONTEXT, Case, audit, cases, ints, state, supports

SHARED = [(-1, 5), (-2, 9), (-3, 20)]
"""Content pieces that several sequences may begin with."""


class Machine(RuleBasedStateMachine):
    """Sequences come, grow, fork, move to the host and back, and leave."""

    case: Case

    @initialize(slots=st.integers(CONTEXT, 160))
    def start(self, slots: int) -> None:
        self.allocator = self.case.make(slots=slots)
        self.lengths: dict[int, int] = {}
        self.hosted: dict[int, int] = {}
        self.names = iter(range(10**6))

    def refused(self, refusal: Refusal, before: tuple[object, ...]) -> None:
        assert refusal.need >= 1
        assert refusal.shortfall >= 1
        assert state(self.allocator) == before

    @rule(
        shared=st.lists(st.sampled_from(SHARED), max_size=2, unique=True),
        own=st.integers(1, 12),
        output=st.integers(1, 9),
        part=st.integers(0, 20),
        spare=st.sampled_from([0, 0, 0, 1, 3]),
    )
    def admit(self, shared: list[tuple[int, int]], own: int, output: int, part: int, spare: int) -> None:
        allocator = self.allocator
        name = next(self.names)
        content = Segments([*shared, (2 * name, own)], tail=2 * name + 1)
        prompt = sum(length for _, length in shared) + own
        hit = allocator.lookup(content, prompt)
        assert hit.tokens < prompt
        tokens = max(prompt - part, hit.tokens + 1)
        before = state(allocator)
        answer = allocator.admit(
            Ask(content, prompt, tokens, hit, prompt, spare, output=output if allocator.oracle else None)
        )
        if isinstance(answer, Refusal):
            self.refused(answer, before)
        else:
            assert answer.row not in self.lengths
            self.lengths[answer.row] = tokens

    @precondition(lambda self: self.lengths)
    @rule(data=st.data())
    def grow(self, data: st.DataObject) -> None:
        rows = data.draw(st.permutations(sorted(self.lengths)))
        rows = rows[: data.draw(st.integers(1, len(rows)))]
        targets = [self.lengths[row] + data.draw(st.integers(0, 3)) for row in rows]
        possible = self.allocator.can_grow(ints(rows), ints(targets))
        growth = self.allocator.grow(ints(rows), ints(targets))
        assert possible == (growth.granted == len(rows)) == (growth.refusal is None)
        self.lengths.update(zip(rows[: growth.granted], targets[: growth.granted], strict=True))

    @precondition(lambda self: self.lengths)
    @rule(steps=st.integers(1, 12))
    def advance(self, steps: int) -> None:
        rows = sorted(self.lengths)
        before = state(self.allocator)
        possible = self.allocator.can_grow(ints(rows), ints(self.lengths[row] + 1 for row in rows))
        leap = self.allocator.advance(ints(rows), ints(self.lengths[row] for row in rows), steps)
        assert leap.steps <= steps
        if possible and not leap.steps:
            mapped = self.allocator.mappings().mapped
            self.allocator.grow(ints(rows), ints(self.lengths[row] + 1 for row in rows))
            assert self.allocator.mappings().mapped > mapped, "only mapping pages may end a leap at once"
            self.lengths.update((row, self.lengths[row] + 1) for row in rows)
            return
        assert possible == (leap.steps > 0)
        if not leap.steps:
            assert state(self.allocator) == before
        for row in rows:
            self.lengths[row] += leap.steps

    @precondition(lambda self: self.lengths)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(sorted(self.lengths)))
        self.allocator.release(row)
        del self.lengths[row]

    @precondition(lambda self: self.lengths and supports(self.allocator, "fork"))
    @rule(data=st.data(), output=st.integers(1, 9))
    def fork(self, data: st.DataObject, output: int) -> None:
        row = data.draw(st.sampled_from(sorted(self.lengths)))
        before = state(self.allocator)
        answer = self.allocator.fork(row, output if self.allocator.oracle else None)
        if isinstance(answer, Refusal):
            self.refused(answer, before)
            assert not self.allocator.shares
        else:
            self.lengths[answer.row] = self.lengths[row]

    @precondition(lambda self: self.lengths and supports(self.allocator, "swap_out"))
    @rule(data=st.data())
    def swap_out(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(sorted(self.lengths)))
        before = state(self.allocator)
        answer = self.allocator.swap_out(row)
        if isinstance(answer, Refusal):
            self.refused(answer, before)
        else:
            self.hosted[answer.row] = self.lengths.pop(row)

    @precondition(lambda self: self.hosted)
    @rule(data=st.data(), spare=st.sampled_from([0, 0, 2]))
    def swap_in(self, data: st.DataObject, spare: int) -> None:
        row = data.draw(st.sampled_from(sorted(self.hosted)))
        before = state(self.allocator)
        answer = self.allocator.swap_in(row, spare)
        if isinstance(answer, Refusal):
            self.refused(answer, before)
        else:
            self.lengths[answer.row] = self.hosted.pop(row)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "allocator"):
            return
        audit(self.allocator)
        table = self.allocator.table
        assert {row: int(table.length[row]) for row in table.rows()} == self.lengths
        assert bool(self.hosted) == (self.allocator.usage().swapped > 0)

    def teardown(self) -> None:
        for row in list(getattr(self, "lengths", ())):
            self.allocator.release(row)
            audit(self.allocator)


SUBJECTS = [case for case in cases() if not case.adaptor or (case.adaptor == "limiting" and case.options)]


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_random_verbs_keep_every_promise(subject: Case) -> None:
    machine = type("Machine", (Machine,), {"case": subject}).TestCase
    machine.settings = settings(max_examples=settings().max_examples // 5, stateful_step_count=30, deadline=None)
    machine().runTest()
