"""What a workload reproduces: published figures, variants, and the search for a sustained rate, as a file says them."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    assert changed.requests.samples.value == 2  # type: ignore[union-attr]
    assert changed.allocators[0].options == {"block_size": 8}
    assert changed.expect["ours"]["batch_size"].over == "preallocated"
    assert load(file(tmp_path, "")).model_copy(update={"name": "x"}) == vary(
        workload, workload.variants[0].model_copy(update={"set": {}, "expect": {}})
    ).model_copy(update={"name": "x"})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "variants: [{label: a, set: {requests.sample: 2}}]",
            r"f\.yaml:6:12: variants: a: requests\.sample: unknown key",
        ),
        ("variants: [{label: a, set: {seed: -1}}]", r"variants: a: seed: must be at least 0"),
        ("variants: [{label: a, set: {seed.x: 1}}]", r"variants: a: seed\.x: there is no seed\.x"),
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
