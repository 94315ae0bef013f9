"""Requests that are refused, or unfinished at the end: no figure of a planner leaves them out without a word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sim.cli import main

Capture = pytest.CaptureFixture[str]
LINES = {
    "sweep": ["--vary", "engine.max_num_seqs=4,8"],
    "capacity": ["--slo", "ttft_s.p99=1", "--repeat", "2", "--no-curves", "--precision", "1"],
    "advise": ["--slo", "ttft_s.p99=1", "--repeat", "2", "--budget", "10"],
}
LONG = "requests.lengths={kind: uniform, prompt: {min: 4, max: 300}, output: {min: 8, max: 8}}"
REFUSED = "of the requests are refused (longer than max_model_len)"


@pytest.mark.parametrize("command", LINES)
def test_it_is_said_how_many_requests_are_refused(command: str, workload: Path, capsys: Capture) -> None:
    line = [command, str(workload), *LINES[command], "--set", "engine.max_model_len=200", "--quiet", "--out", "x"]
    assert main(line) == 0
    assert REFUSED not in " ".join(capsys.readouterr().out.split())
    assert main([*line, "--force", "--set", LONG]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    page = Path("x/report.html").read_text(encoding="utf-8")
    assert f"% {REFUSED}; latencies leave them out" in shown
    assert f"% {REFUSED}; latencies leave them out" in page
    assert main([*line, "--resume", "--set", LONG, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    shares = {
        "sweep": lambda: [cell["refused"] for cell in told["cells"]],
        "capacity": lambda: [answer["refused"] for answer in told["answers"]],
        "advise": lambda: [told["limits"]["refused"]],
    }[command]()
    assert all(share == pytest.approx(100 / 297, abs=0.15) for share in shares)


@pytest.mark.parametrize("command", LINES)
@pytest.mark.parametrize(("settings", "why"), [
    ([LONG, "engine={scheduler: vllm-v0, max_num_batched_tokens: 200}"], "longer than a step's token budget"),
    (["requests.samples={kind: uniform, min: 1, max: 20}"], "more samples than seats"),
])  # fmt: skip
def test_it_is_said_why_requests_are_refused(
    command: str, settings: list[str], why: str, workload: Path, capsys: Capture
) -> None:
    changes = [word for text in settings for word in ("--set", text)]
    assert main([command, str(workload), *LINES[command], *changes, "--quiet", "--out", "x"]) == 0
    assert f"of the requests are refused ({why}); " in " ".join(capsys.readouterr().out.split())
    assert f"of the requests are refused ({why}); " in Path("x/report.html").read_text(encoding="utf-8")


def test_a_grid_says_where_some_are_refused(workload: Path, capsys: Capture) -> None:
    line = ["sweep", str(workload), "--set", LONG, "--vary", "engine.max_model_len=200,320", "--quiet", "--out", "x"]
    assert main(line) == 0
    assert "in some rows " in (shown := " ".join(capsys.readouterr().out.split()))
    assert REFUSED in shown


def test_a_grid_says_where_some_are_unfinished(workload: Path, capsys: Capture) -> None:
    line = ["sweep", str(workload), "--vary", "horizon_s=0.05,100", "--quiet", "--out", "x"]
    assert main(line) == 0
    said = "of the requests are unfinished when the run ends; latencies leave them out"
    assert said in " ".join(capsys.readouterr().out.split())
    assert said in Path("x/report.html").read_text(encoding="utf-8")
    summary = json.loads(Path("x/summary.json").read_text(encoding="utf-8"))
    assert [cell["unfinished"] > 0 for cell in summary["cells"]] == [True, True, False, False]
