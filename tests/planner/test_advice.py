"""Advice: what to change, what that buys, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allocators.registry import BUILT_IN
from analysis.planner.advising import words as in_words
from analysis.planner.tables import OVER, broken
from sim import runner
from sim.cli import main
from sim.cli.app import FAILED, FAULT
from sim.planner import job
from sim.planner.adviser import Adviser
from sim.planner.backends.local import Here
from sim.planner.execute import JobRunner
from sim.planner.grid import Base
from sim.planner.job import Failed, work
from sim.planner.knobs import changes, hardware
from sim.planner.slo import objectives
from sim.planner.source import Source
from sim.setup import prepare
from tests.planner.memory import MEMORY
from workloads.loader import load

Capture = pytest.CaptureFixture[str]


def test_knobs_are_those_that_can_make_a_difference() -> None:
    setup = prepare(load("quickstart"))
    place = [case.spec.kind for case in setup.cases].index("paged")
    offered, left_out = changes(setup, place, shared=False)
    knobs = {change.knob for change in offered}
    assert knobs >= {"block_size", "max_num_seqs", "max_num_batched_tokens", "watermark", "kv_dtype", "preemption"}
    assert not knobs & {"prefix_cache", "gpu_memory_utilization"}
    assert {reason.partition(":")[0] for reason in left_out} == {"prefix_cache", "gpu_memory_utilization"}
    assert "prefix_cache" in {change.knob for change in changes(setup, place, shared=True)[0]}
    assert all(change.before != change.after for change in offered)
    reserved = [case.spec.kind for case in setup.cases].index("preallocated")
    assert "preemption: preallocated cannot swap" in changes(setup, reserved, shared=False)[1]


def test_what_an_allocator_sets_itself_is_changed_there() -> None:
    """Or it would be said to make no difference."""
    base = Base("quickstart", ["allocators=[{kind: paged, preemption: swap}]"])
    offered, _ = changes(prepare(base.workload), 0, shared=False)
    (change,) = (one for one in offered if one.knob == "preemption")
    assert change.text == "preemption swap -> recompute"
    assert prepare(base.varied({change.axis: change.after})).cases[0].preemption == "recompute"


@pytest.mark.parametrize("kind", [*BUILT_IN])
def test_every_change_that_is_offered_is_one_that_the_allocator_can_have(kind: str) -> None:
    base = Base("quickstart", [f"allocators=[{{kind: {kind}}}]"])
    setup = prepare(base.workload)
    for change in [*changes(setup, 0, shared=True)[0], *hardware(setup, 0)]:
        prepare(base.varied({change.axis: change.after}))


def test_a_quarter_more_memory_is_a_quarter_more_pool() -> None:
    for device in ("h100-80gb", "{name: h100-80gb, kv_memory_gib: 8}"):
        base = Base("quickstart", [f"device={device}"])
        setup = prepare(base.workload)
        more = next(
            change for change in hardware(setup, 0) if "memory" in change.knob and "bandwidth" not in change.knob
        )
        grown = prepare(base.varied({more.axis: more.after}))
        assert grown.cases[0].pool.kv_bytes == pytest.approx(1.25 * setup.cases[0].pool.kv_bytes, rel=0.01)


def test_the_command_says_what_limits_and_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("memory.yaml").write_text(MEMORY, encoding="utf-8")
    line = ["advise", "memory.yaml", "--repeat", "2", "--budget", "20", "--quiet", "--out", "x"]
    assert main(line) == 0
    shown = capsys.readouterr().out
    assert "KV memory limits this workload." in shown
    (slots,) = {case.pool.slots for case in prepare(load(Path("memory.yaml"))).cases}
    assert f" of the pool of {slots:,} slots is live K/V on average" in " ".join(shown.split())
    assert "beyond the budget" in shown
    assert "as it is" in shown
    assert "in SLO" in shown
    assert max(map(len, shown.partition("not tried")[0].splitlines())) <= 124
    assert main([*line, "--resume", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["simulations"] <= 20
    assert document["basis"] == "replications"
    half = next(one for one in document["changes"] if one["knobs"] == ["kv_dtype"])
    assert half["effect"]["tells"] == "better"  # half the bytes, twice the tokens
    base = Base("memory.yaml", ["model.kv_dtype=fp8"])
    again = [work(base.job(base.workload, 0, repeat)) for repeat in range(2)]
    shares = [sum(one["batches"]["good"]) / 120 for one in again if not isinstance(one, Failed)]
    assert half["figures"]["good"]["mean"] == pytest.approx(np.mean(shares))
    assert Path("x/report.html").is_file()
    assert main(["report", "x", "--json"]) == 0
    capsys.readouterr()
    assert main(["advise", "memory.yaml", "--repeat", "1", "--budget", "6", "--quiet", "--out", "once"]) == 0
    once = " ".join(capsys.readouterr().out.split())
    assert "Nothing was repeated, so this choice could not be checked on other requests" in once


def test_the_budget_counts_every_simulation_and_a_resumed_advice_repeats_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("memory.yaml").write_text(MEMORY, encoding="utf-8")
    serve, served = runner.serve, []

    def counted(*given: Any, **named: Any) -> None:
        served.append(given)
        serve(*given, **named)

    monkeypatch.setattr(runner, "serve", counted)
    line = ["advise", "memory.yaml", "--repeat", "2", "--budget", "20", "--quiet", "--out", "x", "--json"]
    assert main(line) == 0
    first = json.loads(capsys.readouterr().out)
    assert len(served) == first["simulations"] <= 20
    served.clear()
    assert main([*line, "--resume"]) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert not served


def advised_without_an_slo(instead: str, budget: str, capsys: Capture) -> tuple[str, str]:
    """Advise on the workload with something else in the place of its SLO; returns what is shown, and the page."""
    Path("memory.yaml").write_text(MEMORY.replace("slo: {ttft_s: 0.02}\n", instead), encoding="utf-8")
    assert main(["advise", "memory.yaml", "--repeat", "2", "--budget", budget, "--quiet", "--out", "x"]) == 0
    return capsys.readouterr().out, Path("x/report.html").read_text(encoding="utf-8")


def test_without_an_slo_nothing_is_said_to_be_within_it(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for said in advised_without_an_slo("", "8", capsys):
        assert "ms/token" in said
        assert "in SLO" not in said
        assert "within SLO" not in said


def test_without_an_slo_a_good_request_is_one_that_finishes(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out, page = advised_without_an_slo("horizon_s: 0.1\n", "20", capsys)
    shown = " ".join(out.split())
    assert "percentage points of requests that finish and" in shown
    assert "finished difference" in shown
    assert "Requests finished, points" in page
    assert all("within" not in said.partition("<script")[0] for said in (shown, page.partition("<body")[2]))


def test_a_budget_that_leaves_nothing_to_try_is_no_advice_to_change_nothing(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("memory.yaml").write_text(MEMORY, encoding="utf-8")
    line = ["advise", "memory.yaml", "--repeat", "2", "--budget", "8", "--quiet", "--out", "x"]
    assert main(line) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Change nothing" not in shown
    assert "No setting was tried with 8 simulations at most; a larger --budget would." in shown
    assert "As it is, goodput=0.9" in shown


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_change_that_cannot_be_is_left_out_and_one_that_fails_is_told_by_the_exit_status(
    form: list[str], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("memory.yaml").write_text(MEMORY.replace("0.0001", "0.000028"), encoding="utf-8")  # less than 128 slots
    line = ["advise", "memory.yaml", "--repeat", "1", "--quiet", "--out", "x", *form]
    assert main(line) == 0
    found = json.loads(Path("x/summary.json").read_text(encoding="utf-8"))
    assert found["failed"] == []
    (never,) = (one for one in found["left_out"] if one.startswith("block_size 16 -> 128: "))
    assert "less than one block" in never
    simulate = job._simulate

    def failing(one: job.Job) -> job.Record:
        if one.workload.engine.preemption == "swap":
            raise ZeroDivisionError("division by zero")
        return simulate(one)

    monkeypatch.setattr(job, "_simulate", failing)
    capsys.readouterr()
    assert main(line) == FAILED
    assert capsys.readouterr().err == "1 change failed: x/summary.json says why, under failed\n"
    found = json.loads(Path("x/summary.json").read_text(encoding="utf-8"))
    told = {"where": "preemption recompute -> swap", "why": "ZeroDivisionError: division by zero"}
    assert found["failed"] == [told]


@pytest.fixture(scope="module")
def short_of_memory(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Advise on a workload that memory limits; the answer as JSON."""
    folder = tmp_path_factory.mktemp("short-of-memory")
    (folder / "memory.yaml").write_text(MEMORY, encoding="utf-8")
    line = ["advise", str(folder / "memory.yaml"), "--repeat", "2", "--budget", "20", "--quiet", "--out"]
    assert main([*line, str(folder / "x")]) == 0
    return (folder / "x/summary.json").read_text(encoding="utf-8")


