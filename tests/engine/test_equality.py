"""The engine leaves what the reference engine leaves, to the last bit, whatever it is given.

More examples, and new ones: KVSIM_EXAMPLES=1000 python -m pytest tests/engine --hypothesis-profile explore
"""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.schedulers import Limits
from tests.engine.harness import Setup, ask, audit, differences
from tests.engine.strategies import every, requests, setups

EXAMPLES = int(os.environ.get("KVSIM_EXAMPLES", "12"))
"""Workloads for each allocator under each scheduler."""


@pytest.mark.parametrize(("kind", "scheduler"), every())
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_equals_the_reference_engine(kind: str, scheduler: str, data: st.DataObject) -> None:
    """Leaping or not, both engines agree; and what the reference engine leaves is sound."""
    setup, asked = data.draw(setups(kind, scheduler)), data.draw(requests())
    expected, reference = setup.run(asked, reference=True)
    audit(setup, expected, reference, len(asked))
    for leaps in (False, True):
        outcome, sink = setup.run(asked, leaps=leaps)
        assert not differences(reference, sink), f"leaps={leaps}"
        assert outcome == expected


def test_what_a_window_has_left_behind_counts_for_no_block() -> None:
    groups = "full 2x8, sliding 3x8/9, sliding 1x16/6"
    options = {"block_size": 4, "paging": "uniform", "groups": groups}
    setup = Setup("orca", Limits(max_model_len=40), "hybrid", 80, options, instants=64)
    asked = ask((0, 9, 12), (2, 4, 9))
    assert not differences(setup.run(asked, reference=True)[1], setup.run(asked)[1])
