"""What the registry promises of every kind: declared options, one-line errors, equal runs from equal calls."""

from __future__ import annotations

import inspect
import pickle

import numpy as np
import pytest

from allocators import registry
from allocators.base import Allocator
from tests.conformance.cases import CONTEXT, Case, ask, audit, state


def test_options_are_keyword_arguments_with_the_declared_defaults(case: Case) -> None:
    cls = registry.find(case.kind)
    parameters = inspect.signature(cls).parameters
    for name, option in cls.options.items():
        assert option.doc
        assert option.fault(option.default) is None
        if name != "block_size":
            assert parameters[name].default == option.default


def test_the_kind_is_its_name(case: Case) -> None:
    assert case.kind in registry.names()
    assert case.make().kind == case.kind


def test_unknown_options_are_named_with_what_would_be_right(case: Case) -> None:
    name = next(iter(registry.find(case.kind).options))
    with pytest.raises(ValueError, match=f"{case.kind}: unknown option {name}x .did you mean {name}.*known: ") as error:
        registry.create(case.kind, num_blocks=4, max_model_len=8, **{f"{name}x": 1})
    assert "\n" not in str(error.value)


def test_bad_values_say_what_would_be_right(case: Case) -> None:
    for name, option in registry.find(case.kind).options.items():
        bad = 3 if option.type is str else "three"
        with pytest.raises(ValueError, match=rf"{case.kind}\.{name}: must be .*, got {bad!r}"):
            registry.create(case.kind, num_blocks=4, max_model_len=8, **{name: bad})


def play(allocator: Allocator, seed: int, *, again: bool = False) -> list[tuple[object, ...]]:
    """Drive an allocator with a fixed stream of verbs; what can be seen after each.

    If this is done `again`, to be compared, only what it ends in is checked anew: that takes most of the time.
    """
    draw = np.random.default_rng(seed)
    seen = []
    for _ in range(60):
        rows = allocator.table.rows()
        if rows and draw.random() < 0.3:
            allocator.release(int(draw.choice(rows)))
        elif rows and draw.random() < 0.6:
            some = draw.permutation(rows)[: draw.integers(1, len(rows) + 1)]
            allocator.grow(some, (allocator.table.length[some] + 1).clip(max=CONTEXT))
        else:
            allocator.admit(ask(int(draw.integers(1, 13)), int(draw.integers(1, 9)), oracle=allocator.oracle))
        if not again:
            audit(allocator)
        seen.append(state(allocator))
    audit(allocator)
    return seen


def test_equal_calls_have_equal_answers_whatever_others_were_called(case: Case) -> None:
    alone = play(case.make(), 2)
    other = case.make()
    play(other, 3)
    assert play(case.make(), 2, again=True) == alone


def test_an_allocator_can_be_pickled(case: Case) -> None:
    allocator = case.make()
    play(allocator, 4)
    copy = pickle.loads(pickle.dumps(allocator))  # noqa: S301 # pickled one call earlier
    assert state(copy) == state(allocator)
    assert play(copy, 5) == play(allocator, 5, again=True)
