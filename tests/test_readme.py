"""The README is true: its files load, its commands print what it shows, its allocator passes the suite.

`python tests/test_readme.py` rewrites what the commands print.
"""

from __future__ import annotations

import doctest
import json
import os
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import allocators

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    """Return the code blocks of one language, in order."""
    return [
        match["text"] for match in BLOCK.finditer(README.read_text(encoding="utf-8")) if match["language"] == language
    ]


def shell(command: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command line as a reader of the README would, with this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "100", "PYTEST_ADDOPTS": "", **more}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def printed(console: str, folder: Path) -> str:
    """Run the commands of a console block; return the block as it should read."""
    lines = []
    for line in console.splitlines():
        if line.startswith("$ "):
            done = shell(line[2:], folder)
            assert not done.stderr, done.stderr
            lines += [line, *(shown.rstrip() for shown in done.stdout.splitlines())]
    return "\n".join(lines) + "\n"


def write_files(folder: Path) -> None:
    """Put the README's files where its commands expect them."""
    (workload,) = blocks("yaml")
    (folder / "chat.yaml").write_text(workload, encoding="utf-8")


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (entry,) = (" ".join(block.split()) for block in blocks("bibtex"))
    assert f"version = {{{project['version']}}}" in entry
    assert f"kvsim: a {project['description'].removeprefix('A ')}" in entry
    assert f"license = {{{project['license']}}}" in entry


def test_the_example_prints_what_the_readme_shows(tmp_path: Path) -> None:
    write_files(tmp_path)
    (console,) = blocks("console")
    assert printed(console, tmp_path) == console
    assert (tmp_path / "runs/chat/report.html").is_file()


def test_the_set_up_lines_name_what_exists(tmp_path: Path) -> None:
    (lines,) = blocks("bash")
    first, second = lines.splitlines()
    assert first.startswith("pip install -e . && python -m sim run quickstart ")
    assert second.startswith("pip install -e '.[test]' -c tests/constraints.txt && python -m pytest ")
    command = first.split("&&")[1].split("#")[0] + " --set requests.count=30 --quiet"
    done = shell(command, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "runs/quickstart/ with" in done.stdout
    assert first.split("#")[1].split("and")[1].strip() == "runs/quickstart/report.html"
    assert (tmp_path / "runs/quickstart/report.html").is_file()


def test_the_lines_of_python_run(tmp_path: Path) -> None:
    write_files(tmp_path)
    code, _ = blocks("python")
    assert max(map(len, code.splitlines())) <= 120
    (tmp_path / "script.py").write_text(f"{code}print(*steps)\n", encoding="utf-8")
    done = shell("python script.py", tmp_path)
    assert not done.stderr
    *lines, last = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["preallocated", "contiguous", "paged", "ideal"]
    assert all("95 %, n=3" in line for line in lines)
    assert last == "start_s duration_s live"
    assert (tmp_path / "runs/chat-3/report.html").is_file()


def test_the_lines_that_use_an_allocator_directly_run() -> None:
    found = doctest.testmod(allocators)
    assert found.attempted > 10
    assert found.failed == 0


def test_pictures_and_rooms_exist() -> None:
    text = README.read_text(encoding="utf-8")
    for name in re.findall(r"!\[[^]]*\]\(([^)]*)\)", text):
        assert (ROOT / name).read_bytes().startswith(b"\x89PNG")
    rooms = re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE)
    assert rooms == ["allocators", "workloads", "sim", "analysis", "tests"]
    assert all((ROOT / room).is_dir() for room in rooms)


TIMED = {"H200": "timed_nvidia-h200.json", "H100": "timed_nvidia-h100-80gb-hbm3.json"}
GROUPS = {
    "blind": ("blind",),
    "held out": ("held-out",),
    "held out, `growing` and `no-cache`": ("held-out",),
    "held out, all": ("held-out",),
    "all of the above": ("blind", "held-out"),
    "used to improve the calibration": ("seen",),
    "figure above, calibrated without shapes": ("sosp23",),
}
"""Groups of workloads as the README and the files call them."""
CALIBRATIONS = {"8B": "-llama-3.1-8b", "1B": "-llama-3.2-1b", "OPT-13B": "-opt-13b", "": ""}


