from __future__ import annotations

from pathlib import Path

import pytest

from tests.analysis.synthetic import write_directory


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory of three allocators that preempts, queues and overloads."""
    return write_directory(tmp_path_factory.mktemp("toy") / "run", count=80, rate=5)


@pytest.fixture(scope="session")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same workload with three replications."""
    return write_directory(tmp_path_factory.mktemp("toy") / "repeated", count=40, rate=5, repeats=3)
