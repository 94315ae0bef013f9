"""The rate that an engine sustains, against a queue whose answer is known."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import log
from pathlib import Path

import pytest
from rich.console import Console

from analysis.figures import figure, group, ratio
from analysis.published import rows
from analysis.sustained import sustained
from analysis.table import show_variants
from analysis.variants import open_variants
from sim.case import Case
from sim.cli import main
from sim.cli.app import FAULT, INTERRUPTED
from sim.runner import run
from sim.serve import Progress
from sim.setup import prepare
from sim.sustained import Search, Tried
from workloads.loader import load

STEP, TOKENS = 0.01, 100
WORKLOAD = """\
name: queue
model: tiny-llama
device: {memory_gib: 80, bandwidth_tbps: 1.0e+9, bf16_tflops: 1.0e+9, kv_memory_gib: 0.01}
engine: {scheduler: orca, max_num_seqs: 1, max_model_len: 4096}
requests: {duration_s: 1200, arrivals: {kind: poisson, rate: 0.3}, lengths: {kind: fixed, prompt: 1, output: 100}}
allocators: [{kind: paged, label: ours}, {kind: ideal}]
costs: {step_overhead_s: 0.01, sequence_overhead_s: 0, layer_overhead_s: 0}
telemetry: {blocks: "off"}
sustained: {normalized_latency_s: 0.02}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "queue.yaml"
    path.write_text(WORKLOAD)
    return path


def test_the_rate_is_that_of_the_closed_form(file: Path, tmp_path: Path) -> None:
    """M/D/1: latency is S (1 + load / (2 (1 - load))); twice S at a load of two thirds."""
    entries = run(load(file), tmp_path / "out").summary()
    rate = 2 / 3 / (STEP * TOKENS)
    assert figure(entries[0], "sustained_rps") == pytest.approx(rate, rel=0.08)
    assert figure(entries[0], "sustained_rps") == figure(entries[1], "sustained_rps"), "both saw the same requests"
    tried = entries[0]["sustained"]["tried"]
    assert [one["rate"] for one in tried] == sorted(one["rate"] for one in tried)
    found = entries[0]["sustained"]["rps"]
    under = next(one for one in reversed(tried) if one["rate"] <= found)
    over = next(one for one in tried if one["rate"] > found)
    assert under["latency_s"] <= 0.02 < over["latency_s"]
    rise = log(over["latency_s"] / under["latency_s"]) / log(over["rate"] / under["rate"])
    at_found = under["latency_s"] * (found / under["rate"]) ** rise
    assert at_found == pytest.approx(0.02, rel=1e-9), "latency between two rates is a power of the rate"


def test_a_limit_that_no_rate_reaches_gives_no_rate(file: Path, tmp_path: Path) -> None:
    workload = load(file, ["sustained.normalized_latency_s=0.005", "requests.duration_s=200"])
    directory = run(workload, tmp_path / "out")
    entry = directory.summary()[0]
    assert entry["sustained"]["rps"] is None
    told = "Rate at which latency reaches 5 ms/token on average: ours none, ideal none."
    assert sustained(group(directory.summary())) == [told]
    over = {"ours": {"sustained_rps": {"value": 2, "over": "ideal"}}}
    (row,) = rows(group(directory.summary()), over)
    assert (row.published, row.value, row.difference) == ("2x", "-", "-")


