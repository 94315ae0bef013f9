"""Exports of a mix name its parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from analysis.export import export
from analysis.reading import Run, open_directory
from sim.runner import run as run_workload
from workloads.loader import load

LENGTHS = "lengths: {kind: uniform, prompt: {min: 5, max: 90}, output: {min: 2, max: 40}}"
MIX = (
    f"requests={{mix: [{{name: chat, count: 30, arrivals: {{kind: poisson, rate: 20}}, {LENGTHS}}}, "
    f"{{name: long reads, count: 12, arrivals: {{kind: batch}}, {LENGTHS}}}]}}"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The only run of a mix of two parts."""
    path = tmp_path_factory.mktemp("mix") / "run"
    run_workload(load("quickstart", [MIX, "allocators=[paged]"]), path)
    (found,) = open_directory(path).runs
    return found


@pytest.fixture(scope="module")
def trace(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Trace:
    (path,) = export(run.path.parent, "perfetto", tmp_path_factory.mktemp("perfetto"))
    read = Trace()
    read.ParseFromString(path.read_bytes())
    return read


def test_perfetto_has_a_group_of_tracks_for_each_part(run: Run, trace: Trace) -> None:
    described = [packet.track_descriptor for packet in trace.packet if packet.HasField("track_descriptor")]
    names = {one.uuid: one.name for one in described}
    requests = run.requests()
    assert {one.name: names[one.parent_uuid] for one in described if one.name.startswith("request ")} == {
        f"request {request}": part for request, part in zip(requests["request_id"], requests["part"], strict=True)
    }
    assert {names[one.parent_uuid] for one in described if one.name in {"chat", "long reads"}} == {""}  # the process


def test_perfetto_tells_queries_the_part_of_each_slice(run: Run, trace: Trace) -> None:
    begun = [packet.track_event for packet in trace.packet if packet.track_event.name == "decode"]
    notes = [{note.name: note.string_value for note in event.debug_annotations} for event in begun]
    assert sorted(note["part"] for note in notes) == sorted(run.requests()["part"])


def samples(run: Run, folder: Path) -> dict[str, list[Any]]:
    text = export(run.path.parent, "prometheus", folder)[0].read_text()
    return {family.name: family.samples for family in text_string_to_metric_families(text)}


def test_openmetrics_counts_each_part_by_itself(run: Run, tmp_path: Path) -> None:
    found, requests = samples(run, tmp_path), run.requests()
    ttft = requests["first_token_s"] - requests["arrival_s"]
    for part in ("chat", "long reads"):
        mine = requests["part"] == part

        def value(name: str, suffix: str, part: str = part, **labels: str) -> float:
            labels["part"] = part
            (one,) = [
                one
                for one in found[f"vllm:{name}"]
                if one.name == f"vllm:{name}{suffix}" and labels.items() <= one.labels.items()
            ]
            return float(one.value)

        assert value("prompt_tokens", "_total") == requests["prompt_tokens"][mine].sum()
        assert value("request_success", "_total", finished_reason="stop") == np.count_nonzero(mine)
        assert value("time_to_first_token_seconds", "_sum") == pytest.approx(ttft[mine].sum())
        assert value("time_to_first_token_seconds", "_bucket", le="0.1") == np.count_nonzero(ttft[mine] <= 0.1)
        assert value("request_generation_tokens", "_sum") == requests["generated_tokens"][mine].sum()
        assert value("inter_token_latency_seconds", "_count") == (requests["generated_tokens"][mine] - 1).sum()
        after = (requests["finish_s"] - requests["first_token_s"])[mine]
        assert value("inter_token_latency_seconds", "_sum") == pytest.approx(after.sum())


def test_what_is_of_the_whole_engine_is_of_no_part(run: Run, tmp_path: Path) -> None:
    of_parts = {name for name, some in samples(run, tmp_path).items() if any("part" in one.labels for one in some)}
    whole = {name for name, some in samples(run, tmp_path).items() if any("part" not in one.labels for one in some)}
    assert not of_parts & whole  # or sums over all series would count requests twice
    assert {"vllm:num_requests_running", "vllm:generation_tokens"} <= whole
    assert {"vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds"} <= of_parts
