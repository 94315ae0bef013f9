"""Runs tests that take `case` once for each case, and those that take `scheduler` once for each scheduler."""

from __future__ import annotations

import pytest
from hypothesis import settings

from sim.schedulers import schedulers
from tests.conformance.cases import cases

settings.register_profile("long", max_examples=20_000)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", cases(), ids=str)
    if "scheduler" in metafunc.fixturenames:
        metafunc.parametrize("scheduler", schedulers())