def test_a_setting_that_holds_the_slo_is_named_even_if_it_may_be_chance(short_of_memory: str) -> None:
    found = json.loads(short_of_memory)
    nothing = {**found["before"], "change": "", "knobs": [], "meets": False, "confirmed": None}
    changes = [{**one, "meets": place < 2} for place, one in enumerate(found["changes"])]
    told = {**found, "before": nothing, "best": nothing, "changes": changes}
    advice = next(one.text for one in in_words(told) if one.tone == "advice")
    for one in found["changes"][:2]:
        head, _, after = one["change"].rpartition(" -> ")
        assert head in advice
        assert after in advice
    assert "anything else that was tried" not in advice
    assert advice.endswith("though that may be chance; a larger --repeat would tell.")
    never = {**told, "changes": [{**one, "meets": False} for one in changes]}
    assert "with this and with everything else that was tried" in next(
        one.text for one in in_words(never) if one.tone == "advice"
    )


def test_what_is_said_of_everything_is_true_of_everything(short_of_memory: str) -> None:
    found = json.loads(short_of_memory)
    assert not any(one["kept_up"] for one in found["changes"])

    def said(told: dict[str, Any]) -> str:
        return next(one.text for one in in_words(told) if one.tone == "advice")

    assert "fewer requests leave than arrive, or the run is too short to tell, with this and with" in said(found)
    found["changes"][-1]["kept_up"] = True
    assert "fewer requests leave" not in said(found)
    assert "is not met, neither with this nor with anything else that was tried." in said(found)


