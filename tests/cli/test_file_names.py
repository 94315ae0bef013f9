"""Names of files and folders that cannot be written where they would have to be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sim.cli import main
from sim.cli.app import FAULT

Capture = pytest.CaptureFixture[str]


def test_a_label_that_no_file_can_have_is_told_in_a_line(workload: Path) -> None:
    old = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    line = [sys.executable, "-m", "sim", "run", str(workload), "--quiet", "--set", 'allocators.0.label="\\u9875"']
    done = subprocess.run(line, env=old, capture_output=True, text=True, check=False, cwd=workload.parent)
    assert done.returncode == FAULT
    assert done.stderr.endswith("no name of a file where those are in ascii; PYTHONUTF8=1 allows it\n")
    assert done.stderr.count("\n") == 1


def test_a_folder_whose_name_is_not_in_utf8_is_told_in_a_line(workload: Path, capsys: Capture) -> None:
    assert main(["run", str(workload), "--quiet", "--out", "o\udcff"]) == FAULT
    assert capsys.readouterr().err.endswith("no name of a file where those are in utf-8\n")


def test_of_a_trace_s_folder_that_is_not_in_utf8_only_the_name_is_told(workload: Path, capsys: Capture) -> None:
    """It stands in the manifest, of which not all was to be printed."""
    Path("f\udcff").mkdir()
    Path("f\udcff/t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,5,6\n", encoding="utf-8")
    Path("f\udcff/small.yaml").write_bytes(workload.read_bytes())
    assert main(["run", "f\udcff/small.yaml", "--quiet", "--set", "requests={trace: t.csv}"]) == FAULT
    told = "f\\udcff/t.csv: no name of a file where those are in utf-8\n"
    assert capsys.readouterr().err == told