def test_the_rate_is_told_in_tables_and_on_the_page(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", file.name, "--set", "requests.duration_s=200", "--out", "out", "--quiet"]) == 0
    entries = json.loads((tmp_path / "out" / "summary.json").read_text())["runs"]
    rate = figure(entries[0], "sustained_rps")
    told = f"Rate at which latency reaches 20 ms/token on average: ours {rate:.3g} req/s, ideal {rate:.3g} req/s."
    assert told in " ".join(capsys.readouterr().out.split())
    assert told in (tmp_path / "out" / "report.html").read_text()


def test_a_limit_that_is_never_reached_is_told_with_the_highest_rate(file: Path, tmp_path: Path) -> None:
    """Two requests, however close: the second waits for the first, 15 ms a token on average."""
    changes = ["requests.duration_s=null", "requests.count=2", "requests.arrivals.kind=fixed"]
    directory = run(load(file, changes), tmp_path / "out")
    entries = directory.summary()
    highest = entries[0]["sustained"]["tried"][-1]["rate"]
    (told,) = sustained(group(entries))
    assert f"ours more than {round(highest):,} req/s" in told


def test_an_engine_that_is_overloaded_to_a_standstill_is_asked_at_a_quarter_of_the_rate(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it then serves is no guide to the rate that it sustains: here, 0.9 requests a second."""
    asked: list[float] = []

    def tried(_: Search, __: Case, rate: float, ___: int) -> Tried:
        asked.append(rate)
        return Tried(rate, 0.01, rate) if rate <= 0.9 else Tried(rate, 1.0, 0.001)

    monkeypatch.setattr(Search, "_try", tried)
    setup = prepare(load(file, ["sustained.from_rate=8"]))
    assert setup.workload.sustained is not None
    found = Search(setup, setup.workload.sustained, None).of(setup.cases[0], 0)
    assert asked[:3] == [8, 2, 0.5]
    assert 0.9 / 1.03 <= found["rps"] <= 0.9 * 1.03


def test_a_finished_search_is_not_done_again(file: Path, tmp_path: Path) -> None:
    workload, out = load(file, ["repeat=2", "requests.duration_s=150"]), tmp_path / "out"
    run(workload, out)
    before = (out / "summary.json").read_bytes()
    (out / "ours/repeat-1/sustained.json").unlink()
    run(workload, out, resume=True)
    assert (out / "summary.json").read_bytes() == before


VARIANTS = """\
repeat: 2
remarks: [one seat is one seat]
variants:
  - label: short
    set: {requests.duration_s: 100}
    expect: {ours: {sustained_rps: {value: 1, over: ideal, source: theory}, kv_sharing: 0}}
  - label: "long"
    set: {requests.duration_s: 150}
    expect: {ours: {share.free: {low: 10, high: 20}}}
"""


def test_variants_leave_a_directory_each_and_one_table(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(WORKLOAD + VARIANTS)
    assert main(["run", str(file), "--quiet", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["variant"] for one in document["variants"]] == ["short", "long"]
    assert all(Path(one["report"]).exists() for one in document["variants"])
    found = open_variants("runs/queue")
    same, sharing, free = found.published
    assert (same.variant, same.published, same.value, same.difference) == ("short", "1x", "1x", "+0.0 %")
    assert same.interval == "1 … 1"
    assert (sharing.published, sharing.value, sharing.difference) == ("0 %", "0 %", "+0.0 points")
    assert free.published == "10 % to 20 %"
    assert free.difference.endswith("points")
    out = io.StringIO()
    show_variants(found, Console(file=out, width=100))
    assert "one seat is one seat" in out.getvalue()
    assert "sustained" in out.getvalue()
    (short, ideal), _ = (group(directory.summary()) for directory in found.runs.values())
    assert ratio(ideal, short, "sustained_rps").value == pytest.approx(1)


def test_interrupted_variants_go_on_with_none_of_an_earlier_seed(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def impatient(*_: object, **__: object) -> Iterator[Callable[[Progress], None]]:
        def interrupt(progress: Progress) -> None:
            if progress.label == "short: ideal":
                raise KeyboardInterrupt

        yield interrupt

    plain = WORKLOAD.partition("sustained:")[0].replace("duration_s: 1200", "duration_s: 20")
    variants = "variants: [{label: short}, {label: seats, set: {engine.max_num_seqs: 4}}]\n"
    file.write_text(plain + variants, encoding="utf-8")
    assert main(["run", str(file), "--quiet", "--out", "x"]) == 0
    line = ["run", str(file), "--quiet", "--seed", "5", "--out", "x"]
    with monkeypatch.context() as patched:
        patched.setattr("sim.cli.run.shown", impatient)
        assert main(line) == FAULT  # before any of it is removed
        assert len(list(Path("x").rglob("*.parquet"))) == 4 * 4
        assert main([*line, "--force"]) == INTERRUPTED
    assert "1 of 4 runs is complete in x" in capsys.readouterr().err
    assert main([*line, "--resume"]) == 0
    assert main([*line[:-1], "y"]) == 0
    for label in ("short", "seats"):
        assert Path("x", label, "summary.json").read_bytes() == Path("y", label, "summary.json").read_bytes()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("expect: {theirs: {batch_size: 1}}\n", "expect: no run is called theirs; there are: ideal, ours\n"),
        ("expect: {ours: {batch_size: {value: 1, over: their}}}\n", "expect: no run is called their; there are: ideal"),
        ("expect: {ours: {batchsize: 1}}\n", "expect: ours: no metric is called batchsize; see `list metrics`\n"),
        (
            "expect: {ours: {batchsize: 1, part.chat.waiting: 1}}\n",
            "queue.yaml:10:9: expect: ours: no metric is called part.chat.waiting; see `list metrics`\n",
        ),
        (
            "expect: {ours: {part.chat.ttft_s: 1}}\n",
            "expect: ours: no part is called chat; requests are no mix\n",
        ),
        (
            "expect: {ours: {batch_size.p99: 1}}\n",
            "expect: ours: no metric is called batch_size.p99; there are: batch_size.mean, batch_size.peak\n",
        ),
        ("variants: [{label: a/b}, {label: a:b}]\n", "variants: two labels give the same folder name"),
        ("variants: [{label: A}, {label: a}]\n", "variants: two labels give the same folder name"),
    ],
)
@pytest.mark.parametrize("command", ["check", "run"])
def test_what_cannot_be_shown_is_told_before_anything_runs(
    command: str, more: str, message: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(WORKLOAD + more)
    assert main([command, str(file)]) == FAULT
    assert message in capsys.readouterr().err
    assert not Path("runs/queue").exists()
