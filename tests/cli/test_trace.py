"""`trace`: recorded requests summed up, fitted and converted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sim.cli import main
from sim.cli.app import FAULT
from workloads.loader import load

Capture = pytest.CaptureFixture[str]


def test_a_trace_is_summed_up(recorded: Path, capsys: Capture) -> None:
    assert main(["trace", "describe", str(recorded)]) == 0
    shown = capsys.readouterr().out
    assert "csv trace" in shown
    assert main(["trace", "describe", str(recorded), "--count", "50", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["requests"], document["format"], document["span_s"]) == (50, "csv", 24.5)
    assert f"{document['prompt_tokens']['max']:,.1f}" in shown


def test_bad_rows_are_lines_or_left_out(recorded: Path, capsys: Capture) -> None:
    recorded.write_text(recorded.read_text(encoding="utf-8") + "101,-4,5\n", encoding="utf-8")
    assert main(["trace", "describe", str(recorded)]) == FAULT
    out, err = capsys.readouterr()
    assert out == ""
    assert ":202" in err
    assert main(["trace", "describe", str(recorded), "--on-bad-rows", "skip"]) == 0
    assert "left out" in capsys.readouterr().out


def test_a_fit_is_a_requests_block(recorded: Path, workload: Path, capsys: Capture) -> None:
    assert main(["trace", "fit", str(recorded), "--page", "fit.html"]) == 0
    out, err = capsys.readouterr()
    assert "prompt tokens" in err
    text = workload.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("requests:")]
    Path("fitted.yaml").write_text("\n".join(lines) + "\n" + out, encoding="utf-8")
    assert load("fitted.yaml").requests.count == 200
    assert Path("fit.html").read_text(encoding="utf-8").lower().startswith("<!doctype html>")
    assert main(["trace", "fit", str(recorded), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["requests"]["count"] == 200


def test_a_bad_option_of_a_trace_is_told_as_it_was_given(recorded: Path, capsys: Capture) -> None:
    assert main(["trace", "describe", str(recorded), "--block-size", "0"]) == FAULT
    assert capsys.readouterr().err == "--block-size: must be at least 1, got 0\n"
    assert main(["trace", "describe", str(recorded), "--format", "azuer"]) == FAULT
    assert capsys.readouterr().err.startswith("--format: unknown trace format azuer (did you mean azure?); known: ")


def test_a_trace_is_converted_and_nothing_overwritten(recorded: Path, capsys: Capture) -> None:
    assert main(["trace", "convert", str(recorded), "out.jsonl.gz", "--to", "mooncake", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["written"], document["requests"]) == ("out.jsonl.gz", 200)
    assert main(["trace", "describe", "out.jsonl.gz", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "mooncake"
    assert main(["trace", "convert", str(recorded), "new/deeper/out.csv"]) == 0
    capsys.readouterr()
    assert main(["trace", "convert", str(recorded), "out.jsonl.gz"]) == FAULT
    assert capsys.readouterr().err == "out.jsonl.gz: exists already; give another name\n"


@pytest.mark.parametrize(
    "line", ["describe nix", "fit nix", "describe recorded.csv --count 0", "fit recorded.csv --format azuer"]
)
def test_a_trace_that_cannot_be_read_is_one_line(line: str, recorded: Path, capsys: Capture) -> None:
    assert recorded.exists()
    assert main(["trace", *line.split()]) == FAULT
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
