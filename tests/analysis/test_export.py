"""Exports of a run to Perfetto and as CSV, and what cannot be exported."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

from analysis.export import ExportError, export
from analysis.observed import SHARES

# opcodes that the unpickler of PyTorch's memory viewer knows
from tests.analysis.synthetic import run_named

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
    with pytest.raises(ExportError, match=r"none of the snapshots of the block map, from \S+ to \S+ s, is in"):
        export(toy, "torch-snapshot", tmp_path, window=(1e-9, 2e-9))
    monkeypatch.setitem(sys.modules, "perfetto.trace_builder.proto_builder", None)
    with pytest.raises(ExportError, match=r"needs the package perfetto: pip install perfetto"):
        export(toy, "perfetto", tmp_path)
