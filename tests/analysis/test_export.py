"""Exports, read back with the libraries of the tools that open them."""

from __future__ import annotations

import csv
import io
import pickle
import pickletools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from torch.cuda import _memory_viz

from analysis.export import ExportError, export, torch_snapshot
from analysis.observed import SHARES
from analysis.reading import Run, open_directory
from sim.runner import run as run_workload
from tests.analysis.synthetic import write_directory
from workloads.loader import load

# opcodes that the unpickler of PyTorch's memory viewer knows
VIEWER = (
    "BINFLOAT BINGET BININT BININT1 BININT2 BINPUT BINUNICODE EMPTY_DICT EMPTY_LIST EMPTY_TUPLE FRAME LONG1 "
    "LONG_BINGET LONG_BINPUT MARK MEMOIZE NEWFALSE NEWTRUE NONE PROTO SETITEM SETITEMS SHORT_BINUNICODE STOP TUPLE "
    "TUPLE1 TUPLE2 TUPLE3 APPEND APPENDS"
)


def run_named(directory: Path, label: str) -> Run:
    return next(run for run in open_directory(directory).runs if run.label == label)


# -- perfetto --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trace(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Trace:
    (path,) = export(toy, "perfetto", tmp_path_factory.mktemp("perfetto"), labels=["paged"])
    read = Trace()
    read.ParseFromString(path.read_bytes())
    return read


def tracks(trace: Trace) -> dict[int, str]:
    return {
        packet.track_descriptor.uuid: packet.track_descriptor.process.process_name or packet.track_descriptor.name
        for packet in trace.packet
        if packet.HasField("track_descriptor")
    }


def events(trace: Trace, track: str) -> list[tuple[int, str, float]]:
    """Events of one track: (type, name, seconds)."""
    names = tracks(trace)
    return [
        (packet.track_event.type, packet.track_event.name, packet.timestamp / 1e9)
        for packet in trace.packet
        if packet.HasField("track_event") and names[packet.track_event.track_uuid] == track
    ]


def test_perfetto_has_a_process_and_a_track_for_every_request(trace: Trace) -> None:
    names = list(tracks(trace).values())
    assert names[0] == "paged (toy-fcfs)"
    assert {f"request {index}" for index in range(80)} <= set(names)
    assert set(SHARES) <= set(names)


def test_perfetto_slices_are_the_phases_of_the_request(trace: Trace, toy: Path) -> None:
    requests = run_named(toy, "paged").requests()
    request = int(np.flatnonzero(requests["preemptions"] == 0)[3])
    begin, end = TrackEvent.TYPE_SLICE_BEGIN, TrackEvent.TYPE_SLICE_END
    marks = [float(requests[name][request]) for name in ("arrival_s", "scheduled_s", "first_token_s", "finish_s")]
    expected = []
    for name, since, until in zip(("queued", "prefill", "decode"), marks[:-1], marks[1:], strict=True):
        expected += [(begin, name, pytest.approx(since, abs=1e-9)), (end, "", pytest.approx(until, abs=1e-9))]
    assert events(trace, f"request {request}") == expected


def test_perfetto_nests_preemptions_and_closes_every_slice(trace: Trace, toy: Path) -> None:
    requests = run_named(toy, "paged").requests()
    request = int(np.argmax(requests["preemptions"]))
    found = events(trace, f"request {request}")
    assert sum(name == "preempted" for _, name, _ in found) == requests["preemptions"][request]
    depth = 0
    for kind, _, _ in sorted(found, key=lambda event: event[2]):
        depth += 1 if kind == TrackEvent.TYPE_SLICE_BEGIN else -1
    assert depth == 0
    times = [time for _, _, time in found]
    assert times == sorted(times)


def test_perfetto_counters_are_the_ledger(trace: Trace, toy: Path) -> None:
    steps = run_named(toy, "paged").steps()
    names = tracks(trace)
    values = {
        round(packet.timestamp): packet.track_event.counter_value
        for packet in trace.packet
        if packet.HasField("track_event")
        and packet.track_event.type == TrackEvent.TYPE_COUNTER
        and names[packet.track_event.track_uuid] == "live"
    }
    assert max(values.values()) == steps["live"].max()
    row = int(np.argmax(steps["live"]))
    assert values[round(steps["start_s"][row] * 1e9)] == steps["live"][row]


# -- torch memory snapshot -------------------------------------------------------------------


@pytest.fixture(scope="module")
def snapshot(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, Any]]:
    (path,) = export(toy, "torch-snapshot", tmp_path_factory.mktemp("torch"), labels=["paged"], window=(2.0, 8.0))
    data = path.read_bytes()
    return data, pickle.loads(data)  # noqa: S301  (written a line above)


def test_snapshot_is_plain_and_speaks_what_the_viewer_reads(snapshot: tuple[bytes, dict[str, Any]]) -> None:
    used = {opcode.name for opcode, _, _ in pickletools.genops(snapshot[0])}
    assert used <= set(VIEWER.split())
    assert any(event.get("category") == "unknown" for event in snapshot[1]["device_traces"][0])


def test_torch_itself_reads_the_snapshot(snapshot: tuple[bytes, dict[str, Any]]) -> None:
    data = snapshot[1]
    summary = _memory_viz.segsum(data)
    assert "segments: 1" in summary
    assert "internal)" in summary
    assert "cudaMalloc" in _memory_viz.trace(data)


