"""PyTorch's memory snapshot of a run: what its viewer reads, and that it is the run's."""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.cuda import _memory_viz

from analysis.export import export, torch_snapshot
from analysis.export.errors import ExportError
from analysis.reading import Run
from sim.runner import run
from tests.analysis.synthetic import run_named, write_directory
from workloads.loader import load

VIEWER = (
    "BINFLOAT BINGET BININT BININT1 BININT2 BINPUT BINUNICODE EMPTY_DICT EMPTY_LIST EMPTY_TUPLE FRAME LONG1 "
    "LONG_BINGET LONG_BINPUT MARK MEMOIZE NEWFALSE NEWTRUE NONE PROTO SETITEM SETITEMS SHORT_BINUNICODE STOP TUPLE "
    "TUPLE1 TUPLE2 TUPLE3 APPEND APPENDS"
)


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


@pytest.mark.parametrize(("telemetry", "why"), [
    ("off", "run it with telemetry.blocks: sampled"), ("sampled", "nothing held a block"),
])  # fmt: skip
def test_without_a_block_map_it_is_said_why(telemetry: str, why: str, tmp_path: Path) -> None:
    refused = ["requests.count=3", "engine.max_model_len=100", "requests.lengths={kind: fixed, prompt: 200, output: 9}"]
    directory = run(load("quickstart", [*refused, f'telemetry.blocks="{telemetry}"']), tmp_path / "run")
    with pytest.raises(ExportError, match=f"no block map was recorded; {why}$"):
        export(directory.path, "torch-snapshot", tmp_path)
