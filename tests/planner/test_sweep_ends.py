"""Sweeps that are interrupted, killed, or lose a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.errors import RunDirectoryError
from analysis.planner.reading import open_planned
from sim.cli import main
from sim.cli.app import INTERRUPTED
from sim.planner.backends import make
from sim.planner.execute import BatchProgress
from sim.planner.grid import Base
from sim.planner.job import Failed, Job, Record, work
from sim.planner.sweep import sweep
from tests.planner.conftest import GRID

Capture = pytest.CaptureFixture[str]


def test_an_interrupted_sweep_keeps_what_finished(base: Base, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def impatient(step: BatchProgress) -> None:
        if step.done == 5:
            raise KeyboardInterrupt

    sweep(base, base.axes(["seed=1,2"]), Path("x"), make())  # an earlier one, whose results are not of this
    with pytest.raises(KeyboardInterrupt):
        sweep(base, base.axes(GRID), Path("x"), make(), force=True, progress=impatient)
    assert len(list(Path("x/cells").iterdir())) == 5
    with pytest.raises(RunDirectoryError, match="--resume does the rest"):
        open_planned("x")
    monkeypatch.setattr("sim.cli.sweep.run_sweep", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["sweep", "small.yaml", "--out", "x"]) == INTERRUPTED
    assert capsys.readouterr().err == "interrupted; 5 simulations are complete in x, --resume keeps them\n"


def control_c(group: int) -> None:
    """Do as a terminal does, to all of a group."""
    os.killpg(group, signal.SIGINT)


def terminate(process: int) -> None:
    """Do as `timeout` and cluster schedulers do, to the one they started."""
    os.kill(process, signal.SIGTERM)


def kill(process: int) -> None:
    """Do as the system does where memory runs out; nobody is asked."""
    os.kill(process, signal.SIGKILL)


@pytest.mark.usefixtures("heeding_interrupts")
@pytest.mark.parametrize("press", [control_c, terminate, kill])
def test_what_ends_a_sweep_ends_every_process(
    press: Callable[[int], None], workload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    line = [sys.executable, "-m", "sim", "sweep", str(workload), "--jobs", "2", "--out", "x"]
    line += ["--vary", "seed=1..40", "--set", "requests.count=4000", "--quiet"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        while not list(Path("x/cells").glob("*.json")):
            assert process.poll() is None
            time.sleep(0.02)
        deadline = time.monotonic() + 20
        press(process.pid)
        said = process.stderr.read()  # which all of them hold open
    if press is kill:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == INTERRUPTED, said
        assert any(line.startswith("interrupted; ") and "--resume keeps " in line for line in said.splitlines()), said
    while _members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert time.monotonic() < deadline
    assert not list((tmp_path / "temporary").glob("kvsim-*"))


def _members(group: int) -> list[int]:
    """Return the processes of a group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


class Suicidal:
    """Kills the process that does it, the first time or every time."""

    def __init__(self, mark: Path | None) -> None:
        self.mark = mark

    def __call__(self, job: Job) -> Record | Failed:
        if (job.label, job.repeat) == ("paged", 1) and not (self.mark and self.mark.exists()):
            if self.mark:
                self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return work(job)


def test_a_process_that_dies_loses_nothing(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    over = base.axes(["requests.arrivals.rate=200,800"])
    sweep(base, over, Path("calm"), make())
    monkeypatch.setattr("sim.planner.backends.local.work", Suicidal(Path("died").resolve()))
    cores = make("loky", 2)
    try:
        sweep(base, over, Path("x"), cores)
    finally:
        cores.close()
    assert Path("died").exists()
    assert Path("x/results.parquet").read_bytes() == Path("calm/results.parquet").read_bytes()


def test_a_job_that_kills_its_process_twice_is_given_up_alone(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.planner.backends.local.work", Suicidal(None))
    cores = make("loky", 2)
    try:
        summary = sweep(base, (), Path("x"), cores)
    finally:
        cores.close()
    assert [(one["where"], one["why"]) for one in summary["failed"]] == [
        ("paged, replication 2", "its worker died, twice")
    ]
    assert sum(cell["n"] for cell in summary["cells"]) == 3
