"""A mix of requests on the command line: each command serves it, or says why not."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sim.cli import main
from sim.cli.app import FAULT
from sim.planner.grid import Base
from sim.planner.rates import rate_of
from sim.planner.slo import FIGURES, Objective, objectives
from tests.small import settle
from workloads.read_once import Traces

Capture = pytest.CaptureFixture[str]

MIXED = """\
name: small
model: tiny-llama
device: {name: h100-80gb, kv_memory_gib: 0.0005}
engine: {max_num_seqs: 8, max_model_len: 256}
requests:
  mix:
    - {name: chat, count: 30, arrivals: {kind: poisson, rate: 300}, lengths: {kind: fixed, prompt: 24, output: 16}}
    - {name: long, count: 10, arrivals: {kind: poisson, rate: 100}, lengths: {kind: fixed, prompt: 90, output: 9}}
allocators:
  - {kind: preallocated}
  - {kind: paged}
slo: {ttft_s: 0.01}
"""
SESSIONS = "requests.mix.chat.session={kind: turns, turns: 2, think_s: 0.01}"


@pytest.fixture
def workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return settle(MIXED, tmp_path, monkeypatch)


def asked(capsys: Capture, *words: str) -> Any:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: Capture, *words: str) -> str:
    assert main([*words]) == FAULT
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said.strip()


def test_check_sums_up_each_part(workload: Path, capsys: Capture) -> None:
    told = asked(capsys, "check", str(workload))["requests"]
    assert told["count"] == 40
    assert {name: part["prompt_tokens_mean"] for name, part in told["parts"].items()} == {"chat": 24, "long": 90}
    assert max(part["last_arrival_s"] for part in told["parts"].values()) == told["last_arrival_s"]
    assert main(["check", str(workload)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith(" of part long "))
    assert line.split()[3:5] == ["10,", "the"]


def test_a_part_by_its_name(workload: Path, capsys: Capture) -> None:
    told = asked(capsys, "check", str(workload), "--set", "requests.mix.long.count=4")["requests"]
    assert told["parts"]["long"]["count"] == 4
    said = refused(capsys, "check", str(workload), "--set", "requests.mix.lnog.count=4")
    assert said == (
        "--set requests.mix.lnog.count=4: no part of the mix is named lnog (did you mean long?); there are: chat, long"
    )
    said = refused(capsys, "check", str(workload), "--set", "requests.mix.long={name: long, trace: x.csv}")
    assert said.startswith(
        "--set requests.mix.long={name: long, trace: x.csv}: requests.mix.1.trace: no such file: x.csv"
    )


def test_a_fault_that_shows_when_requests_are_drawn_has_its_place(workload: Path, capsys: Capture) -> None:
    workload.write_text(MIXED.replace("count: 10", "duration_s: 1e-9"))
    place = f"{workload}:8:7: requests.mix.1: none arrives within 1e-09 s at this rate"
    assert refused(capsys, "check", str(workload)) == place
    assert refused(capsys, "run", str(workload)) == place


def test_variants_change_a_part_by_its_name(workload: Path, capsys: Capture) -> None:
    workload.write_text(MIXED + "variants: [{label: few, set: {requests.mix.long.count: 2}}]\n")
    assert main(["run", str(workload), "--quiet", "--out", "out"]) == 0
    summary = json.loads(Path("out/few/summary.json").read_text())["runs"][0]
    assert summary["parts"]["long"]["requests"]["total"] == 2
    capsys.readouterr()
    workload.write_text(MIXED + "variants: [{label: few, set: {requests.mix.lnog.count: 2}}]\n")
    assert "no part of the mix is named lnog (did you mean long?)" in refused(capsys, "check", str(workload))


def test_other_results_are_refused_by_the_key_that_differs(workload: Path, capsys: Capture) -> None:
    assert main(["run", str(workload), "--quiet", "--out", "out"]) == 0
    capsys.readouterr()
    said = refused(capsys, "run", str(workload), "--out", "out", "--set", "requests.mix.long.count=9")
    assert "requests.mix.1.count was 10, is 9" in said
    assert main(["run", str(workload), "--quiet", "--out", "out", "--resume"]) == 0


def test_compare_tells_how_each_part_fares(workload: Path, capsys: Capture) -> None:
    for out, count in (("one", 10), ("two", 40)):
        more = ("--set", f"requests.mix.long.count={count}", "--set", "allocators=[paged]")
        assert main(["run", str(workload), "--quiet", "--out", out, *more]) == 0
    capsys.readouterr()
    told = asked(capsys, "compare", "one", "two")
    assert told["settings"] == [{"key": "requests.mix.long.count", "first": 10, "second": 40}]
    assert list(dict.fromkeys(row["allocator"] for row in told["rows"])) == ["paged", "paged, chat", "paged, long"]
    summaries = [json.loads(Path(out, "summary.json").read_text())["runs"][0] for out in ("one", "two")]
    (row,) = (row for row in told["rows"] if (row["allocator"], row["metric"]) == ("paged, chat", "ttft_s.p99"))
    ends = [one["parts"]["chat"]["metrics"]["ttft_s"]["p99"] for one in summaries]
    assert [row["first"], row["second"]] == ends
    of_parts = {row["metric"] for row in told["rows"] if row["allocator"] == "paged, long"}
    assert of_parts < {row["metric"] for row in told["rows"] if row["allocator"] == "paged"}
    told = asked(capsys, "compare", "one", "one")
    assert not any(row["difference"] for row in told["rows"])


def test_exports_have_the_part(workload: Path, capsys: Capture) -> None:
    assert main(["run", str(workload), "--quiet", "--out", "out"]) == 0
    for to in ("csv", "perfetto", "prometheus", "torch-snapshot"):
        assert main(["export", "out", "--to", to]) == 0
    capsys.readouterr()
    with Path("out/export/paged.requests.csv").open() as file:
        parts = [row["part"] for row in csv.DictReader(file)]
    assert {name: parts.count(name) for name in parts} == {"chat": 30, "long": 10}


def test_a_sweep_varies_a_part_and_the_rate_of_all(workload: Path, capsys: Capture) -> None:
    vary = ("--vary", "requests.mix.long.count=4,10", "--vary", "requests.rate_scale=1,2")
    told = asked(capsys, "sweep", str(workload), *vary, "--out", "out")
    assert [cell["settings"] for cell in told["cells"][::2]] == [
        {"requests.mix.long.count": count, "requests.rate_scale": scale} for count in (4, 10) for scale in (1, 2)
    ]
    rows = pq.read_table("out/results.parquet").to_pylist()
    assert all(row["part.chat.ttft_s.p99"] > 0 for row in rows)
    assert all(0 <= row["part.chat.goodput"] <= 1 for row in rows)
    said = refused(capsys, "sweep", str(workload), "--vary", "requests.mix.lnog.count=1,2")
    assert said.startswith("--vary requests.mix.lnog.count: no part of the mix is named lnog (did you mean long?)")


@pytest.mark.parametrize(
    ("change", "value", "unit"),
    [
        ("requests.rate_scale=1", 400.0, "requests/s"),
        ("requests.rate_scale=3", 1200.0, "requests/s"),
        (SESSIONS, 400.0, "arrivals/s"),
        ("requests.mix.long.arrivals={kind: on-off, on_rate: 30, on_s: 1, off_s: 2}", 310.0, "requests/s"),
    ],
)
def test_the_rate_of_a_mix_is_that_of_all_parts(workload: Path, change: str, value: float, unit: str) -> None:
    rate = rate_of(Base(str(workload), [change]).workload, Traces())
    assert rate.place == ("requests", "rate_scale")
    assert rate.value * rate.scale == pytest.approx(value)
    assert rate.unit == unit


def test_the_rate_of_a_recorded_part(workload: Path) -> None:
    rows = [f"{0.5 * at},20,5" for at in range(9)]
    Path("mine.csv").write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows, ""]))
    changed = ("requests.mix.long={name: long, trace: mine.csv, rate_scale: 2}", "requests.rate_scale=4")
    rate = rate_of(Base(str(workload), changed).workload, Traces())
    assert (rate.value, rate.scale) == (4, pytest.approx(300 + 2 / 0.5))


def test_capacity_within_objectives_of_parts(workload: Path, capsys: Capture) -> None:
    aims = ("--slo", "part.chat.ttft_s.p99=0.02", "--slo", "part.long.goodput=0.5")
    more = ("--repeat", "1", "--precision", "0.5", "--set", "allocators=[paged]")
    told = asked(capsys, "capacity", str(workload), *aims, *more, "--out", "out")
    (answer,) = told["answers"]
    assert answer["capacity"]["mean"] > 0
    assert set(answer["searches"][0]["limited_by"].split(", ")) <= {
        "part.chat.ttft_s.p99=0.02", "part.long.goodput=0.5", "queue",
    }  # fmt: skip
    assert [one["name"] for one in told["slo"]] == ["part.chat.ttft_s.p99", "part.long.goodput"]
    assert "Time to first token" in Path("out/report.html").read_text()
    varied = refused(capsys, "capacity", str(workload), "--vary", "requests.rate_scale=1,2")
    assert varied == "--vary requests.rate_scale: this is the rate that is searched for; vary something else"


def test_the_rate_of_one_part(workload: Path) -> None:
    Path("mine.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,20,5\n1,20,5\n2,20,5\n")
    recorded = "requests.mix.long={name: long, trace: mine.csv, rate_scale: 2}"
    of = Base(str(workload), [recorded, "requests.rate_scale=3"]).workload
    chat, long = (rate_of(of, Traces(), part) for part in ("chat", "long"))
    assert (chat.place, chat.value, chat.unit) == (
        ("requests", "mix", 0, "arrivals", "rate"), 300, "requests/s of chat",
    )  # fmt: skip
    assert (long.place, long.value, long.unit) == (("requests", "mix", 1, "rate_scale"), 2, "requests/s of long")
    assert [one.value * one.scale for one in (chat, long)] == pytest.approx([900, 6])


def test_capacity_of_one_part_beside_the_others(workload: Path, capsys: Capture) -> None:
    batch = "requests.mix.long.arrivals={kind: batch}"  # which has no rate, and needs none
    more = ("--part", "chat", "--repeat", "1", "--precision", "0.5", "--set", "allocators=[paged]", "--set", batch)
    told = asked(capsys, "capacity", str(workload), *more, "--slo", "part.chat.ttft_s.p99=0.02", "--out", "out")
    assert told["unit"] == "requests/s of chat"
    assert told["answers"][0]["capacity"]["mean"] > 0
    rows = pq.read_table("out/results.parquet").to_pylist()
    ends = {row["rate"]: row["part.chat.throughput_rps"] for row in rows}
    assert ends[min(ends)] < ends[max(ends)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--part caht", "--part caht: no part of the mix is named caht (did you mean chat?); there are: chat, long"),
        (
            "--part chat --demand 9",
            "--demand 9: GPUs share all parts of a mix, and --part chat is the rate of one",
        ),
        (
            "--part chat --vary requests.mix.chat.arrivals.rate=1,2",
            "--vary requests.mix.chat.arrivals.rate: this is the rate that is searched for; vary something else",
        ),
    ],
)
def test_what_is_no_rate_of_one_part(workload: Path, capsys: Capture, words: str, said: str) -> None:
    assert refused(capsys, "capacity", str(workload), *words.split()).endswith(said)


def test_a_part_that_has_no_rate_and_requests_that_have_no_parts(workload: Path, capsys: Capture) -> None:
    batch = "requests.mix.long.arrivals={kind: batch}"
    said = refused(capsys, "capacity", str(workload), "--part", "long", "--set", batch)
    assert "requests.mix.1.arrivals: a capacity is a rate, and batch arrivals have none to change" in said
    plain = "requests={count: 9, arrivals: {kind: poisson, rate: 9}, lengths: {kind: fixed, prompt: 9, output: 9}}"
    said = refused(capsys, "capacity", str(workload), "--part", "chat", "--set", plain)
    assert said == "--part chat: no part of the mix is named chat: requests are no mix"


def test_an_objective_reads_the_figure_of_its_part(workload: Path) -> None:
    given = ("part.chat.ttft_s.p99=1", "part.chat.ttft_s.mean=1", "part.long.goodput=0.5")
    one, mean, share = objectives(given, Base(str(workload)).workload)
    assert (one, mean) == (Objective("part.chat.ttft_s.p99", 1.0), Objective("part.chat.ttft_s", 1.0))
    part = {"requests": {"total": 8}, "metrics": {"ttft_s": {"mean": 0.5, "p99": 2.0}, "goodput_rps": 0.4}}
    record = {"entry": {"parts": {"chat": part, "long": part}, "duration_s": 10.0, "metrics": {}}}
    assert [each.value(record) for each in (one, mean, share)] == [2.0, 0.5, 0.5]
    assert [each.met(record) for each in (one, mean, share)] == [False, True, True]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("part.chta.ttft_s=1", "no part of the mix is named chta (did you mean chat?); there are: chat, long"),
        ("part.chat.ttft=1", f"unknown figure ttft (did you mean ttft_s?); there are: {', '.join(FIGURES)}, goodput"),
        ("part.chat.ttft_s.p98=1", "unknown percentile p98; there are: mean, p50, p90, p95, p99"),
    ],
)
def test_an_objective_of_no_part(workload: Path, capsys: Capture, setting: str, message: str) -> None:
    assert refused(capsys, "capacity", str(workload), "--slo", setting) == f"--slo {setting}: {message}"


def test_what_a_mix_cannot_be_asked(workload: Path, capsys: Capture) -> None:
    batch = "requests.mix.long.arrivals={kind: batch}"
    assert refused(capsys, "capacity", str(workload), "--set", batch) == (
        f"--set {batch}: requests.mix.1.arrivals: a capacity is the rate of all parts together, and batch arrivals "
        "have none to change; use a process such as poisson, or a trace with its own times"
    )
    assert refused(capsys, "advise", str(workload), "--slo", "part.chat.ttft_s=1") == (
        "--slo part.chat.ttft_s=1: advice counts requests within limits that are the same for all of them; give --slo "
        "ttft_s=1, and see capacity or sweep for part chat"
    )


def test_advice_counts_by_the_limits_of_parts_unless_others_are_asked(workload: Path, capsys: Capture) -> None:
    more = ("--set", "requests.mix.long.slo={e2e_s: 1e-9}", "--repeat", "1", "--budget", "6", "--force")
    told = asked(capsys, "advise", str(workload), *more, "--out", "out")
    good = told["before"]["figures"]["good"]["mean"]
    assert 0 < good <= 0.75, "10 of 40 have a limit that nothing keeps"
    told = asked(capsys, "advise", str(workload), *more, "--slo", "ttft_s=1000", "--out", "out")
    assert told["before"]["figures"]["good"]["mean"] == 1


def test_goodput_by_the_limits_of_parts(workload: Path, capsys: Capture) -> None:
    only = ("--set", "slo={}", "--set", "requests.mix.long.slo={e2e_s: 1000}")
    assert main(["run", str(workload), *only, "--quiet", "--out", "out"]) == 0
    entry = json.loads(Path("out/summary.json").read_text())["runs"][0]
    goods = [one["metrics"]["goodput_rps"] for one in (entry, *entry["parts"].values())]
    assert goods == [entry["metrics"]["throughput_rps"], None, entry["parts"]["long"]["metrics"]["throughput_rps"]]
    assert "no limit; long: end to end ≤ 1000 s" in Path("out/report.html").read_text()
    more = (*only, "--repeat", "1", "--precision", "0.5", "--no-curves")
    told = asked(capsys, "capacity", str(workload), *more, "--out", "two")
    assert told["slo"] == [{"name": "goodput", "limit": 0.9, "text": "goodput=0.9"}]
    said = refused(capsys, "capacity", str(workload), "--set", "slo={}", "--set", "requests.mix.long.slo={}")
    assert said == "--slo: the workload has no slo; give one, such as --slo normalized_latency_s=0.2"
    said = refused(capsys, "check", str(workload), "--set", "requests.mix.long.slo.ttft=1")
    assert said == ("--set requests.mix.long.slo.ttft=1: requests.mix.1.slo.ttft: unknown key (did you mean ttft_s?)")
