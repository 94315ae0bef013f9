"""What sweeps and capacities tell of each part of a mix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from analysis.errors import RunDirectoryError
from analysis.planner.capacities import LATENCIES, curve_figures
from analysis.planner.page import write_page
from analysis.planner.parts import MOST, figures, names, table
from analysis.planner.tables import interval
from sim.cli import main
from sim.planner.slo import FIGURES as OBJECTIVES
from tests.cli.test_mix import MIXED
from tests.small import settle

Capture = pytest.CaptureFixture[str]
SWEEP = ["sweep", "small.yaml", "--vary", "requests.mix.long.count=4,10", "--repeat", "2", "--out", "x", "--quiet"]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> str:
    """What a sweep of a mix prints."""
    settle(MIXED, tmp_path, monkeypatch)
    assert main(SWEEP) == 0
    return capsys.readouterr().out


def summary() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("x/summary.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.usefixtures("told")
def test_figures_of_parts_are_means_over_replications() -> None:
    rows = pq.read_table("x/results.parquet").to_pylist()
    cells = summary()["cells"]
    assert names(cells) == ["chat", "long"]
    for cell in cells:
        mine = [row for row in rows if (row["cell"], row["allocator"]) == (cell["cell"], cell["allocator"])]
        assert len(mine) == 2
        for name in ("part.chat.ttft_s.p99", "part.long.throughput_rps", "part.long.goodput"):
            found = cell["figures"][name]
            assert found["mean"] == pytest.approx(np.mean([row[name] for row in mine]))
            assert found["low"] <= found["mean"] <= found["high"]


def test_the_table_has_a_row_for_each_part_in_each_cell(told: str) -> None:
    before, _, rest = told.partition("Parts of the mix")
    assert before.endswith("\n\n")
    found = [line.split() for line in rest.splitlines() if line.startswith((" chat ", " long "))]
    assert [words[:3] for words in found] == [
        [part, count, allocator]
        for part in ("chat", "long")
        for count in ("4", "10")
        for allocator in ("preallocated", "paged")
    ]
    (cell,) = (one for one in summary()["cells"] if (one["cell"], one["allocator"]) == (1, "paged"))
    assert " ".join(found[3][-2:]) == interval(cell["figures"]["part.chat.goodput"], 100)
    assert " ".join(found[3][3:5]) == interval(cell["figures"]["part.chat.throughput_rps"])


def test_a_sweep_of_an_earlier_version_has_no_gaps_and_is_shown_without(told: str) -> None:
    assert "gap ms" in told
    found = summary()
    for cell in found["cells"]:
        cell["figures"] = {name: one for name, one in cell["figures"].items() if "itl_s" not in name}
    rewrite(found)
    page = write_page("x").read_text(encoding="utf-8")
    assert "gap ms" not in page
    assert "Gap between tokens" not in page
    assert "TPOT ms p99" in page


@pytest.mark.usefixtures("told")
def test_the_page_draws_and_lists_them() -> None:
    page = write_page("x").read_text(encoding="utf-8")
    facts = json.loads(page.partition('id="facts">')[2].partition("</script>")[0])
    drawn = {figure["name"]: figure["title"] for figure in facts["figures"]}
    assert drawn["part.chat.ttft_s.p99"] == "Time to first token, p99, of part chat"
    assert drawn["part.long.goodput"] == "Requests within the SLO, of part long"
    assert drawn["part.long.itl_s.p99"] == "Gap between tokens, p99, of part long"
    assert all(name in cell["figures"] for cell in facts["cells"] for name, *_ in figures(["chat", "long"]))
    assert page.count('<span class="name">chat</span>') == page.count('<span class="name">long</span>') == 4


@pytest.mark.usefixtures("told")
def test_a_sweep_that_kept_no_figures_of_parts_is_read_all_the_same() -> None:
    found = summary()
    for cell in found["cells"]:
        cell["figures"] = {name: value for name, value in cell["figures"].items() if not name.startswith("part.")}
    assert table(found, ["requests.mix.long.count"]) is None
    rewrite(found)
    assert 'id="h-parts"' not in write_page("x").read_text(encoding="utf-8")


@pytest.mark.usefixtures("told")
def test_a_figure_of_a_part_that_is_none_is_refused() -> None:
    found = summary()
    found["cells"][1]["figures"]["part.chat.ttft_s.p99"]["mean"] = "fast"
    rewrite(found)
    with pytest.raises(RunDirectoryError, match=r"cells\.1\.figures\.part\.chat\.ttft_s\.p99\.mean"):
        write_page("x")


@pytest.mark.usefixtures("told")
def test_the_figures_that_are_listed_of_a_part_are_those_there_are(capsys: Capture) -> None:
    assert main(["list", "metrics", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["metrics"]
    (said,) = (row["formula"] for row in rows if row["metric"] == "part.NAME.FIGURE")
    listed = {*said.partition("is one of ")[2].partition(" (with")[0].split(", "), "goodput"}
    columns = [name for name in pq.read_schema("x/results.parquet").names if name.startswith("part.chat.")]
    assert listed == {name.split(".")[2] for name in columns}


def rewrite(found: dict[str, Any]) -> None:
    """Replace the summary, and what the manifest says of it."""
    Path("x/summary.json").write_text(json.dumps(found), encoding="utf-8")
    manifest = json.loads(Path("x/manifest.json").read_text(encoding="utf-8"))
    manifest.pop("written", None)
    Path("x/manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def test_a_table_of_many_parts_is_cut() -> None:
    none = {"mean": 1.0, "low": None, "high": None}
    cells = [
        {"cell": 0, "allocator": f"a{place}", "settings": {}, "figures": {name: none for name, *_ in figures(["x"])}}
        for place in range(MOST + 5)
    ]
    made = table({"cells": cells}, [])
    assert made is not None
    assert made.row_count == MOST
    assert str(made.caption) == f"{MOST} of {MOST + 5} rows; results.parquet has all"


def test_whatever_an_objective_limits_has_a_title_and_a_unit() -> None:
    assert set(LATENCIES) == set(OBJECTIVES)
    aims = [
        {"name": name} for name in ("e2e_s.p99", "part.batch.e2e_s", "tpot_s.p90", "part.chat.goodput", "ttft_s.p99")
    ]
    assert curve_figures(aims)[:5] == [
        ("e2e_s.p99", "End-to-end latency, p99", "s", 1.0),
        ("part.batch.e2e_s", "End-to-end latency, mean, of part batch", "s", 1.0),
        ("tpot_s.p90", "Time per output token, p90", "ms", 1e3),
        ("part.chat.goodput", "Requests within the SLO, of part chat", "%", 100),
        ("ttft_s.p99", "Time to first token, p99", "s", 1),
    ]
