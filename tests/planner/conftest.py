"""A workload of a moment, to be varied, and a small grid over it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.planner.grid import Base
from tests.small import SMALL, settle

GRID = ("requests.arrivals.rate=200,800", "allocators.paged.block_size=4,16")
LINE = ["sweep", "small.yaml", "--vary", GRID[0], "--vary", GRID[1], "--repeat", "2", "--out", "x"]


@pytest.fixture
def workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, in the working directory."""
    return settle(SMALL + "slo: {ttft_s: 0.01}\n", tmp_path, monkeypatch)


@pytest.fixture
def base(workload: Path) -> Base:
    return Base(str(workload), ["repeat=2"])
