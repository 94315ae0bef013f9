"""`check`: how a file is understood, what fits, and what is wrong with it, before anything runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from analysis.reading import open_directory
from sim.cli import main
from sim.cli.app import FAULT
from sim.models.shipped import read_config

Capture = pytest.CaptureFixture[str]


def test_check_shows_file_pool_and_costs_and_runs_nothing(workload: Path, capsys: Capture) -> None:
    assert main(["check", str(workload)]) == 0
    shown = capsys.readouterr().out
    for part in ("max_num_seqs: 8", "gpu_memory_utilization: 0.9", "131", "2,097", "memory_efficiency"):
        assert part in shown
    assert [path.name for path in Path().iterdir()] == ["small.yaml"]


def test_a_length_that_the_model_is_not_made_for_is_told(workload: Path, capsys: Capture) -> None:
    longer = ["--set", "engine.max_model_len=600", "--set", "device.kv_memory_gib=0.01"]
    note = "max_model_len 600 is more than the 512 tokens that tiny-llama is made for"
    for command in ("check", "run"):
        assert main([command, str(workload), *longer]) == 0
        assert note in " ".join(capsys.readouterr().out.split())
    assert main(["check", str(workload), *longer, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == [note]
    assert main(["check", str(workload), "--set", "engine.max_model_len=512", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []


def test_a_scheduler_that_has_no_chunks_keeps_to_its_budget_and_says_so(workload: Path, capsys: Capture) -> None:
    """Or `vllm-v0` would compute prompts of any length in one step."""
    lengths = "{kind: uniform, prompt: {min: 1, max: 128}, output: {min: 1, max: 8}}"
    engine = "{scheduler: vllm-v0, max_num_batched_tokens: 64, max_model_len: 256, chunked_prefill: true}"
    asked = ["--set", f"requests.lengths={lengths}", "--set", f"engine={engine}"]
    assert main(["run", str(workload), *asked, "--out", "one", "--quiet"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "engine.chunked_prefill is true, but prompts are computed whole by vllm-v0" in told
    for run, entry in zip((directory := open_directory(Path("one"))).runs, directory.summary(), strict=True):
        assert 0 < run.steps(["prefill_tokens"])["prefill_tokens"].max() <= 64
        assert "longer than a step's token budget" in entry["requests"]["refusals"]


def test_room_that_is_set_aside_for_want_of_a_limit_is_told(workload: Path, capsys: Capture) -> None:
    kinds = "allocators=[preallocated, contiguous, {kind: contiguous, reserve: pow2}, paged, virtual, growing, ideal]"
    unset = ["--set", "engine.max_model_len=null", "--set", kinds, "--set", "device.kv_memory_gib=0.01"]
    assert main(["check", str(workload), *unset, "--json"]) == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert "every sequence of preallocated and contiguous gets room for 512 tokens, all that tiny-llama" in note
    assert main(["check", str(workload), *unset, "--set", "engine.max_model_len=512", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []


def test_a_length_need_not_be_given_to_allocators_whose_pages_have_many_blocks(workload: Path, capsys: Capture) -> None:
    kinds = "allocators=[ideal, {kind: hybrid, paging: common-multiple}]"
    other = ["model=jamba-v0.1", "device={name: h200, memory_gib: 200}", "engine={}", kinds]
    assert main(["check", str(workload), *(word for each in other for word in ("--set", each)), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []


def test_check_tells_what_a_calibration_was_measured_on(workload: Path, capsys: Capture) -> None:
    named = ["--set", "costs.calibration=h100-80gb-llama-3.1-8b", "--set", "device.kv_memory_gib=1"]
    assert main(["check", str(workload), *named, "--set", "model=llama-3.1-8b"]) == 0
    assert "looked up among 364" in " ".join(capsys.readouterr().out.split())
    assert main(["check", str(workload), *named, "--set", "model=llama-3.1-8b", "--set", "device.name=h200"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Measured with llama-3.1-8b on NVIDIA H100 80GB HBM3, used for llama-3.1-8b on h200" in told


def test_check_counts_the_pool_as_a_run_does(workload: Path, run_directory: Path, capsys: Capture) -> None:
    assert main(["check", str(workload), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    manifest = json.loads((run_directory / "manifest.json").read_text(encoding="utf-8"))
    assert [run["pool"]["num_blocks"] for run in document["runs"]] == [run["num_blocks"] for run in manifest["runs"]]
    assert document["workload"] == manifest["workload"]
    assert document["requests"]["count"] == 40
    assert document["requests"]["prompt_tokens_mean"] == 24


def test_check_asks_each_allocator_how_many_of_the_longest_sequences_it_holds(workload: Path, capsys: Capture) -> None:
    """Of 20 GiB: what lies in buddies of 4,096 slots, in tensors of their own, or behind a window is told apart."""
    device = "device={name: h100-80gb, kv_memory_gib: 20}"
    kinds = "allocators=[{kind: no-cache}, {kind: growing}, {kind: contiguous}, {kind: paged}, {kind: hybrid}]"
    settings = ["--set", device, "--set", kinds, "--set", "engine.max_model_len=3000"]
    found = {}
    for model in ("llama-3.1-8b", "gemma-3-12b"):
        assert main(["check", str(workload), *settings, "--set", f"model={model}", "--json"]) == 0
        runs = json.loads(capsys.readouterr().out)["runs"]
        found[model] = {run["kind"]: run["longest_at_once"] for run in runs}
    assert found["llama-3.1-8b"].pop("growing") == pytest.approx(163_840 / 3000 / 1.078, abs=2)
    assert found["llama-3.1-8b"] == {"no-cache": None, "contiguous": 163_840 // 4096, "paged": 54, "hybrid": 54}
    each = -(-3000 // 16) + 5 * (1024 // 16 + 1)  # blocks: one group keeps all, five no more than a window
    assert found["gemma-3-12b"]["hybrid"] == pytest.approx(20 * 2**30 // (16 * 65_536) / each, abs=1)
    assert found["gemma-3-12b"]["paged"] == 20 * 2**30 // (16 * 393_216) // -(-3000 // 16)
    assert main(["check", str(workload), *settings, "--set", "model=llama-3.1-8b"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"no-cache .* any *\n", shown)
    assert re.search(r"contiguous .* 40 *\n", shown)


def test_check_counts_what_max_model_len_will_refuse_and_cut_as_a_run_does(workload: Path, capsys: Capture) -> None:
    lengths = "{kind: uniform, prompt: {min: 1, max: 300}, output: {min: 1, max: 99}}"
    settings = ["--set", f"requests.lengths={lengths}", "--quiet", "--out", "x"]
    assert main(["run", str(workload), *settings, "--json"]) == 0
    (served, _) = json.loads(capsys.readouterr().out)["runs"]
    assert main(["check", str(workload), *settings[:2], "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["requests"]
    refused, cut = told["refused_as_too_long"], told["cut_short"]
    assert (refused, cut) == (served["requests"]["refused"], served["requests"]["cut"])
    assert min(refused, cut) > 0
    assert main(["check", str(workload), *settings[:2]]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"too long {refused} of 40 are refused, because of max_model_len, 256 tokens" in shown
    assert f"too long {cut} of 40 have their output cut short" in shown


def test_check_counts_what_each_run_will_refuse(workload: Path, capsys: Capture) -> None:
    settings = [
        "requests.lengths={kind: uniform, prompt: {min: 1, max: 300}, output: {min: 1, max: 99}}",
        "requests.samples={kind: uniform, min: 1, max: 9}",
        "engine.max_num_batched_tokens=200",
        "engine.max_num_seqs=8",
        "device.kv_memory_gib=0.0001",
        "allocators=[paged, {kind: paged, scheduler: vllm-v0, label: old}, {kind: contiguous, reserve: max}]",
    ]
    line = [str(workload), *(word for setting in settings for word in ("--set", setting))]
    assert main(["run", *line, "--json", "--quiet", "--out", "x"]) == 0
    served = {run["allocator"]: run["requests"]["refusals"] for run in json.loads(capsys.readouterr().out)["runs"]}
    assert main(["check", *line, "--json"]) == 0
    told = {run["allocator"]: run["refused"] for run in json.loads(capsys.readouterr().out)["runs"]}
    assert told == served
    (reason,) = served["old"].keys() - served["paged"].keys()
    assert reason == "longer than a step's token budget"
    assert len({*served["old"], *served["contiguous"]}) == 4
    assert main(["check", *line]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"refused {served['old'][reason]} of 40 by old: {reason}" in shown


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model=lama", ": model: lama is neither shipped nor the path of a config.json"),
        ("model.kv_heads=7", ": model: tiny-llama: kv_heads 7 does not divide"),
        ("model=opt-175b", ": model: opt-175b does not fit on "),
        ("device.kv_memory_gib=100", ": device.kv_memory_gib: tiny-llama does not fit on "),
        ("device=h100", ": device: h100 is not known (did you mean h100-80gb?)"),
        ("costs.step=1", ": costs: unknown coefficient step"),
        (
            "allocators=[paged, {kind: virtual, preemption: swap}]",
            ": allocators.1.preemption: virtual cannot swap: what",
        ),
    ],
)
def test_what_shows_only_beyond_the_schema_has_its_place_too(
    workload: Path, command: str, setting: str, message: str, capsys: Capture
) -> None:
    assert main([command, str(workload), "--set", setting]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"--set {setting}{message}")
    assert error.count("\n") == 1


def test_an_unknown_model_is_told_by_line_and_column(workload: Path, capsys: Capture) -> None:
    lines = [line for line in workload.read_text().splitlines() if not line.startswith("model")]
    workload.write_text("\n".join([*lines, "model: lama"]))
    assert main(["check", str(workload)]) == 2
    assert capsys.readouterr().err.startswith(f"{workload}:{len(lines) + 1}:8: model: lama is neither shipped")


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model: lama", ":29: variants: b: model: lama is neither shipped"),
        ("device.kv_memory_gib: 100", ":44: variants: b: device.kv_memory_gib: tiny-llama does not fit on "),
        ("requests.samples: 40000", ":40: variants: b: requests.samples: a request asks for 40,000; at most 32,767"),
        ("requests: {trace: bad.csv}", ":5: variants: b: "),
    ],
)
def test_what_keeps_a_variant_from_running_has_its_place_too(
    workload: Path, command: str, change: str, message: str, capsys: Capture
) -> None:
    workload.with_name("bad.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,x,1\n", encoding="utf-8")
    lines = workload.read_text(encoding="utf-8").splitlines()
    variants = ["variants:", "  - {label: a}", f"  - {{label: b, set: {{{change}}}}}"]
    workload.write_text("\n".join([*lines, *variants]), encoding="utf-8")
    assert main([command, str(workload)]) == 2
    assert f"{workload}:{len(lines) + 3}{message}" in capsys.readouterr().err


def test_check_says_which_cost_the_workload_sets(workload: Path, capsys: Capture) -> None:
    assert main(["check", str(workload), "--set", "costs.step_overhead_s=0.25"]) == 0
    (line,) = (
        line
        for line in capsys.readouterr().out.splitlines()
        if "step_overhead_s" in line and "0.25" in line and "this" in line
    )
    assert "this" in line


@pytest.mark.parametrize(
    ("model", "length", "kinds", "told"),
    [
        ("gemma-3-12b", 3000, "paged, radix, preallocated, ideal", True),
        ("gemma-3-12b", 1024, "paged", False),  # no window passes anything
        ("gemma-3-12b", 3000, "paged, hybrid", False),
        ("gemma-3-12b", 3000, "preallocated", False),
        ("mistral-7b", 6000, "paged", False),  # all its layers have the same window
        ("llama-3.1-8b", 3000, "paged", False),
    ],
)
def test_windows_that_one_block_table_cannot_use_are_told(
    model: str, length: int, kinds: str, workload: Path, capsys: Capture, *, told: bool
) -> None:
    settings = [f"model={model}", "device={name: h100-80gb, kv_memory_gib: 20}", f"allocators=[{kinds}]"]
    settings += [f"engine.max_model_len={length}"]
    assert main(["check", str(workload), *(word for each in settings for word in ("--set", each)), "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    labels = "paged and radix: " if "radix" in kinds else "paged: "
    words = "all layers keep all tokens, although 40 of 48 read the last 1,024 only; the allocator hybrid keeps no more"
    assert notes == ([f"{labels}{words} than those, as vLLM does"] if told else [])


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_prefix_cache_in_which_nothing_is_ever_found_is_told(
    command: str, shared: bool, workload: Path, capsys: Capture
) -> None:
    caching = ["--set", "allocators.paged.prefix_cache=true"]
    alike = ["--set", "requests.shared=[{tokens: 8}]"] if shared else []
    for more in (caching + alike, alike):
        anew = ["--force"] if command == "run" else []
        assert main([command, str(workload), *more, *anew]) == 0
        told = " ".join(capsys.readouterr().out.split())
        said = "paged: prefix_cache is on, but nothing is ever found in it: no two prompts begin alike"
        assert (said in told) is (more == caching)


def test_a_tilde_is_the_home_wherever_the_workload_lies(
    workload: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(home := tmp_path / "home"))
    home.mkdir()
    (home / "config.json").write_text(json.dumps(read_config("tiny-llama")[1]), encoding="utf-8")
    (home / "mine.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,3,2\n", encoding="utf-8")
    (file := tmp_path / "elsewhere" / "workload.yaml").parent.mkdir()
    file.write_text(workload.read_text(encoding="utf-8"), encoding="utf-8")
    mine = ["--set", "model=~/config.json", "--set", "requests={trace: ~/mine.csv}"]
    assert main(["check", str(file), *mine, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["requests"]["count"] == 1
    assert found["model"]["name"] == str(home / "config.json")
    for setting in ("model=~nobody-at-all/config.json", "requests={trace: ~nobody-at-all/mine.csv}"):
        assert main(["check", str(file), "--set", setting]) == FAULT
        assert "~nobody-at-all" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["./config.json", "../sub", "own"])
def test_a_model_is_beside_the_workload_in_whatever_folder_the_command_is_given(
    name: str, workload: Path, capsys: Capture
) -> None:
    config = json.dumps(read_config("tiny-llama")[1])
    Path("sub/own").mkdir(parents=True)
    for folder in ("sub", "sub/own"):
        Path(folder, "config.json").write_text(config, encoding="utf-8")
    variants = "variants: [{label: a}, {label: b, set: {model.kv_dtype: auto}}]\n"
    Path("sub/w.yaml").write_text(workload.read_text(encoding="utf-8") + variants, encoding="utf-8")
    assert main(["check", "sub/w.yaml", "--set", f"model={name}", "--json"]) == 0
    found = Path(json.loads(capsys.readouterr().out)["model"]["name"])
    assert found.resolve() == Path("sub", name).resolve() / ("" if found.name in name else "config.json")


def test_a_part_without_requests_and_requests_that_wait_for_answers(workload: Path, capsys: Capture) -> None:
    lengths = "lengths: {kind: fixed, prompt: 9, output: 9}"
    rare = f"{{name: rare, duration_s: 0.5, arrivals: {{kind: poisson, rate: 0.1}}, {lengths}}}"
    users = f"{{name: users, count: 5, arrivals: {{kind: closed, users: 2}}, {lengths}}}"
    line = ["check", str(workload), "--set", f"requests={{mix: [{rare}, {users}]}}"]
    assert main(line) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "of part rare none arrives of part users 5, the last arriving at 0.4 s if answers take as long as" in shown
    assert main([*line, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["requests"]["parts"]["rare"]
    assert told == {"count": 0, "last_arrival_s": None, "prompt_tokens_mean": None, "output_tokens_mean": None}
