"""The engine leaves what the reference engine leaves, to the last bit, whatever it is given."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.harness import Setup, audit, differences
from tests.engine.strategies import every, requests, setups
from workloads.requests import Requests

SAMPLES = int(os.environ.get("KVSIM_SAMPLES", "4"))
EXAMPLES = int(os.environ.get("KVSIM_EXAMPLES", "25"))
"""Workloads for each allocator and scheduler; more for a long run by hand."""


def check(setup: Setup, asked: Requests) -> None:
    """Run three ways and compare."""
    expected, reference = setup.run(asked, reference=True)
    audit(setup, expected, reference, len(asked))
    for leaps in (False, True):
        outcome, sink = setup.run(asked, leaps=leaps)
        assert not differences(reference, sink), f"leaps={leaps}"
        assert outcome == expected


@pytest.mark.parametrize(("kind", "scheduler"), every())
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_equals_the_reference_engine(kind: str, scheduler: str, data: st.DataObject) -> None:
    check(data.draw(setups(kind, scheduler)), data.draw(requests(samples=SAMPLES)))
