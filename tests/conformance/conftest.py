"""Every test of the suite that takes `case` runs once for each case."""

from __future__ import annotations

import pytest

from tests.conformance.cases import cases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", cases(), ids=str)
