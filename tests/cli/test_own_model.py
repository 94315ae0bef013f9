"""Names of files in a workload, of a model of one's own above all: they mean the same in every command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sim.cli import main
from sim.models.shipped import read_config

Capture = pytest.CaptureFixture[str]
LINES = {
    "check": [],
    "run": ["--out", "x", "--quiet"],
    "sweep": ["--out", "x", "--quiet"],
    "sweep over models": ["--vary", "model=own,tiny-gpt2", "--out", "x", "--quiet"],
    "capacity": ["--slo", "ttft_s=1", "--repeat", "2", "--no-curves", "--out", "x", "--quiet"],
    "advise": ["--slo", "ttft_s=1", "--repeat", "1", "--budget", "4", "--out", "x", "--quiet"],
}


def model(folder: str | Path, **changes: int) -> None:
    """Write the geometry of tiny-llama as one's own, with changes."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    config = {**read_config("tiny-llama")[1], **changes}
    Path(folder, "config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.fixture
def own(workload: Path) -> Path:
    """The workload, of such a model of nine layers, in the working directory."""
    workload.write_text(workload.read_text(encoding="utf-8").replace("model: tiny-llama", "model: own"), "utf-8")
    model("own", num_hidden_layers=9)
    return Path("small.yaml")


@pytest.mark.parametrize("command", LINES)
@pytest.mark.parametrize("aside", [False, True])
def test_a_bare_folder_beside_the_workload_is_a_model_in_every_command(
    command: str, own: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, *, aside: bool
) -> None:
    file = own
    if aside:
        file = own.absolute()
        Path("elsewhere").mkdir()
        monkeypatch.chdir("elsewhere")
    assert main([command.partition(" ")[0], str(file), *LINES[command]]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "run", "sweep"])
def test_a_shipped_name_wins_over_a_folder_of_that_name_unless_it_is_written_as_a_path(
    command: str, own: Path, capsys: Capture
) -> None:
    model("tiny-llama", num_hidden_layers=9)
    slots = {}
    for name in ("tiny-llama", "./tiny-llama", str(Path("tiny-llama").absolute()), "own"):
        line = [command, str(own), "--set", f"model={name}", "--json", *LINES[command], "--force"]
        assert main(line if command != "check" else line[:-1]) == 0
        told = json.loads(capsys.readouterr().out)
        if command == "check":
            slots[name] = told["runs"][1]["pool"]["slots"]
        elif command == "run":
            slots[name] = json.loads(Path("x/manifest.json").read_text(encoding="utf-8"))["runs"][1]["capacity"]
        else:
            slots[name] = told["cells"][1]["pool_slots"]
    shipped, *mine = slots.values()
    assert len(set(mine)) == 1
    assert shipped > 4 * mine[0]  # 2 layers against 9


@pytest.mark.parametrize("command", ["run", "sweep"])
@pytest.mark.parametrize("name", ["own", "./own"])
def test_resume_keeps_nothing_of_a_model_that_has_changed(name: str, command: str, own: Path, capsys: Capture) -> None:
    line = [command, str(own), "--set", f"model={name}", *LINES[command]]
    assert main(line) == 0
    model("own", num_hidden_layers=9, sliding_window=20)
    capsys.readouterr()
    assert main([*line, "--resume"]) == 2
    assert "own/config.json" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_a_remark_of_any_length_is_no_file(command: str, workload: Path, capsys: Capture) -> None:
    remark = "What is different, and why. " * 20
    workload.write_text(f"{workload.read_text(encoding='utf-8')}remarks: [{json.dumps(remark)}]\n", encoding="utf-8")
    assert main([command, str(workload), *LINES[command]]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("name", ["a" * 300, f"./{'a' * 300}", "a/" * 3000])
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model={}", ": model: "),
        ("requests={{trace: {}}}", ": requests.trace: no such file: "),
        ("costs.calibration={}", ": costs.calibration: "),
    ],
)
def test_a_name_that_is_too_long_for_a_file_is_one_of_none(
    name: str, setting: str, message: str, workload: Path, capsys: Capture
) -> None:
    assert main(["check", str(workload), "--set", setting.format(name)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
