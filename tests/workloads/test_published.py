"""What a workload reproduces: published figures, variants, and the search for a sustained rate, as a file says them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sim.planner.grid import Base
from workloads.errors import WorkloadError
from workloads.loader import load
from workloads.variants import vary

BASE = """\
name: base
model: tiny-llama
device: h100-80gb
requests: {count: 10, arrivals: {kind: poisson, rate: 1}, lengths: {kind: fixed, prompt: 4, output: 4}}
allocators: [{kind: paged, label: ours}, {kind: preallocated}]
"""


def file(tmp_path: Path, more: str) -> Path:
    path = tmp_path / "f.yaml"
    path.write_text(BASE + more)
    return path


def test_a_variant_is_the_file_with_its_changes(tmp_path: Path) -> None:
    workload = load(
        file(
            tmp_path,
            """\
variants:
  - label: two
    set: {requests.samples: 2, allocators.0.block_size: 8, requests.lengths: {kind: fixed, prompt: 9, output: 1}}
    expect: {ours: {batch_size: {value: 2, over: preallocated}}}
""",
        )
    )
    changed = vary(workload, workload.variants[0])
    assert changed.name == "base, two"
    assert changed.variants == ()
    assert changed.requests.samples.value == 2  # type: ignore[union-attr]  # it is no mix
    assert changed.allocators[0].options == {"block_size": 8}
    assert changed.expect["ours"]["batch_size"].over == "preallocated"
    assert load(file(tmp_path, "")).model_copy(update={"name": "x"}) == vary(
        workload, workload.variants[0].model_copy(update={"set": {}, "expect": {}})
    ).model_copy(update={"name": "x"})


@pytest.mark.parametrize(
    "change",
    [
        "requests.arrivals.kind: foo",
        "requests.arrivals: {kind: foo}",
        "requests.arrivals: {}",
        "requests.arrivals: {kind: poisson, rate: true}",
        "requests.lengths.kind: sharegpt",
        "requests.duration_s: 4",
        "requests.trace: none.csv",
        "requests.session: {kind: turns, turns: 3, think_s: null}",
        "requests.sample: 4",
        "allocators.ours.block_size: 1.5",
        "allocators.ours.blok_size: 4",
        "allocators: []",
        "model: null",
        "device: {}",
        "engine.scheduler: [a, null]",
        "sustained: {normalized_latency_s: .inf}",
    ],
)
def test_a_variant_is_at_fault_in_the_words_of_the_file_itself(change: str, tmp_path: Path) -> None:
    """Only the place differs: there it is the setting's."""
    with pytest.raises(WorkloadError) as alone:
        load(file(tmp_path, ""), [change.replace(": ", "=", 1)])
    with pytest.raises(WorkloadError) as varied:
        load(file(tmp_path, f"variants:\n  - label: a\n    set:\n      {change}\n"))
    place = re.compile(rf"^{re.escape(str(tmp_path))}/f\.yaml:(\d+):\d+")
    lines = [place.sub("", line).removeprefix(f"--set {change.replace(': ', '=', 1)}") for line in alone.value.lines]
    told = [place.sub("", line).removeprefix(": variants: a") for line in varied.value.lines]
    assert sorted(told) == sorted(lines)
    assert {match[1] for line in varied.value.lines if (match := place.match(line))} <= {"7", "9"}


def test_a_variant_changes_what_the_file_says_and_no_defaults(tmp_path: Path) -> None:
    change = "requests.lengths: {kind: sharegpt}, requests.lengths.kind: fixed"
    more = "requests.lengths.prompt: 1, requests.lengths.output: 2"
    workload = load(file(tmp_path, f"variants: [{{label: a, set: {{{change}, {more}}}}}]"))
    assert vary(workload, workload.variants[0]).resolved()["requests"]["lengths"]["kind"] == "fixed"


def test_files_that_variants_name_are_beside_that_of_the_workload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sub/mine.csv", "sub/other.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("arrival_s,prompt_tokens,output_tokens\n0,1,1\n")
    (tmp_path / "sub" / "f.yaml").write_text(
        f"{BASE}variants:\n  - {{label: a, set: {{seed: 1}}}}\n  - {{label: b, set: {{requests.trace: other.csv}}}}\n"
    )
    monkeypatch.chdir(tmp_path)
    workload = load("sub/f.yaml", ["requests={trace: mine.csv}"])
    varied = [vary(workload, variant, Path("sub")).resolved() for variant in workload.variants]
    traces = [one["requests"]["trace"] for one in varied]
    assert traces == ["sub/mine.csv", "sub/other.csv"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "variants: [{label: a, set: {requests.sample: 2}}]",
            r"f\.yaml:6:29: variants: a: requests\.sample: unknown key",
        ),
        ("variants: [{label: a, set: {seed: -1}}]", r"variants: a: seed: must be at least 0"),
        ("variants: [{label: a, set: {seed.x: 1}}]", r"variants: a: seed: must be a whole number, got {x: 1}"),
        (
            "seed: 3\nvariants: [{label: a, set: {seed.x: 1}}]",
            r"f\.yaml:7:29: variants: a: seed\.x: there is no seed\.x: it would be inside 3",
        ),
        ("expect: {ours: {batch_size: {}}}", "give either value, or low or high or both"),
        ("expect: {ours: {batch_size: {value: 1, low: 1}}}", "give either value, or low or high or both"),
        ("expect: {ours: {batch_size: {low: 3, high: 2}}}", "low is 3 and above high, 2"),
        (
            "variants: [{label: a, set: {seed: 1}}]\nexpect: {ours: {batch_size: {value: 1}}}",
            r"^\S+f\.yaml:7:9: expect: a file with variants is not run as it is; give each variant its own",
        ),
        ("sustained: {normalized_latency_s: 0}", "must be greater than 0"),
    ],
)
def test_faults_are_told_where_they_are(more: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=message):
        load(file(tmp_path, more + "\n"))


def test_a_search_needs_arrivals_with_a_rate(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(
        BASE.replace("{kind: poisson, rate: 1}", "{kind: batch}") + "sustained: {normalized_latency_s: 1}\n"
    )
    with pytest.raises(WorkloadError, match=r"^\S+f\.yaml:6:12: sustained: needs arrivals with a rate to vary"):
        load(path)
    setting = "sustained={normalized_latency_s: 2}"
    with pytest.raises(WorkloadError, match=f"^--set {setting}: sustained: needs arrivals with a rate to vary"):
        load(path, [setting])


def test_an_option_that_is_set_to_null_stays_so(tmp_path: Path) -> None:
    """Left out, the model's window takes its place; that is another workload, in a manifest and for --resume."""
    text = BASE.replace("label: ours", "label: ours, sliding_window: null")
    (tmp_path / "f.yaml").write_text(f"{text}variants: [{{label: a}}]\n")
    workload = load(tmp_path / "f.yaml")
    assert workload.resolved()["allocators"][0] == {"kind": "paged", "label": "ours", "sliding_window": None}
    assert vary(workload, workload.variants[0]).allocators[0].options == {"sliding_window": None}
    without = load(tmp_path / "f.yaml", ["allocators=[{kind: paged, label: ours}]"])
    base = Base(str(tmp_path / "f.yaml"))
    keys = [base.job(one, 0, 0).key for one in (workload, without)]
    assert len(set(keys)) == 2
