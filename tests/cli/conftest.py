"""A small workload for the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.small import SMALL, settle


@pytest.fixture
def workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, in the working directory."""
    return settle(SMALL, tmp_path, monkeypatch)
