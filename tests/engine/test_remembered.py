"""Durations that are remembered are those that are computed step by step."""

from __future__ import annotations

import pytest

from sim.costs.load import Load
from sim.costs.model import CostModel
from sim.engine.remembered import MOST, Remembered
from tests.captures import made
from tests.costs import H100, LLAMA

CALLS = [(3, 40, 20), (3, 900, 7), (3, 41, 1), (64, 640, 200), (64, 64, 256), (1, MOST - 10, 10), (1, MOST - 9, 10)]
"""Sequences, their tokens, and how many steps: they need a table, a larger one, and more than any holds."""


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("model", [CostModel(LLAMA, H100), CostModel(LLAMA, H100, captured=made())])
def test_steps_take_as_long_as_one_by_one(model: CostModel, copied: bool) -> None:
    remembered = Remembered(model, copied=copied)
    for seqs, known, count in CALLS:
        tokens = [known + seqs * nth for nth in range(count)]
        loads = [
            Load(decode_seqs=seqs, samples=seqs, decode_context=before + seqs, copied_tokens=copied * before)
            for before in tokens
        ]
        assert remembered.steps(seqs, known, count).tolist() == [model.step_ns(load) for load in loads]


def test_what_is_done_to_the_answer_is_not_remembered() -> None:
    remembered = Remembered(CostModel(LLAMA, H100))
    first = remembered.steps(5, 100, 10)
    kept = first.tolist()
    first += 1
    assert remembered.steps(5, 100, 10).tolist() == kept
