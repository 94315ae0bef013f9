"""`validate` and `walkthrough`; and what commands do where output ends, is full, or has other letters."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from allocators import registry
from sim.cli import main
from sim.cli.app import BROKEN_PIPE, FAULT
from sim.devices import shipped_devices
from sim.models.shipped import shipped_models

Capture = pytest.CaptureFixture[str]


def test_validate_compares_a_real_run_with_its_simulation(workload: Path, capsys: Capture) -> None:
    line = ["validate", str(workload), "--device", "cpu", "--set", "requests.count=3", "--quiet"]
    assert main([*line, "--out", "real"]) == 0
    shown = capsys.readouterr().out
    assert "everything agrees" in shown
    assert Path("real/validation.html").is_file()
    assert main([*line, "--set", "allocators=[{kind: paged}]", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] is True
    assert Path("runs/small-validated/validation.json").is_file()


def test_a_device_that_is_not_there_is_one_line(workload: Path, capsys: Capture) -> None:
    assert main(["validate", str(workload), "--device", "cuda:99"]) == FAULT
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1


def test_the_walkthrough_is_written_with_every_shipped_model(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["walkthrough", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "written": "walkthrough.html"}
    page = (tmp_path / "walkthrough.html").read_text(encoding="utf-8")
    assert all(f'"{name}"' in page for name in shipped_models() if not name.startswith("tiny-"))
    assert all(f'"{name}"' in page for name in shipped_devices())
    assert [path.name for path in tmp_path.iterdir()] == ["walkthrough.html"]


def test_a_warning_is_one_line(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn() -> dict[str, object]:
        warnings.warn("allocator plug-in slab = nix: cannot be imported", RuntimeWarning, stacklevel=1)
        return dict(registry.BUILT_IN)

    monkeypatch.setattr("sim.cli.topics.kinds", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["list", "allocators"]) == 0
    assert capsys.readouterr().err == "warning: allocator plug-in slab = nix: cannot be imported\n"


def test_a_reader_that_leaves_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "sim", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == BROKEN_PIPE


@pytest.mark.parametrize("where", ["/dev/full", "&-"])
def test_output_that_cannot_be_written_is_at_most_one_line(where: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m sim schema >{where}"], stderr=subprocess.PIPE, check=False
    )
    full = where == "/dev/full"
    assert done.returncode == (FAULT if full else 0)
    assert done.stderr == (b"python -m sim: No space left on device\n" if full else b"")


def test_a_terminal_without_our_letters_gets_others() -> None:
    line = [sys.executable, "-m", "sim", "list", "models"]
    done = subprocess.run(line, capture_output=True, check=True, env={"PYTHONIOENCODING": "ascii", "COLUMNS": "80"})
    assert b"llama-3.1-8b" in done.stdout
    done.stdout.decode("ascii")
