"""What is said of a capacity's limits: runs too short, ratios, what broke, and whose limits requests are over."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from analysis.planner.tables import MISSED, broken, fell_behind, missed, share
from analysis.planner.words import _times
from sim.cli import main

Capture = pytest.CaptureFixture[str]


def test_a_run_too_short_for_a_rate_is_said(workload: Path, capsys: Capture) -> None:
    line = ["capacity", str(workload), "--quiet", "--no-curves", "--precision", "1", "--set", "slo={e2e_s: 0.05}"]
    told = {}
    for count in (30, 1000):
        assert main([*line, "--set", f"requests.count={count}", "--out", f"x{count}", "--json"]) == 0
        answers = json.loads(capsys.readouterr().out)["answers"]
        (told[count],) = [one for one in answers if one["allocator"] == "paged"]
        assert main([*line, "--set", f"requests.count={count}", "--out", f"x{count}", "--resume"]) == 0
        said = " ".join(capsys.readouterr().out.split())
        stays = sorted(f"{one['stays']:.1f}" for one in answers)
        times = " to ".join(dict.fromkeys((stays[0], stays[-1])))
        few = f"all: at the rate sustained requests arrive for only {times} times as long as one stays"
        assert said.count(few) == said.count("times as long as one stays") == (count == 30)  # once for all of them
    rows = pq.read_table("x1000/results.parquet").to_pandas()
    rows = rows[rows["sustained"] & (rows["allocator"] == "paged")]
    best = rows.loc[rows.groupby("repeat")["rate"].idxmax()]
    assert told[1000]["stays"] == pytest.approx((1000 / best["offered_rps"] / best["e2e_s"]).mean())


@pytest.mark.parametrize(
    ("mean", "low", "high", "said"),
    [
        (2.0, 1.6, 2.5, "paged sustains 2.00 times what other does (95 % interval 1.60 to 2.50)."),
        (
            1.25,
            0.25,
            6.25,
            "paged sustains 1.25 times what other does (95 % interval 0.25 to 6.25): which has more is unclear.",
        ),
        (1.0, 1.0, 1.0, "paged sustains what other does, in every replication."),
        (0.5, 0.4, 0.625, "other sustains 2.00 times what paged does (95 % interval 1.60 to 2.50)."),
    ],
)
def test_a_ratio_is_said_of_the_one_that_sustains_more(mean: float, low: float, high: float, said: str) -> None:
    ratio = {"allocator": "paged", "over": "other", "settings": {}, "mean": mean, "low": low, "high": high}
    assert _times(ratio) == said
    shares = {2.0: "50 (40 to 62)", 1.25: "80 (16 to 400)", 1.0: "100 (100 to 100)", 0.5: "200 (160 to 250)"}
    assert share(ratio) == shares[mean]


def test_the_table_of_capacities_says_whose_the_ratios_are_and_what_a_queue_does(
    workload: Path, capsys: Capture
) -> None:
    line = ["capacity", str(workload), "--slo", "ttft_s.p99=0.02", "--repeat", "2", "--precision", "0.5", "--quiet"]
    assert main(line) == 0
    summary = json.loads(Path("runs/small-capacity/summary.json").read_text(encoding="utf-8"))
    assert {one["allocator"] for one in summary["ratios"]} == {"paged"}
    shown = capsys.readouterr().out
    assert "% paged" in shown
    sizes = [one["pool_slots"] for one in summary["answers"]]
    assert f"sustained: with a pool of {min(sizes):,} to {max(sizes):,} slots" in shown
    (ratio,) = summary["ratios"]
    mean, low, high = (100 / ratio[part] for part in ("mean", "high", "low"))
    assert re.search(rf" preallocated .* {mean:.0f} \({low:.0f} to {high:.0f}\) *\n", shown)
    for answer in summary["answers"]:  # a replication's own rate, whatever those of the others
        rows = pq.read_table("runs/small-capacity/results.parquet").to_pylist()
        found = [
            row["ttft_s.p99"]
            for row in rows
            for search in answer["searches"]
            if (row["allocator"], row["repeat"]) == (answer["allocator"], search["repeat"])
            and row["rate"] == search["sustained"]
        ]
        assert answer["figures"]["ttft_s.p99"]["mean"] == pytest.approx(np.mean(found))
        assert answer["figures"]["ttft_s.p99"]["mean"] <= 0.02
    queues = any(fell_behind(one["searches"]) for one in summary["answers"])
    assert ("queue: fewer requests leave than arrive" in shown) is queues


def test_behind_goodput_stand_the_limits_that_requests_are_over(workload: Path, capsys: Capture) -> None:
    line = ["capacity", str(workload), "--set", "slo={ttft_s: 0.002, tpot_s: 0.0002}", "--repeat", "2", "--quiet"]
    line += ["--precision", "0.2", "--no-curves", "--out", "x"]
    assert main([*line, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    rows = pq.read_table("x/results.parquet").to_pylist()
    for answer in document["answers"]:
        for search in answer["searches"]:
            assert search["limited_by"].startswith("goodput=0.9")
            (at,) = (
                row["goodput"]
                for row in rows
                if (row["allocator"], row["repeat"]) == (answer["allocator"], search["repeat"])
                and row["rate"] == search["not_sustained"]
            )
            assert set(search["missed"]) == {"unfinished", "ttft_s", "tpot_s"}
            assert max(search["missed"].values()) <= 1 - at <= sum(search["missed"].values())
            assert search["missed"]["unfinished"] == 0
        first, *others = missed(answer["searches"]).items()
        assert all(one[1] <= first[1] for one in others)
        assert broken(answer["searches"]).startswith(f"goodput=0.9 ({first[0]} {100 * first[1]:.1f} %")
    assert main([*line, "--resume"]) == 0
    shown, page = " ".join(capsys.readouterr().out.split()), Path("x/report.html").read_text(encoding="utf-8")
    assert MISSED in shown
    assert MISSED in page
    told = [broken(answer["searches"]) for answer in document["answers"]]
    assert all(f" {one}" in shown and f">{one}<" in page for one in told)


def test_limits_are_told_worst_first_and_only_where_goodput_ends_the_search() -> None:
    def search(limited_by: str, **missed: float) -> dict[str, object]:
        return {"limited_by": limited_by, "missed": missed}

    both = [search("goodput=0.9, queue", ttft_s=0.08, tpot_s=0.0), search("goodput=0.9", ttft_s=0.04, tpot_s=0.2)]
    assert broken([*both, search("queue")]) == "goodput=0.9 (tpot_s 10.0 %, ttft_s 6.0 %), queue"
    assert broken([search("ttft_s.p99=1")]) == "ttft_s.p99=1"
    assert broken([search("goodput=0.9", itl_s=0.0001)]) == "goodput=0.9"
    assert broken([{"limited_by": "goodput=0.9"}]) == "goodput=0.9"  # as an earlier version wrote it


@pytest.mark.parametrize(
    ("limited_by", "behind"),
    [("queue", True), ("ttft_s.p99=1, queue", True), ("queue_s.p99=1", False), ("goodput=0.9", False), ("", False)],
)
def test_a_limit_on_the_time_in_the_queue_is_no_queue_that_grows(limited_by: str, *, behind: bool) -> None:
    assert fell_behind([{"limited_by": limited_by, "missed": {"queue_s": 0.2}}]) is behind
