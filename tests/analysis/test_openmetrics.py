"""OpenMetrics of a run: what Prometheus reads of it is what the run's tables say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from analysis.export import export
from sim.runner import run as run_workload
from tests.analysis.synthetic import run_named, write_directory
from workloads.loader import load


@pytest.fixture(scope="module")
def metrics(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The final scrape and the history, as text."""
    scrape, history = export(toy, "prometheus", tmp_path_factory.mktemp("prometheus"))
    return scrape.read_text(), history.read_text()


@pytest.fixture(scope="module")
def families(metrics: tuple[str, str]) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(metrics[0])}


def scrapes(history: str) -> dict[float, dict[str, Any]]:
    """The history as one parsed scrape an instant: the client's parser drops repeated series of one text."""
    heads = [line for line in history.splitlines() if line.startswith("# ")]
    by_stamp: dict[str, list[str]] = {}
    for line in history.splitlines():
        if not line.startswith("#"):
            by_stamp.setdefault(line.rsplit(" ", 1)[1], []).append(line)
    parsed = {}
    for stamp, lines in by_stamp.items():
        text = []
        for head in heads[:-1]:
            text.append(head)
            name = head.split()[2]
            if head.startswith("# HELP"):
                wanted = (f"{name}{{", f"{name}_total{{", f"{name}_bucket{{", f"{name}_count{{", f"{name}_sum{{")
                text += [line for line in lines if line.startswith(wanted)]
        found = text_string_to_metric_families("\n".join([*text, "# EOF\n"]))
        parsed[float(stamp)] = {family.name: family for family in found}
    return parsed


def only(family: Any, name: str, **labels: str) -> float:
    """The one sample of the paged allocator with that name and those labels."""
    labels["allocator"] = "paged"
    (sample,) = [s for s in family.samples if s.name == name and labels.items() <= s.labels.items()]
    return float(sample.value)


def test_prometheus_ends_with_the_totals_of_the_run(families: dict[str, Any], toy: Path) -> None:
    run = run_named(toy, "paged")
    requests = run.requests()
    totals = {
        "vllm:num_preemptions": requests["preemptions"].sum(),
        "vllm:prompt_tokens": requests["prompt_tokens"].sum(),
        "vllm:generation_tokens": requests["generated_tokens"].sum(),
    }
    for name, total in totals.items():
        assert families[name].type == "counter"
        assert only(families[name], f"{name}_total") == total
    success = families["vllm:request_success"]
    assert only(success, "vllm:request_success_total", finished_reason="stop") == 80


def test_prometheus_histograms_agree_with_the_requests(families: dict[str, Any], toy: Path) -> None:
    requests = run_named(toy, "paged").requests()
    ttft = requests["first_token_s"] - requests["arrival_s"]
    name = "vllm:time_to_first_token_seconds"
    family = families[name]
    assert only(family, f"{name}_count") == 80
    assert only(family, f"{name}_sum") == pytest.approx(ttft.sum())
    assert only(family, f"{name}_bucket", le="1.0") == (ttft <= 1.0).sum()
    assert only(family, f"{name}_bucket", le="+Inf") == 80


