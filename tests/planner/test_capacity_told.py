"""What is said of capacities: tables, sentences and pages, GPUs and their cost, and what is doubtful."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from analysis.numbers import short
from analysis.planner.capacities import fleet, summarise
from analysis.planner.content import interval_parts
from analysis.planner.rows import last_words
from analysis.planner.tables import cost, gpus, interval, spread_note
from analysis.planner.words import capacity_findings
from sim.cli import main
from sim.cli.app import FAULT
from sim.models.config import DTYPE_NOTE
from sim.models.shipped import read_config

Capture = pytest.CaptureFixture[str]


def test_where_gpus_are_varied_a_capacity_is_also_given_for_each_one(workload: Path, capsys: Capture) -> None:
    line = ["capacity", str(workload), "--slo", "ttft_s.p90=0.002", "--repeat", "1", "--precision", "1", "--quiet"]
    line += ["--set", "allocators=[{kind: paged}]", "--vary", "model.tensor_parallel=1,2", "--out", "x"]
    assert main([*line, "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    assert main([*line, "--resume"]) == 0
    shown = capsys.readouterr().out
    page = Path("x/report.html").read_text(encoding="utf-8")
    for answer in answers:
        each = short(answer["capacity"]["mean"] / answer["settings"]["model.tensor_parallel"])
        assert re.search(rf"paged +\S+ +{each} ", shown)
        assert f'data-head="requests/s a GPU">{each}<' in page
    assert "No ratios" not in page  # of one allocator there are none to be had


def test_the_most_a_gpu_is_told_where_it_is_not_the_most_of_all() -> None:
    def answer(gpus: int, mean: float) -> dict[str, object]:
        settings = {"model.tensor_parallel": gpus}
        capacity = {"mean": mean, "low": None, "high": None}
        rest = {"n": 1, "none": 0, "at_least": False}
        return {"settings": settings, "allocator": "paged", "capacity": capacity, **rest}

    aims = [{"text": "goodput=0.9"}]
    summary = {"unit": "requests/s", "slo": aims, "ratios": [], "answers": [answer(1, 20.0), answer(2, 36.0)]}
    assert [one.text for one in capacity_findings(summary)] == [
        "Highest rate with goodput=0.9: 36 requests/s, by paged at tensor_parallel 2.",
        "Highest rate a GPU: 20 requests/s, by paged at tensor_parallel 1.",
    ]
    summary["answers"] = [answer(1, 20.0), answer(2, 41.0)]
    assert len(capacity_findings(summary)) == 1
    summary["answers"] = [answer(2, 41.0), answer(4, 41.04), answer(2, 40.9)]
    assert capacity_findings(summary)[0].text.endswith("by paged at tensor_parallel 2 and paged at tensor_parallel 4.")


def test_a_doubt_is_said_once_for_all_allocators_that_share_it() -> None:
    def answer(allocator: str, stays: float | None, *, none: int = 0, at_least: bool = False) -> dict[str, object]:
        capacity = {"mean": 1.0, "low": None, "high": None}
        rest = {"n": 2, "none": none, "at_least": at_least, "stays": stays, "point": 0}
        return {"settings": {}, "allocator": allocator, "capacity": capacity, **rest}

    summary = {"unit": "requests/s", "slo": [{"text": "x=1"}], "ratios": [], "curves": [], "drawn": False}
    few = "as long as one stays, so the run is more start and end than steady load; more requests would tell."
    at_that = "at the rate sustained requests arrive for only"
    answers = [answer("a", 1.24), answer("b", 3.0), answer("c", 8.0, at_least=True), answer("d", None, none=2)]
    assert [one.text for one in capacity_findings(summary | {"answers": answers}) if one.tone == "warning"] == [
        "d: 2 of 2 replications hold x=1 at no rate that was tried.",
        f"a and b: {at_that} 1.2 to 3.0 times {few}",
        "c: the search ended before a rate was too much; more requests would tell.",
    ]
    same = [answer("a", 2.0, at_least=True), answer("b", 2.0, at_least=True)]
    assert [one.text for one in capacity_findings(summary | {"answers": same}) if one.tone == "warning"] == [
        f"all: {at_that} 2.0 times {few}",
        "all: the search ended before a rate was too much; more requests would tell.",
    ]


def test_a_higher_rate_that_was_sustained_too_is_told() -> None:
    def run(rate: float, repeat: int, *, sustained: bool) -> dict[str, Any]:
        facts = {"cell": 0, "allocator": "paged", "kind": "paged", "pool_slots": 9, "status": {}, "kept_up": True}
        counts = {
            "requests.total": 10,
            "requests.refused": 0,
            "requests.refusals": "[]",
            "offered_rps": rate,
            "e2e_s": 1.0,
            "duration_s": 10.0,
        }
        return {**facts, **counts, "rate": rate, "repeat": repeat, "sustained": sustained}

    def search(repeat: int) -> dict[str, Any]:
        return {"repeat": repeat, "sustained": 4.0, "not_sustained": 4.1, "limited_by": "x", "missed": {}}

    answer = {"point": 0, "settings": {}, "allocator": "paged", "gpus": 1, "searches": [search(0), search(1)]}
    usual = [run(4.0, 0, sustained=True), run(4.1, 0, sustained=False), run(4.0, 1, sustained=True)]
    for further, told in (([], None), ([run(5.0, 1, sustained=False)], None), ([run(5.0, 1, sustained=True)], 5.0)):
        summary = summarise([*usual, *further], [answer], [{"name": "ttft_s.p99", "text": "x=1"}], "requests/s", [])
        assert summary["answers"][0]["beyond"] == told
        said = [one.text for one in capacity_findings(summary) if "although" in one.text]
        assert len(said) == bool(told)
        assert not told or said[0].startswith("paged: a run at 5 requests/s held this, too")


def test_replications_that_differ_by_more_than_allocators_give_no_ratio() -> None:
    """Its interval would be from 1e-40 or so to 1e40, which no page shows and no document of ours may hold."""

    def answer(label: str, *rates: float) -> dict[str, Any]:
        found = {"not_sustained": None, "limited_by": "x", "missed": {}}
        searches = [{"repeat": repeat, "sustained": rate, **found} for repeat, rate in enumerate(rates)]
        return {"point": 0, "settings": {}, "allocator": label, "gpus": 1, "searches": searches}

    def run(label: str, repeat: int) -> dict[str, Any]:
        facts = {"cell": 0, "allocator": label, "kind": label, "pool_slots": 9, "status": {}, "kept_up": True}
        counts = {"requests.total": 1, "requests.refused": 0, "requests.refusals": "[]", "offered_rps": None}
        return {**facts, **counts, "e2e_s": None, "rate": 1.0, "repeat": repeat, "sustained": False}

    runs = [run(label, repeat) for label in ("paged", "radix") for repeat in (0, 1)]
    for rates, ratios in (((2.0, 2.1), 1), ((200.0, 0.1), 0)):
        summary = summarise(runs, [answer("paged", 1.0, 1.0), answer("radix", *rates)], [], "requests/s", [])
        assert len(summary["ratios"]) == ratios
        assert any(one.text.startswith("No ratios: ") for one in capacity_findings(summary)) is (not ratios)


def test_a_demand_is_met_by_whole_engines(workload: Path, capsys: Capture) -> None:
    line = ["capacity", str(workload), "--slo", "ttft_s.p90=0.002", "--repeat", "1", "--precision", "1", "--quiet"]
    line += ["--set", "allocators=[{kind: paged}]", "--vary", "model.tensor_parallel=1,2", "--out", "x"]
    assert main([*line, "--demand", "1e6", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["demand"] == 1e6
    assert main([*line, "--demand", "1e6", "--resume"]) == 0
    shown = capsys.readouterr().out
    page = Path("x/report.html").read_text(encoding="utf-8")
    for answer in document["answers"]:
        size = answer["settings"]["model.tensor_parallel"]
        needed = fleet(answer, 1e6)
        assert needed is not None
        engines = needed // size
        assert needed == engines * size
        assert (engines - 1) * answer["capacity"]["mean"] < 1e6 <= engines * answer["capacity"]["mean"]
        assert re.search(rf" {needed:,} ", shown)
        assert f'data-head="GPUs for 1,000,000 requests/s">{needed:,}<' in page
    assert "nothing spare" in shown
    assert "nothing spare" in page
    assert main([*line, "--demand", "0"]) == FAULT
    assert capsys.readouterr().err == "--demand 0: give requests a second, above 0\n"


def test_engines_share_bursts_which_a_capacity_cannot_tell(workload: Path, capsys: Capture) -> None:
    line = ["capacity", str(workload), "--slo", "ttft_s.p90=0.002", "--repeat", "1", "--precision", "1", "--quiet"]
    line += ["--set", "allocators=[{kind: paged}]", "--no-curves", "--demand", "1000"]
    assert main(line) == 0
    assert "each with arrivals slowed down to its share" in " ".join(capsys.readouterr().out.split())
    rows = "".join(f"{at / 50},24,16\n" for at in range(40))
    Path("trace.csv").write_text("arrival_s,prompt_tokens,output_tokens\n" + rows, encoding="utf-8")
    assert main([*line, "--set", "requests={trace: trace.csv}", "--force"]) == 0
    assert "so fewer may do: sweep requests.one_in tells" in " ".join(capsys.readouterr().out.split())


def test_a_page_names_no_gpu_where_that_is_varied(workload: Path, capsys: Capture) -> None:
    line = ["capacity", str(workload), "--slo", "ttft_s.p90=0.002", "--repeat", "1", "--precision", "1", "--quiet"]
    line += ["--set", "allocators=[{kind: paged}]", "--no-curves", "--out", "x"]
    devices = "{name: h100-80gb, kv_memory_gib: 0.0005},{name: h200, kv_memory_gib: 0.0005}"
    assert main([*line, "--vary", f"device={devices}"]) == 0
    assert "{name: h200, kv_memory_gib: 0.0005}" in capsys.readouterr().out
    page = Path("x/report.html").read_text(encoding="utf-8")
    assert '<p class="subtitle">tiny-llama · ' in page
    two = ["--set", "model.tensor_parallel=2"]
    assert main([*line, *two, "--vary", "model.name=tiny-llama,tiny-mistral", "--force"]) == 0
    assert '<p class="subtitle">on 2 h100-80gb GPUs · ' in Path("x/report.html").read_text(encoding="utf-8")


def test_with_a_price_the_cost_at_that_rate_is_told(workload: Path, capsys: Capture) -> None:
    line = ["capacity", str(workload), "--slo", "ttft_s.p90=0.002", "--repeat", "1", "--precision", "1", "--quiet"]
    line += ["--set", "allocators=[{kind: paged}]", "--set", "model.tensor_parallel=2", "--no-curves", "--out", "x"]
    assert main([*line, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answers"][0]["cost"] is None
    line += ["--set", "device.price_per_hour=1.8"]
    assert main([*line, "--json", "--force"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    rows = pq.read_table("x/results.parquet").to_pandas()
    (best,) = rows[np.isclose(rows["rate"], answer["capacity"]["mean"])].itertuples()
    tokens = best.output_tps * best.duration_s / 40  # of one request
    assert answer["cost"] == pytest.approx(2 * 1.8 / 3600 / (tokens * best.offered_rps) * 1e6)
    assert main([*line, "--resume"]) == 0
    shown = capsys.readouterr().out
    assert "cost/M: of a million output tokens, at price_per_hour, while such a rate lasts" in " ".join(shown.split())
    assert f'data-head="cost/M">{short(answer["cost"])}<' in Path("x/report.html").read_text(encoding="utf-8")


def test_a_rate_that_was_too_low_to_be_a_capacity_makes_the_cost_a_bound() -> None:
    assert cost({"cost": 0.5, "at_least": False}) == "0.500"
    assert cost({"cost": 0.5, "at_least": True}) == "under 0.500"


@pytest.mark.parametrize("command", [["sweep"], ["capacity", "--slo", "ttft_s.p90=0.002"], ["advise", "--budget", "2"]])
def test_what_is_doubtful_about_a_file_is_told_first(command: list[str], workload: Path, capsys: Capture) -> None:
    device = "device={memory_gib: 80, bandwidth_tbps: 3350, bf16_tflops: 989, kv_memory_gib: 0.0005}"
    line = [command[0], str(workload), *command[1:], "--set", device, "--quiet"]
    line += ["--repeat", "1", "--set", "requests.count=10"]
    main([*line, *(["--precision", "1", "--no-curves"] if command[0] == "capacity" else [])])
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("device: bandwidth_tbps 3,350 is 632 times that of any GPU listed")
    assert told[1].startswith("tiny-llama is fp32 and custom has no fp32_tflops")


def test_what_is_assumed_of_a_model_is_told_first(workload: Path, capsys: Capture) -> None:
    _, config = read_config("tiny-llama")
    Path("config.json").write_text(json.dumps({key: value for key, value in config.items() if key != "dtype"}))
    main(
        ["sweep", str(workload), "--set", "model=config.json", "--set", "requests.count=2", "--repeat", "1", "--quiet"]
    )
    assert capsys.readouterr().err.splitlines()[0] == DTYPE_NOTE


def test_what_sustains_nothing_serves_no_demand() -> None:
    answer = {"capacity": {"mean": 3.0, "low": None, "high": None}, "none": 0, "gpus": 4, "at_least": True}
    assert fleet(answer, 6.1) == 12
    assert gpus(answer, 6.1) == "at most 12"
    assert fleet(answer | {"none": 1}, 6.1) is None
    assert gpus(answer | {"capacity": {"mean": 0.0, "low": None, "high": None}}, 6.1) == "-"


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (None, None, "12"),
        (2.5, 3.5, "12 (8 to 12)"),
        (2.9, 3.04, "12"),
        (1.0, 5.0, "12 (8 to 28)"),
        (-1, 7, "12 (at least 4)"),
    ],
)
def test_how_many_gpus_it_takes_is_as_sure_as_what_one_sustains(low: float, high: float, text: str) -> None:
    answer = {"capacity": {"mean": 3.0, "low": low, "high": high}, "none": 0, "gpus": 4, "at_least": False}
    assert gpus(answer, 6.1) == text


def test_few_replications_are_said_to_make_intervals_wide() -> None:
    wide = "; of so few it is wide"
    assert spread_note([2]) == f"±: 95 % interval over 2 replications{wide}, --repeat 8 would narrow it"
    assert spread_note([8]) == "±: 95 % interval over 8 replications"
    assert spread_note([1, 2, 3], 4) == f"±: 95 % interval over 2 or 3 replications{wide}, --repeat 4 would narrow it"
    assert spread_note([2, 4], 4) == f"±: 95 % interval over 2 to 4 replications{wide}", "there are no more"


def test_a_device_goes_by_its_key_not_by_name() -> None:
    assert last_words(["device.name", "requests.arrivals.rate"]) == ["device", "rate"]
    assert last_words(["device.name", "model.name"]) == ["device", "model"]
    assert last_words(["name"]) == ["name"]


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ((2278.0, 1181.0, 3375.0), "2,278 ±1,097"),
        ((12.34, 11.9, 12.78), "12.3 ±0.4"),
        ((0.5, 0.5, 0.5), "0.500 ±0"),
        ((1234.0, None, None), "1,234"),
        ((None, None, None), "-"),
    ],
)
def test_a_mean_and_its_interval_are_written_alike(ends: tuple[float | None, ...], said: str) -> None:
    assert interval(dict(zip(("mean", "low", "high"), ends, strict=True))) == said


def test_an_interval_of_a_share_ends_where_shares_do() -> None:
    wide = {"mean": 0.9, "low": -0.2, "high": 1.3}
    assert interval_parts(wide, "%") == [0.9, 0.0, 1.0]
    assert interval_parts(wide, "s") == [0.9, -0.2, 1.3]
    assert interval_parts({"mean": None, "low": None, "high": None}, "%") == [None, None, None]