def test_snapshot_holds_the_pool_and_its_slack(snapshot: tuple[bytes, dict[str, Any]], toy: Path) -> None:
    run = run_named(toy, "paged")
    blocks = run.blocks()
    assert blocks is not None
    segment = snapshot[1]["segments"][0]
    size = run.facts["block_bytes"]
    assert segment["total_size"] == run.facts["num_blocks"] * size == sum(part["size"] for part in segment["blocks"])
    times = np.unique(blocks["time_s"])
    last = times[times <= 8.0][-1]
    then = blocks["time_s"] == last
    active = [part for part in segment["blocks"] if part["state"] == "active_allocated"]
    assert len(active) == blocks["count"][then].sum()
    slack = sum(part["size"] - part["requested_size"] for part in active)
    assert slack == blocks["slack"][then].sum() * size // 16


def test_snapshot_frees_only_what_it_allocated(snapshot: tuple[bytes, dict[str, Any]]) -> None:
    held: dict[int, str] = {}
    for event in snapshot[1]["device_traces"][0][1:]:
        who = event["frames"][0]["filename"]
        if event["action"] == "alloc":
            assert event["addr"] not in held
            held[event["addr"]] = who
        elif event["action"] == "free_completed":
            assert held.pop(event["addr"]) == who
    active = {part["address"] for part in snapshot[1]["segments"][0]["blocks"] if part["state"] == "active_allocated"}
    assert set(held) == active


def test_a_contiguous_reservation_is_one_allocation(toy: Path) -> None:
    run = run_named(toy, "preallocated")
    single = Run({**run.facts, "block_size": 1, "num_blocks": 40, "block_bytes": 100}, run.path)
    names = ("time_s", "block", "count", "request_id", "references", "slack")
    rows = [(0.5, 1, 20, 3, 1, 15), (0.5, 30, 5, 4, 1, 0), (0.7, 1, 20, 3, 1, 14)]
    blocks = {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    made = torch_snapshot.snapshot(single, blocks, (0.0, 1.0))
    actions = [(event["action"], event["size"]) for event in made["device_traces"][0][1:]]
    assert actions == [("alloc", 2000), ("alloc", 500), ("free_requested", 500), ("free_completed", 500)]
    sizes = [(part["state"], part["size"], part["requested_size"]) for part in made["segments"][0]["blocks"]]
    assert sizes == [("active_allocated", 2000, 600), ("inactive", 2000, 2000)]


def test_a_refusal_is_an_out_of_memory_event(tmp_path: Path) -> None:
    path = write_directory(tmp_path / "run", count=40, num_blocks=16, kinds=("paged",))
    (written,) = export(path, "torch-snapshot", tmp_path)
    trace = pickle.loads(written.read_bytes())["device_traces"][0]  # noqa: S301  (written a line above)
    refused = [event for event in trace if event["action"] == "oom"]
    assert refused
    assert all(event["device_free"] >= 0 and event["size"] > 16 * 16 * 131072 for event in refused)
    assert "raise OutOfMemoryError" in _memory_viz.trace({"segments": [], "device_traces": [trace]})
    events = run_named(path, "paged").events()
    assert events is not None
    needed = events["slots"][events["event"] == "refuse"]
    assert [event["size"] // (16 * 131072) for event in refused] == (-(-needed // 16)).tolist()


def test_a_snapshot_that_is_cut_says_where(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    export(toy, "torch-snapshot", tmp_path, labels=["paged"], note=notes.append)
    assert not notes
    monkeypatch.setattr(torch_snapshot, "EVENTS", 300)
    (path,) = export(toy, "torch-snapshot", tmp_path, labels=["paged"], note=notes.append)
    last = pickle.loads(path.read_bytes())["device_traces"][0][-1]["time_us"] / 1e6  # noqa: S301  (written a line above)
    end = run_named(toy, "paged").end
    assert last < end
    told = f"paged: only up to {last:.6g} s of {end:.6g} s, as the viewer draws no more events than 300"
    assert notes == [f"{told}; --after {last:.6g} shows what follows"]


# -- prometheus ------------------------------------------------------------------------------


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


# -- csv -------------------------------------------------------------------------------------


def test_csv_holds_every_row_and_keeps_to_the_window(toy: Path, tmp_path: Path) -> None:
    written = export(toy, "csv", tmp_path, labels=["paged"])
    assert {path.name for path in written} == {f"run1.{name}.csv" for name in ("requests", "steps", "blocks", "events")}
    rows = list(csv.DictReader(io.StringIO((tmp_path / "run1.requests.csv").read_text())))
    requests = run_named(toy, "paged").requests()
    assert [float(row["arrival_s"]) for row in rows] == requests["arrival_s"].tolist()
    gaps = [float(gap) for row in rows for gap in row["stall_s"].split()]
    assert gaps == pytest.approx(requests["stall_s"].tolist())
    export(toy, "csv", tmp_path, labels=["paged"], window=(1.0, 2.0))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "run1.steps.csv").read_text())))
    assert rows
    assert all(1.0 <= float(row["start_s"]) <= 2.0 for row in rows)


# -- what cannot be exported -----------------------------------------------------------------


def test_bad_requests_get_one_line(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExportError, match="unknown export format xml; known: perfetto"):
        export(toy, "xml", tmp_path)
    with pytest.raises(ExportError, match="no allocator nobody"):
        export(toy, "csv", tmp_path, labels=["nobody"])
    with pytest.raises(ExportError, match="its end must come after its start"):
        export(toy, "csv", tmp_path, window=(2.0, 1.0))
    with pytest.raises(ExportError, match="nothing happens after 1e\\+06 s: the run ends at"):
        export(toy, "perfetto", tmp_path, window=(1e6, 2e6))
    with pytest.raises(ExportError, match="no snapshot of the block map between"):
        export(toy, "torch-snapshot", tmp_path, window=(1e-9, 2e-9))
    monkeypatch.setitem(sys.modules, "perfetto.trace_builder.proto_builder", None)
    with pytest.raises(ExportError, match=r"needs the package perfetto: pip install perfetto"):
        export(toy, "perfetto", tmp_path)
