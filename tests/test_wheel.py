"""What gets installed from a wheel is whole: every room, its data, presets and the page's parts."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("allocators", "workloads", "sim", "analysis")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_the_rooms_with_their_data_and_nothing_else(installed: Path) -> None:
    listed = subprocess.run(["git", "ls-files", *ROOMS], cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = {name for name in listed.stdout.split() if not name.startswith("analysis/results/")}
    found = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    packed = {name for name in found if ".dist-info/" not in name}
    assert wanted <= packed
    assert {name.split("/")[0] for name in packed} == set(ROOMS)
    assert any(name.endswith("LICENSE") for name in found - packed)


def test_an_installed_wheel_runs_a_workload(installed: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-P", "-m", "sim", "run", "quickstart", "--set", "requests.count=10", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/quickstart/report.html").is_file()