def errors_of(gpu: str, workloads: str, model: str) -> list[dict[str, float]]:
    """Return the errors of the runs that a row of the table of validations is of."""
    pieces = json.loads((ROOT / "analysis" / "results" / TIMED[gpu]).read_text(encoding="utf-8"))["pieces"]
    launched = "growing" in workloads
    return [
        run["errors"]
        for name, piece in pieces.items()
        if piece["group"] in GROUPS[workloads]
        and piece["timing"]["calibration"].endswith(CALIBRATIONS[model])
        and (not model or launched == (name == "held-out tensors"))
        for run in piece["timing"]["runs"]
    ]


def test_the_table_of_validations_says_what_the_files_say() -> None:
    rows = re.findall(r"^\| (H[12]00) \| (.*) \|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == 12
    for gpu, row in rows:
        workloads, model, count, *medians, within, worst = (cell.strip() for cell in f"{row} ".split("|"))
        errors = errors_of(gpu, workloads, model)
        assert len(errors) == int(count), row
        figures = ("throughput_rps", "batch_size", "tpot_s.p50")
        sizes = [statistics.median(abs(one[figure]) for one in errors) for figure in figures]
        last = [abs(error) for one in errors for figure, error in one.items() if figure.endswith(".p99")]
        assert within == f"{sum(error <= 0.08 for error in last)} of {len(last)}", row
        sizes, told = ([*sizes, max(last)], [*medians, worst]) if worst else (sizes, medians)
        for size, text in zip(sizes, told, strict=True):
            number = text.removesuffix(" %")
            unit = 10.0 ** -len(number.partition(".")[2])
            assert abs(100 * size - float(number)) <= unit / 2 + 1e-9, (row, text, size)


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """Install the README's allocator as a package of its own."""
    _, code = blocks("python")
    (declared,) = blocks("toml")
    points = tomllib.loads(declared)["project"]["entry-points"]["kvsim.allocators"]
    (tmp_path / "bucket.py").write_text(code, encoding="utf-8")
    facts = tmp_path / "bucket-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: bucket\nVersion: 1.0\n", encoding="utf-8")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (facts / "entry_points.txt").write_text("\n".join(["[kvsim.allocators]", *lines, ""]), encoding="utf-8")
    return tmp_path


def test_the_new_allocator_is_short_and_runs_in_a_workload(plugin: Path) -> None:
    assert len([line for line in (plugin / "bucket.py").read_text("utf-8").splitlines() if line.strip()]) <= 30
    write_files(plugin)
    allocators = "--set 'allocators=[{kind: bucket, bucket: 64}]' --set requests.count=50"
    done = shell(f"python -m sim run chat.yaml --quiet {allocators}", plugin, PYTHONPATH=str(plugin))
    assert done.returncode == 0, done.stderr
    assert "bucket" in done.stdout
    wrong = shell(
        "python -m sim check chat.yaml --set 'allocators=[{kind: bucket, bucket: 0}]'", plugin, PYTHONPATH=str(plugin)
    )
    assert wrong.stderr.endswith("allocators.0.bucket: must be at least 1, got 0\n")


def test_the_new_allocator_passes_the_conformance_suite(plugin: Path) -> None:
    done = shell("python -m pytest tests/conformance -q -k bucket -p no:cacheprovider", ROOT, PYTHONPATH=str(plugin))
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\d+ passed", done.stdout.splitlines()[-1])


def main() -> None:
    """Write what the README's commands print into it."""
    import tempfile  # noqa: PLC0415 - used here only

    with tempfile.TemporaryDirectory() as name:
        write_files(Path(name))
        text = README.read_text(encoding="utf-8")
        for console in blocks("console"):
            text = text.replace(console, printed(console, Path(name)))
        README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
