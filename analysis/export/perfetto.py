"""A native Perfetto trace: a process an allocator, a track a request (in a group for each part of a mix), counters.

Opens in ui.perfetto.dev (drop the file on it; nothing is uploaded) and in its trace
processor, where slices and counters are SQL tables.  Times are nanoseconds from the start
of the workload.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from analysis.export.errors import ExportError
from analysis.observed import SHARES
from analysis.page.timeline import choose
from analysis.phases import losses
from analysis.reading import Run, RunDirectory
from analysis.whole import whole

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUESTS = 20_000
"""Requests an allocator at most, the first of the window."""
ROWS = 50_000
"""Rows of steps an allocator at most; peaks and troughs are kept."""
COUNTERS = ("running", "waiting", "prefill_tokens", "decode_tokens", *SHARES)
SEQUENCE = 1
Notes: TypeAlias = dict[str, int | str]
"""What a slice is annotated with, by name."""


def write(
    directory: RunDirectory, folder: Path, labels: list[str], window: tuple[float, float], _note: object
) -> list[Path]:
    """Write one trace with the first replication of every label."""
    try:
        from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder  # noqa: PLC0415  (an extra)
    except ImportError:
        raise ExportError("--to perfetto: needs the package perfetto: pip install perfetto") from None
    (target,) = (folder / name for name in files(directory, labels))
    with whole(target) as part, part.open("wb") as file:
        trace = _Trace(StreamingTraceProtoBuilder(file))
        for run in directory.runs:
            if run.label in labels and run.repeat == 0:
                _write_run(trace, run, window)
    return [target]


def files(directory: RunDirectory, labels: list[str]) -> list[str]:  # noqa: ARG001 - as in other formats
    """Name of the file that is written."""
    return ["trace.perfetto-trace"]


class _Trace:
    """Packets of one trace, with fresh track ids."""

    def __init__(self, builder: Any) -> None:
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as proto  # noqa: PLC0415  (an extra)

        self.builder = builder
        self.kinds = proto.TrackEvent
        self.ids = count(1)

    def _packet(self, time_s: float | None = None) -> Any:
        packet = self.builder.create_packet()
        packet.trusted_packet_sequence_id = SEQUENCE
        if time_s is not None:
            packet.timestamp = round(time_s * 1e9)
        return packet

    def process(self, name: str, pid: int) -> int:
        packet, uuid = self._packet(), next(self.ids)
        descriptor = packet.track_descriptor
        descriptor.uuid = uuid
        descriptor.process.pid = pid
        descriptor.process.process_name = name
        self.builder.write_packet(packet)
        return uuid

    def track(self, parent: int, name: str, rank: int, unit: str | None = None) -> int:
        packet, uuid = self._packet(), next(self.ids)
        descriptor = packet.track_descriptor
        descriptor.uuid, descriptor.parent_uuid, descriptor.name = uuid, parent, name
        descriptor.sibling_order_rank = rank
        if unit is not None:
            descriptor.counter.unit_name = unit
        self.builder.write_packet(packet)
        return uuid

    def event(self, kind: int, track: int, time_s: float, name: str = "", notes: Notes | None = None) -> None:
        packet = self._packet(time_s)
        packet.track_event.type = kind
        packet.track_event.track_uuid = track
        if name:
            packet.track_event.name = name
        for key, value in (notes or {}).items():
            note = packet.track_event.debug_annotations.add()
            note.name = key
            if isinstance(value, str):
                note.string_value = value
            else:
                note.int_value = value
        self.builder.write_packet(packet)

    def counter(self, track: int, time_s: float, value: int) -> None:
        packet = self._packet(time_s)
        packet.track_event.type = self.kinds.TYPE_COUNTER
        packet.track_event.track_uuid = track
        packet.track_event.counter_value = value
        self.builder.write_packet(packet)


def _write_run(trace: _Trace, run: Run, window: tuple[float, float]) -> None:
    process = trace.process(f"{run.label} ({run.facts['scheduler']})", next(trace.ids))
    steps = run.steps()
    inside = (steps["start_s"] + steps["duration_s"] > window[0]) & (steps["start_s"] < window[1])
    steps = {name: column[inside] for name, column in steps.items()}
    rows = choose(steps, ROWS, ())
    for rank, name in enumerate(COUNTERS):
        track = trace.track(process, name, rank, "slots" if name in SHARES else "sequences" if rank < 2 else "tokens")
        values = steps[name][rows]
        changed = np.flatnonzero(np.diff(values, prepend=values[:1] - 1))
        for time, value in zip(steps["start_s"][rows][changed].tolist(), values[changed].tolist(), strict=True):
            trace.counter(track, time, value)
    end = float(steps["start_s"][-1] + steps["duration_s"][-1]) if len(rows) else 0.0
    _write_requests(trace, run, process, window, end)


def _write_requests(trace: _Trace, run: Run, process: int, window: tuple[float, float], end: float) -> None:
    requests = run.requests()
    over = np.where(
        requests["status"] == "refused", requests["arrival_s"], np.nan_to_num(requests["finish_s"], nan=end)
    )
    kept = np.flatnonzero((requests["arrival_s"] < window[1]) & (over >= window[0]))[:REQUESTS]
    wanted = {name: column[kept] for name, column in requests.items() if not name.startswith("stall")}
    lost: dict[int, list[tuple[float, float, str]]] = {}
    for loss in losses(wanted, run.blocks(), run.events()):
        word = "swapped out" if loss.swapped else "preempted"
        gaps = lost.setdefault(loss.request_id, [])
        gaps.append((loss.begin_s, min(loss.end_s, end), word))
        if np.isfinite(loss.ready_s):
            gaps.append((loss.end_s, loss.ready_s, "recompute"))
    begin, stop = trace.kinds.TYPE_SLICE_BEGIN, trace.kinds.TYPE_SLICE_END
    parts = run.facts.get("parts") or []
    groups = {name: trace.track(process, name, len(COUNTERS) + place) for place, name in enumerate(parts)}
    for place, request in enumerate(wanted["request_id"].tolist()):
        notes: Notes = {name: int(wanted[name][place]) for name in _NOTES}
        parent = process
        if groups:
            notes["part"] = part = str(wanted["part"][place])
            parent = groups[part]
        track = trace.track(parent, f"request {request}", len(COUNTERS) + place)
        if wanted["status"][place] == "refused":
            word = f"refused: {wanted['reason'][place]}"
            trace.event(trace.kinds.TYPE_INSTANT, track, float(wanted["arrival_s"][place]), word, notes)
            continue
        gaps = sorted(lost.get(request, []))
        for name, since, until in _phases(wanted, place, end):
            trace.event(begin, track, since, name, notes)
            for gap_begin, gap_end, word in gaps:
                if since <= gap_begin and gap_end <= until:
                    trace.event(begin, track, gap_begin, word)
                    trace.event(stop, track, gap_end)
            trace.event(stop, track, until)


_NOTES = ("prompt_tokens", "output_tokens", "generated_tokens", "cached_tokens", "preemptions", "recomputed_tokens")


def _phases(requests: dict[str, Any], place: int, end: float) -> Iterator[tuple[str, float, float]]:
    """Queued, prefill and decode with their times; what has not ended ends with the run."""
    marks = [float(requests[name][place]) for name in ("arrival_s", "scheduled_s", "first_token_s", "finish_s")]
    for name, since, until in zip(("queued", "prefill", "decode"), marks[:-1], marks[1:], strict=True):
        if np.isnan(since):
            return
        yield name, since, end if np.isnan(until) else until
