"""A small workload for the command line, what a run of it leaves, and a small trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.cli import main
from tests.small import SMALL, settle


@pytest.fixture
def workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, in the working directory."""
    return settle(SMALL, tmp_path, monkeypatch)


@pytest.fixture
def run_directory(workload: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The directory of a run, in the working directory."""
    assert main(["run", str(workload), "--out", "one", "--quiet"]) == 0
    capsys.readouterr()
    return Path("one")


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two hundred requests, in the working directory."""
    monkeypatch.chdir(tmp_path)
    rows = [f"{0.5 * place},{100 + place % 7},{20 + place % 5}" for place in range(200)]
    path = tmp_path / "recorded.csv"
    path.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows, ""]), encoding="utf-8")
    return path