def test_prometheus_tells_steps_and_where_prompt_tokens_came_from(tmp_path: Path) -> None:
    shared = ["requests.shared=[{tokens: 256}]", "requests.count=60", "allocators=[{kind: paged, prefix_cache: true}]"]
    directory = run_workload(load("quickstart", shared), tmp_path / "run")
    (run,) = directory.runs
    requests, steps = run.requests(), run.steps()
    cached, computed = requests["cached_tokens"], steps["prefill_tokens"] + steps["decode_tokens"]
    assert cached.sum() > 0
    text = export(directory.path, "prometheus", tmp_path)[0].read_text()
    found = {family.name: family for family in text_string_to_metric_families(text)}

    def value(name: str, suffix: str, **labels: str) -> float:
        (sample,) = [
            one for one in found[name].samples if one.name == name + suffix and labels.items() <= one.labels.items()
        ]
        return float(sample.value)

    source = "vllm:prompt_tokens_by_source"
    assert value(source, "_total", source="local_cache_hit") == value("vllm:prompt_tokens_cached", "_total")
    assert value("vllm:prompt_tokens_cached", "_total") == cached.sum()
    assert value(source, "_total", source="local_compute") == (requests["prompt_tokens"] - cached).sum()
    assert value("vllm:request_prefill_kv_computed_tokens", "_sum") == (requests["prompt_tokens"] - cached).sum()
    assert value("vllm:iteration_tokens_total", "_count") == (computed > 0).sum()
    assert value("vllm:iteration_tokens_total", "_sum") == computed.sum()
    assert value("vllm:iteration_tokens_total", "_bucket", le="64.0") == ((computed > 0) & (computed <= 64)).sum()
    assert value("vllm:request_params_n", "_sum") == 60
    pool = {"block_size": "16", "num_gpu_blocks": str(run.facts["num_blocks"])}
    assert value("vllm:cache_config_info", "", **pool) == 1


def test_prometheus_gaps_and_gauges(families: dict[str, Any], toy: Path) -> None:
    run = run_named(toy, "paged")
    steps = run.steps()
    name = "vllm:inter_token_latency_seconds"
    assert only(families[name], f"{name}_count") == steps["gap_tokens"].sum() + len(run.requests()["stall_s"])
    assert families["vllm:num_requests_running"].type == "gauge"


def test_prometheus_history_is_a_scrape_every_so_often(metrics: tuple[str, str], families: dict[str, Any]) -> None:
    *lines, end = (line for line in metrics[1].splitlines() if "preallocated" not in line)
    gauge, *counters = "vllm:kv_cache_usage_perc", "vllm:generation_tokens", "vllm:e2e_request_latency_seconds"
    history = scrapes("\n".join([*(line for line in lines if any(name in line for name in (gauge, *counters))), end]))
    stamps = sorted(history)
    assert len(stamps) == 240
    usage = [only(history[stamp][gauge], gauge) for stamp in stamps]
    assert 0.9 < max(usage) <= 1.0
    for name, suffix in zip(counters, ("_total", "_count"), strict=True):
        series = [only(history[stamp][name], name + suffix) for stamp in stamps]
        assert series == sorted(series)
        assert series[0] == 0
        assert series[-1] == only(families[name], name + suffix)
    some = sorted({line.rsplit(" ", 1)[1] for line in lines if not line.startswith("#")}, key=float)[::60]
    whole = scrapes(
        "\n".join([*(line for line in lines if line.startswith("#") or line.rsplit(" ", 1)[1] in some), end])
    )
    assert len(whole) == 4
    assert all(scrape.keys() == families.keys() for scrape in whole.values())


@pytest.mark.parametrize("seed", [11, 12])  # of which the last step's start and length sum to less than its end
def test_prometheus_ends_with_the_last_request(tmp_path: Path, seed: int) -> None:
    one = ["requests.count=3", f"seed={seed}", "allocators=[{kind: paged}]"]
    directory = run_workload(load("quickstart", one), tmp_path / "run")
    text = export(directory.path, "prometheus", tmp_path)[0].read_text()
    name = "vllm:e2e_request_latency_seconds"
    (family,) = [one for one in text_string_to_metric_families(text) if one.name == name]
    assert [one.value for one in family.samples if one.name == f"{name}_count"] == [3]


def test_prometheus_escapes_names(tmp_path: Path) -> None:
    label = 'a"b\\c\nd'
    path = write_directory(tmp_path / "run", count=5, kinds=("paged",), labels=(label,))
    written, _ = export(path, "prometheus", tmp_path)
    family = next(iter(text_string_to_metric_families(written.read_text())))
    assert family.samples[0].labels["allocator"] == label
