"""What tables, intervals and fronts say of a sweep."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from analysis.planner.rows import front
from analysis.planner.sweeps import summarise
from analysis.planner.words import sweep_findings
from sim.cli import main
from sim.cli.app import FAULT
from sim.planner.backends import make
from sim.planner.grid import Base
from sim.planner.sweep import sweep
from tests.planner.conftest import GRID

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(("second", "alike"), [(2.9560, True), (2.9599, True), (2.9499, False)])
def test_cells_that_read_the_same_are_not_told_apart(second: float, alike: bool) -> None:
    rates = {"first": 2.9599, "second": second, "third": 1.5}
    cells = [
        {
            "allocator": name,
            "kind": "paged",
            "settings": {},
            "figures": {"throughput_rps": {"mean": rate, "low": None, "high": None}},
            "front": True,
            "verdict": "STABLE",
        }
        for name, rate in rates.items()
    ]
    said = [one.text for one in sweep_findings(cells, {})]
    assert said[0] == "Most requests: 2.96 a second, with first."
    assert ("1 more cell cannot be told apart from it: second." in said) is alike


def test_the_table_says_how_large_the_pool_is_if_it_is_not_varied(workload: Path, capsys: Capture) -> None:
    assert main(["sweep", str(workload), "--vary", "requests.arrivals.rate=200,800", "--out", "x", "--quiet"]) == 0
    sizes = {row["pool_slots"] for row in pq.read_table("x/results.parquet").to_pylist()}
    assert len(sizes) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert f"held: on each GPU, at its peak, of a pool of {min(sizes):,} to {max(sizes):,} slots" in said
    line = ["sweep", str(workload), "--vary", "device.kv_memory_gib=0.0005,0.001", "--out", "y", "--quiet"]
    assert main(line) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "pool of" not in said
    assert "held: on each GPU, at its peak" in said


def test_what_is_varied_of_one_allocator_makes_no_more_cells_of_another(workload: Path, capsys: Capture) -> None:
    bound = "allocators=[{kind: preallocated}, {kind: paged}, {kind: ideal}]"
    line = ["sweep", str(workload), "--set", bound, "--vary", GRID[0], "--vary", GRID[1], "--out", "x", "--quiet"]
    assert main(line) == 0
    told = capsys.readouterr().out
    rows = [words for words in map(str.split, told.splitlines()) if len(words) > 2]
    assert [words[:2] for words in rows if words[2] == "preallocated"] == [["200", "any"], ["800", "any"]]
    assert [words[:2] for words in rows if words[2] == "ideal"] == [["200", "any"], ["800", "any"]]
    assert sum(words[2] == "paged" for words in rows) == 4
    cells = json.loads(Path("x/summary.json").read_text(encoding="utf-8"))["cells"]
    assert len(cells) == 12
    said = [one.text for one in sweep_findings(cells, {})]
    assert "ideal" not in said[0]  # nobody can have it
    assert any(" of 8 cells are on the Pareto front" in one for one in said)


def test_cells_are_told_apart_by_pairs_of_replications_which_have_their_requests_in_common() -> None:
    rates = {"best": (10.0, 13.0, 16.0), "near": (9.9, 13.2, 15.8), "far": (9.0, 12.1, 15.0)}
    record = {"kind": "paged", "pool_slots": 64, "verdict": "STABLE", "kept_up": True}
    record |= {f"requests.{name}": count for name, count in (("total", 9), ("refused", 0), ("unfinished", 0))}
    record["requests.refusals"] = "{}"
    rows = [
        {**record, "cell": 0, "allocator": name, "repeat": at, "throughput_rps": each[at]}
        for name, each in rates.items()
        for at in range(3)
    ]
    cells = summarise(rows, [], [])["cells"]
    behind = {cell["allocator"]: cell["behind"]["throughput_rps"] for cell in cells}
    apart = np.array([1.0, 0.9, 1.0])
    half = 4.302652730 * apart.std(ddof=1) / 3**0.5
    assert behind["far"]["mean"] == pytest.approx(apart.mean())
    assert behind["far"]["high"] - behind["far"]["mean"] == pytest.approx(half)
    said = [one.text for one in sweep_findings(cells, {})]
    assert "1 more cell cannot be told apart from it: near." in said  # by themselves all intervals overlap


def test_a_trace_is_the_same_every_time_and_has_no_interval(workload: Path, capsys: Capture) -> None:
    Path("t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,8,8\n0.1,9,7\n0.3,8,9\n", encoding="utf-8")
    line = ["sweep", str(workload), "--set", "requests={trace: t.csv}", "--vary", "requests.rate_scale=1,2"]
    assert main([*line, "--repeat", "3", "--out", "x", "--quiet"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "±" not in told
    assert "a trace is the same every time: one replication, and no interval" in told
    cells = json.loads(Path("x/summary.json").read_text(encoding="utf-8"))["cells"]
    assert {cell["n"] for cell in cells} == {1}
    assert all(cell["figures"]["throughput_rps"]["low"] is None for cell in cells)
    assert "a trace is the same every time" in Path("x/report.html").read_text(encoding="utf-8")
    assert main([*line, "--repeat", "3", "--dry-run"]) == 0
    assert "\n4 simulations, about" in capsys.readouterr().out


def test_engines_that_take_turns_have_as_many_replications_as_they_are(workload: Path, capsys: Capture) -> None:
    rows = "".join(f"{at / 9},8,{3 + at % 5}\n" for at in range(12))
    Path("t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n" + rows, encoding="utf-8")
    line = ["sweep", str(workload), "--set", "requests={trace: t.csv}", "--vary", "requests.one_in=1,2,4"]
    assert main([*line, "--repeat", "3", "--out", "x", "--quiet"]) == 0
    summary = json.loads(Path("x/summary.json").read_text(encoding="utf-8"))
    cells = summary["cells"]
    assert [(cell["settings"]["requests.one_in"], cell["n"]) for cell in cells[::2]] == [(1, 1), (2, 2), (4, 3)]
    assert summary["different"] == 4
    wide = "over 2 or 3 replications; of so few it is wide, --repeat 4 would narrow it"
    assert wide in " ".join(capsys.readouterr().out.split())
    assert "1 to 3 replications of each" in Path("x/report.html").read_text(encoding="utf-8")


def test_intervals_are_those_of_the_replications(base: Base) -> None:
    summary = sweep(base, base.axes(["requests.arrivals.rate=200"]), Path("x"), make())
    rows = pq.read_table("x/results.parquet").to_pandas()
    for cell in summary["cells"]:
        values = rows[rows["allocator"] == cell["allocator"]]["throughput_rps"]
        assert cell["figures"]["throughput_rps"]["mean"] == pytest.approx(values.mean())
        half = 12.706204736 * np.std(values, ddof=1) / 2**0.5
        assert cell["figures"]["throughput_rps"]["high"] - values.mean() == pytest.approx(half)


def test_a_point_is_beaten_by_one_that_is_nowhere_worse_and_somewhere_better() -> None:
    points = [(1.0, 2.0), (1.0, 3.0), (0.0, 9.0), (math.nan, 0.0), (1.0, 2.0)]
    assert front(points) == [True, False, True, False, True]


def test_the_front_is_of_what_can_be_had(workload: Path) -> None:
    """The bound beats everything: with it on the front nothing else would ever be there."""
    with_bound = Base(str(workload), ["allocators=[{kind: preallocated}, {kind: paged}, {kind: ideal}]"])
    cells = sweep(with_bound, with_bound.axes(["requests.arrivals.rate=300,900"]), Path("x"), make())["cells"]
    on = {cell["kind"] for cell in cells if cell["front"]}
    assert "paged" in on
    assert "ideal" not in on


@pytest.mark.parametrize(("text", "message"), [("{", "not readable as JSON"), ("{}", "lacks 'cells'")])
def test_a_broken_summary_is_one_line(workload: Path, capsys: Capture, text: str, message: str) -> None:
    assert main(["sweep", str(workload), "--vary", "seed=1,2", "--out", "x", "--quiet"]) == 0
    Path("x/summary.json").write_text(text, encoding="utf-8")
    capsys.readouterr()
    assert main(["report", "x"]) == FAULT
    said = capsys.readouterr().err
    assert said.startswith(f"x/summary.json: {message}")
    assert said.count("\n") == 1