def test_a_choice_is_measured_again_whatever_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """As the docstring says: the best of many settings looks better than it is."""
    monkeypatch.chdir(tmp_path)
    Path("memory.yaml").write_text(MEMORY, encoding="utf-8")
    for budget in ("14", "21", "26"):
        line = ["advise", "memory.yaml", "--repeat", "2", "--budget", budget, "--quiet", "--out", "x", "--json"]
        assert main([*line, "--resume"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["simulations"] <= int(budget)
        assert found["best"]["knobs"][0] == "kv_dtype"
        assert found["best"]["confirmed"]["tells"] == "better"


def test_more_memory_may_be_what_serves_any_request_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Then there is no latency to compare with."""
    monkeypatch.chdir(tmp_path)
    text = MEMORY.replace("0.0001", "0.0000238").replace("ttft_s: 0.02", "ttft_s: 20").replace("120", "20")
    Path("memory.yaml").write_text(text, encoding="utf-8")
    assert main(["advise", "memory.yaml", "--repeat", "1", "--quiet", "--out", "x"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "No request is served: " in shown
    assert "KV memory 2.38e-05 -> 2.975e-05 GiB gains most. Compared with the file as it is: +100 " in shown


def test_a_change_that_cannot_be_costs_no_simulation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("memory.yaml").write_text(MEMORY.replace("0.0001", "0.000028"), encoding="utf-8")  # less than 128 slots
    assert main(["advise", "memory.yaml", "--repeat", "1", "--quiet", "--out", "x", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one.partition(": ")[0] for one in found["left_out"]][-1] == "block_size 16 -> 128"
    assert found["simulations"] == len(list(Path("x/cells").iterdir()))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget", "3"], "--budget 3: give at least 12 simulations"),
        (["--allocator", "pagd"], "no allocator has the label or kind pagd (did you mean paged?); there are: paged"),
        (
            [
                "--allocator",
                "paged",
                "--set",
                "allocators=[{kind: paged, block_size: 4}, {kind: paged, block_size: 8}]",
            ],
            "--allocator paged: 2 are of that kind; give the label of one: paged-4; paged-8",
        ),
        (["--slo", "tfft_s=1"], "unknown figure"),
        (["--set", "model.tensor_parallel=3"], "cannot be divided over tensor_parallel 3"),
    ],
)
def test_a_question_that_makes_no_sense_is_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("memory.yaml").write_text(MEMORY, encoding="utf-8")
    assert main(["advise", "memory.yaml", "--quiet", *words]) == FAULT
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not Path("runs").exists()  # or what is there is lost


def test_what_breaks_of_the_slo_is_told_as_capacity_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("memory.yaml").write_text(MEMORY, encoding="utf-8")
    line = ["advise", "memory.yaml", "--set", "slo={ttft_s: 0.001, tpot_s: 0.0001}", "--repeat", "2", "--budget", "20"]
    assert main([*line, "--quiet", "--out", "x"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    found = json.loads(Path("x/summary.json").read_text(encoding="utf-8"))
    assert all(set(one["missed"]) == {"unfinished", "ttft_s", "tpot_s"} for one in found["before"]["replications"])
    said = broken(found["before"]["replications"])
    assert said.startswith("goodput=0.9 (t")
    assert f"goodput=0.9 (90 % of requests within the SLO) is not met. What breaks: {said}." in shown
    page = Path("x/report.html").read_text(encoding="utf-8")
    assert f"What breaks: {said}." in page
    assert all(OVER in place for place in (shown, page))
    del found["before"]["replications"]  # as an earlier version wrote it
    assert "What breaks" not in in_words({**found, "best": {**found["before"], "change": ""}})[0].text


@pytest.mark.parametrize(
    ("slo", "kept"),
    [
        (["queue_s.p99=0.5"], {"queue_s": 0.5}),
        (["ttft_s.p99=2", "ttft_s.p50=1", "tpot_s=0.1"], {"ttft_s": 2.0, "tpot_s": 0.1}),
        (["ttft_s.p99=2", "goodput=0.5"], {"ttft_s": 3.0}),
    ],
)
def test_a_request_is_within_the_slo_by_the_limits_that_are_asked_for(slo: list[str], kept: dict[str, float]) -> None:
    """Those of the file where goodput is, which is of its limits."""
    base = Base("quickstart", ["slo={ttft_s: 3}", "requests.count=20"])
    aims = objectives(slo, base.workload)
    nowhere: Any = None  # nothing is run, so nothing is stored
    ask = Adviser(base, 0, aims, JobRunner(nowhere, Here()), Source(different=None, shared=False), 2, 20)
    assert ask.workload(()).slo.model_dump(exclude_none=True) == kept
