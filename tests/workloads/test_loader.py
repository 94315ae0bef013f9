"""A workload file is read whole, and every fault in it is named by line and column."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.workloads.conftest import Small
from workloads.errors import WorkloadError
from workloads.loader import load, presets
from workloads.source import Generated
from workloads.trace import Trace

HEAD = """\
name: bad
model: llama-3.1-8b
device: h100-80gb
"""
REQUESTS = "requests: {count: 9, arrivals: {kind: batch}, lengths: {kind: fixed, prompt: 1, output: 1}}\n"
BATCH = "count: 1, arrivals: {kind: batch}"
FEW = "{kind: quantiles, values: [3]}"
ALLOCATORS = "allocators: [{kind: preallocated}]\n"


def faults(tmp_path: Path, text: str | bytes, *settings: str) -> list[str]:
    path = tmp_path / "w.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(WorkloadError) as error:
        load(path, settings)
    return [line.replace(f"{tmp_path}/", "") for line in error.value.lines]


def test_a_workload_is_written_in_a_process_that_has_read_none() -> None:
    """There, no kind has been named yet, so none is prepared."""
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).model_dump_json())"
    workload = load("chat")
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(workload), capture_output=True, check=True)
    assert done.stdout.decode().strip() == workload.model_dump_json()


def test_the_smallest_file_has_defaults(small: Small) -> None:
    workload = small()
    assert workload.model.name == "llama-3.1-8b"
    assert workload.device.name == "h100-80gb"
    assert workload.engine.max_num_seqs == 256
    assert workload.repeat == 1
    assert isinstance(workload.requests, Generated)
    assert workload.allocators[0].options == {}


def test_what_is_loaded_cannot_be_changed(small: Small) -> None:
    with pytest.raises(ValueError, match="frozen"):
        small().seed = 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("engine: {max_num_seq: 3}", "w.yaml:6:10: engine.max_num_seq: unknown key (did you mean max_num_seqs?)"),
        (f"variants: [{{label: {'x' * 81}}}]", "w.yaml:6:20: variants.0.label: must have at most 80 letters, got 81"),
        ("engine: {max_num_seqs: 0}", "w.yaml:6:24: engine.max_num_seqs: must be at least 1, got 0"),
        ("engine: {max_num_seqs: 1.5}", "w.yaml:6:24: engine.max_num_seqs: must be a whole number, got 1.5"),
        ('engine: {max_num_seqs: "3"}', 'w.yaml:6:24: engine.max_num_seqs: must be a whole number, got "3"'),
        ("repeat: true", "w.yaml:6:9: repeat: must be a whole number, got true"),
        ("seed: .nan", "w.yaml:6:7: seed: must be a whole number, got .nan"),
        ("horizon_s: .inf", "w.yaml:6:12: horizon_s: must be a finite number, got .inf"),
        (r'horizon_s: "\ud800"', r'w.yaml:6:12: horizon_s: must be a number, got "\ud800"'),
        (
            r'variants: [{label: "a\ud800"}]',
            r'w.yaml:6:20: variants.0.label: must be text that UTF-8 can hold, got "a\ud800"',
        ),
        (
            "sustained: 3",
            "w.yaml:6:12: sustained: must be a mapping, got 3; keys: normalized_latency_s, duration_s, from_rate, tolerance",  # noqa: E501  a message is one line
        ),
        ("costs: 3", "w.yaml:6:8: costs: must be a mapping, got 3"),  # of any coefficients
        ("slo: {ttft_s: -1}", "w.yaml:6:15: slo.ttft_s: must be greater than 0, got -1"),
        (
            "engine: {scheduler: vllm-v2}",
            "w.yaml:6:21: engine.scheduler: must be one of static, orca, vllm-v0, vllm-v1, got vllm-v2 (did you mean vllm-v1?)",  # noqa: E501  a message is one line
        ),
        ("name: again", "w.yaml:6:1: name: duplicate key (first on line 1)"),
        (
            "costs: {memory_efficiency: -1}",
            "w.yaml:6:28: costs.memory_efficiency: must be at least 0, got -1",
        ),
        ("expect: {paged: {batch: x}}", "w.yaml:6:25: expect.paged.batch: must be a number, got x"),
        (
            "slo: !!python/object:os.system {}",
            "w.yaml:6:6: the tag tag:yaml.org,2002:python/object:os.system has no place here",
        ),
        ("slo: &a [*a]", "w.yaml:6:6: an alias must not refer to what holds it"),
        ("slo: {", "w.yaml:7:1: not valid YAML: expected the node content, but found '<stream end>'"),
        ("? [1, 2]\n: 3", "w.yaml:6:3: a key must be a word"),
        (
            "wat: 3",
            "w.yaml:6:1: wat: unknown key; known: name, seed, model, device, engine, requests, allocators, slo, repeat, horizon_s, telemetry, costs, expect, sustained, variants, remarks",  # noqa: E501  a message is one line
        ),
        ("arrivals: 3", "w.yaml:6:1: arrivals: unknown key (did you mean requests.arrivals?)"),
        ("max_num_seqs: 3", "w.yaml:6:1: max_num_seqs: unknown key (did you mean engine.max_num_seqs?)"),
        (
            "slo: {chunked_prefill: true}",
            "w.yaml:6:7: slo.chunked_prefill: unknown key (did you mean engine.chunked_prefill?)",
        ),
    ],
)
def test_a_fault_is_one_line_with_its_place(tmp_path: Path, line: str, message: str) -> None:
    assert faults(tmp_path, f"{HEAD}{REQUESTS}{ALLOCATORS}{line}\n") == [message]


def test_who_names_a_folder_is_told_what_is_in_it(tmp_path: Path) -> None:
    traces = tmp_path / "traces"
    (traces / "older").mkdir(parents=True)
    where = "w.yaml:4:19: requests.trace: traces is a folder, with "
    text = f"{HEAD}requests: {{trace: traces}}\n{ALLOCATORS}"
    assert faults(tmp_path, text) == [f"{where}no files in it: name one file"]
    for name in "edcba":
        (traces / f"{name}.csv").touch()
    assert faults(tmp_path, text) == [f"{where}a.csv, b.csv, c.csv, d.csv, ... in it: name one file"]


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ("{trace: w.yaml, rate_scale: -1}", "w.yaml:4:39: requests.rate_scale: must be greater than 0, got -1"),
        ("{trace: w.yaml, rate_scal: 1}", "w.yaml:4:27: requests.rate_scal: unknown key (did you mean rate_scale?)"),
        (
            f"{{trace: w.yaml, rate_scale: 2, {BATCH}}}",
            "w.yaml:4:11: requests: rate_scale is of recorded times, and arrivals replace them",
        ),
        ("{trace: nowhere.csv}", "w.yaml:4:19: requests.trace: no such file: nowhere.csv"),
        ("{trace: w.yaml, lengths: {kind: sharegpt}}", "w.yaml:4:27: requests.lengths: unknown key beside trace"),
        (f"{{{BATCH}, lengths: {{kind: joint, prompt: [], output: [[1]]}}}}", "lengths.prompt: must not be empty"),
        (
            f"{{{BATCH}, lengths: {{kind: marginals, prompt: {FEW}, output: {{kind: fixed, value: 1}}}}}}",
            "requests.lengths.prompt.values: must have at least 2 entries, got 1",
        ),
        ("{lengths: {kind: fixed, prompt: 1, output: 1}, count: 1}", "w.yaml:4:11: requests.arrivals: missing"),
        (
            "{count: 1, arrivals: {kind: poisson}, lengths: {kind: sharegpt}}",
            "w.yaml:4:32: requests.arrivals.rate: missing",
        ),
        ("{count: 1, arrivals: {rate: 3}, lengths: {kind: sharegpt}}", "w.yaml:4:32: requests.arrivals.kind: missing"),
        (
            "{count: 1, arrivals: poisson, lengths: {kind: sharegpt}}",
            "must be a mapping, got poisson; write {kind: poisson, rate: ...}",
        ),
        ("{count: 1, arrivals: 5, lengths: {kind: sharegpt}}", "must be a mapping, got 5; kinds: poisson, gamma, ren"),
        (
            f"{{{BATCH}, lengths: {{kind: gamma, prompt: {{mean: 9, cv: 1}}, output: 100}}}}",
            "output: must be a mapping, got 100; for a fixed length write {kind: marginals, prompt: {kind: gamma, ...",
        ),
        (
            f"{{{BATCH}, lengths: {{kind: lognormal, prompt: [], output: {{mean: 9, sigma: 1}}}}}}",
            "requests.lengths.prompt: must be a mapping, got []; keys: mean, min, max, p90, sigma",
        ),
        (
            f"{{{BATCH}, lengths: {{kind: sharegpt}}, session: {{kind: turns, turns: 3, think_s: a}}}}",
            "w.yaml:4:116: requests.session.think_s: must be a number or a mapping, got a; kinds: fixed, uniform, ",
        ),
        (
            "{count: 1, arrivals: {kind: poison, rate: 3}, lengths: {kind: sharegpt}}",
            "w.yaml:4:39: requests.arrivals.kind: unknown kind poison (did you mean poisson?); known: poisson, gamma, ",
        ),
        (
            "{arrivals: {kind: poisson, rate: 3}, lengths: {kind: sharegpt}}",
            "w.yaml:4:11: requests: give either count or duration_s",
        ),
        (
            "{duration_s: 3, arrivals: {kind: batch}, lengths: {kind: sharegpt}}",
            "w.yaml:4:11: requests: batch arrivals have no end of their own: give count, not duration_s",
        ),
        (
            f"{{{BATCH}, lengths: {{kind: lognormal, prompt: {{mean: 10, p90: 99}}, output: {{mean: 9, p90: 9.5}}}}}}",
            "requests.lengths.prompt: a lognormal of mean 10 has its p90 above the mean and at most at 22.7",
        ),
        (
            f"{{{BATCH}, lengths: {{kind: uniform, prompt: {{min: 9, max: 3}}, output: {{min: 1, max: 2}}}}}}",
            "requests.lengths.prompt: max 3 is less than min 9",
        ),
    ],
)
def test_faults_of_requests(tmp_path: Path, requests: str, message: str) -> None:
    lines = faults(tmp_path, f"{HEAD}requests: {requests}\n{ALLOCATORS}")
    assert message in lines[0]
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{kind: slob}", "w.yaml:5:21: allocators.0.kind: unknown allocator slob; known: "),
        ("{}", "w.yaml:5:14: allocators.0.kind: missing"),
        ("3", "w.yaml:5:14: allocators.0: must be text, got 3"),
        ("[]", "w.yaml:5:14: allocators.0: must be a kind or a mapping, got []"),
        ("payged", "w.yaml:5:14: allocators.0: unknown allocator payged (did you mean paged?); known: "),
        ("{kind: contiguous, reserve: pow}", "w.yaml:5:42: allocators.0.reserve: must be one of max, pow2, oracle"),
        (
            "{kind: contiguous, placment: buddy}",
            "w.yaml:5:33: allocators.0.placment: unknown key (did you mean placement?)",
        ),
        ("{kind: growing, xyz: 1}", "allocators.0.xyz: unknown key; known: "),
        ("{kind: contiguous, shedular: orca}", "allocators.0.shedular: unknown key (did you mean scheduler?)"),
        ("{kind: preallocated, scheduler: fifo}", "allocators.0.scheduler: must be one of static, orca, "),
        ("{kind: preallocated, label: a}, {kind: preallocated, label: a}", "allocators: two allocators are labelled a"),
    ],
)
def test_faults_of_allocators(tmp_path: Path, entry: str, message: str) -> None:
    lines = faults(tmp_path, f"{HEAD}{REQUESTS}allocators: [{entry}]\n")
    assert message in lines[0]
    assert len(lines) == 1


def test_a_bare_word_is_an_allocator_with_its_defaults(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(f"{HEAD}{REQUESTS}allocators: [paged, {{kind: paged, block_size: 32}}, virtual]\n")
    assert [(spec.kind, spec.options) for spec in load(path).allocators] == [
        ("paged", {}),
        ("paged", {"block_size": 32}),
        ("virtual", {}),
    ]


def test_all_faults_are_named_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    lines = faults(tmp_path, "nam: x\nseed: -1\nmodel: 7\nengine: {max_num_seqs: no}\nallocators: []\n")
    assert [line.split(": ")[1] for line in lines] == [
        "name", "device", "requests", "nam", "seed", "model", "engine.max_num_seqs", "allocators",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "w.yaml: a workload is a mapping of keys, such as name and requests"),
        (b"- 1\n", "w.yaml:1:1: a workload is a mapping of keys, such as name and requests"),
        (b"name: caf\xe9\n", "w.yaml:1:10: not UTF-8 text: byte 0xe9"),
        (b"name: \x00\n", "w.yaml: not valid YAML"),
        (b"a: " + b"{a: " * 5000, "w.yaml: not a workload: nested too deeply"),
        (b"#" * (256 << 10) + b"#", "w.yaml: larger than 256 KiB: not a workload file"),
        (b"name: a\n---\nname: b\n", "w.yaml:2:1: not valid YAML: expected a single document in the stream, but found"),
    ],
)
def test_what_is_no_workload_at_all(tmp_path: Path, content: bytes, message: str) -> None:
    lines = faults(tmp_path, content)
    assert lines[0].startswith(message)
    assert len(lines) == 1


def test_a_folder_of_results_does_not_hide_the_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("batch", "results"):
        Path(name).mkdir()
    assert load("batch").name == "batch"
    with pytest.raises(WorkloadError, match="results: cannot be read: Is a directory"):
        load("results")


def test_a_missing_file_or_preset(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"quickstat: no such file or preset \(did you mean quickstart\?\)"):
        load("quickstat")
    with pytest.raises(WorkloadError, match=r"\(did you mean sosp23_\w+ or sosp23_\w+"):
        load("sosp23")
    with pytest.raises(WorkloadError, match="no such file or preset; `list presets` shows them"):
        load("xyzzy")
    with pytest.raises(WorkloadError, match=r"none\.yaml: no such file$"):
        load(tmp_path / "none.yaml")
    with pytest.raises(WorkloadError, match="cannot be read: Is a directory"):
        load(tmp_path)


class TestPaths:
    def test_start_from_the_file_and_fall_back_to_the_shipped_data(self, tmp_path: Path) -> None:
        (tmp_path / "mine.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,1,1\n")
        path = tmp_path / "w.yaml"
        path.write_text(f"{HEAD}requests: {{trace: mine.csv}}\n{ALLOCATORS}")
        workload = load(path)
        assert isinstance(workload.requests, Trace)
        assert workload.requests.trace == str(tmp_path / "mine.csv")
        shipped = load(path, ["requests.trace=sharegpt_first_turn_vllm_filter.csv.gz"])
        assert Path(shipped.requests.trace).is_file()

    def test_of_a_model(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("{}")
        path = tmp_path / "w.yaml"
        path.write_text(f"{HEAD}{REQUESTS}{ALLOCATORS}")
        assert load(path, ["model=config.json"]).model.name == str(tmp_path / "config.json")
        assert load(path, ["model=./elsewhere/config.json"]).model.name == "./elsewhere/config.json"


@pytest.mark.parametrize("name", presets())
def test_presets_load_and_resolve_to_themselves(name: str, tmp_path: Path) -> None:
    workload = load(name)
    assert workload.name.replace("_", "-") == name.replace("_", "-")
    copy = tmp_path / "copy.yaml"
    YAML(typ="safe", pure=True).dump(workload.resolved(), copy)
    assert load(copy) == workload
