"""Rows in the order they are written, and their columns in the end."""

from __future__ import annotations

from collections import Counter
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from analysis.rundir import BLOCKS, EVENTS, layout
from sim.engine.jobs import NEVER
from sim.reference.ledger import block_map, ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.engine.telemetry import Sink
    from sim.reference.ledger import Run
    from sim.reference.requests import Request
    from sim.reference.room import Room, Step

Row: TypeAlias = dict[str, Any]

BLOCKED = ("", "memory", "seats", "budget", "order")
STATUSES = ("finished", "refused", "unfinished")
HAPPENINGS = ("preempt", "resume", "recomputed", "swap_out", "swap_in", "refuse")


class Snapshots:
    """Block maps at most so many; when they are too many every second is dropped and the interval doubles."""

    def __init__(self, most: int | None, interval: int) -> None:
        """Keep `most` snapshots (0 for none, None for all), at first `interval` nanoseconds apart."""
        self._most = most
        self._interval = interval
        self._kept: list[tuple[int, list[Run]]] = []
        self._due = 0

    def due(self, now: int) -> bool:
        """Whether it is time for one."""
        return self._most is None or (self._most > 0 and now >= self._due)

    def keep(self, now: int, runs: list[Run]) -> None:
        """Keep the block map of this instant."""
        self._kept.append((now, runs))
        if self._most is not None and len(self._kept) > self._most:
            self._kept = self._kept[::2]
            self._interval *= 2
        self._due = now + self._interval

    def rows(self) -> list[dict[str, Any]]:
        """All that were kept, as rows of blocks.parquet."""
        return [{"time_s": now / 1e9, "count": run.blocks, **run._asdict()} for now, runs in self._kept for run in runs]


class Records:
    """The rows of a run."""

    def __init__(self, snapshots: Snapshots, parts: Sequence[str]) -> None:
        """Start without any; `parts` are those of the mix, if there is one."""
        self.parts = parts
        self.requests: list[Row] = []
        self.steps: list[Row] = []
        self.events: list[Row] = []
        self.snapshots = snapshots
        self.evicted = 0
        """Cached blocks evicted until the last row of a step was written."""

    def left(self, request: Request, status: str, group: int) -> None:
        """Write the row of a request that leaves, or stays when the clock stops, with its prefix group and part."""
        more = {} if request.part is None else {"part": request.part}
        self.requests.append(request_row(request, status) | {"prefix_group": group, **more})

    def step(
        self,
        number: int,
        now: int,
        duration: int,
        room: Room,
        step: Step | None,
        decodes: int = 0,
        gap: int = 0,
        alike: Sequence[Request] = (),
    ) -> None:
        """Write the row of a step, or of an idle gap, from what is true while it lasts; `alike` had that `gap`."""
        work = step.work if step is not None else {}
        parts = Counter(request.part for request in alike)
        self.steps.append(
            {
                "step": number,
                "start_s": now / 1e9,
                "duration_s": duration / 1e9,
                "running": room.seats,
                "waiting": len(room.waiting),
                "prefill_tokens": sum(tokens for request, tokens in work.items() if not request.decoding),
                "decode_tokens": decodes,
                "gap_s": gap / 1e9,
                "gap_tokens": len(alike),
                "largest_hole": room.allocator.largest_hole(),
                "preemptions": len(step.preempted) if step is not None else 0,
                "evicted": room.allocator.evictions() - self.evicted,
                "mapped_pages": step.mappings.mapped if step is not None else 0,
                "mapping_hidden_s": step.hidden / 1e9 if step is not None else 0.0,
                "mapping_exposed_s": step.exposed / 1e9 if step is not None else 0.0,
                "blocked": step.blocked if step is not None else "",
                **ledger(room, step)._asdict(),
                **{f"gap_tokens.{name}": parts[name] for name in self.parts},
            }
        )
        self.evicted = room.allocator.evictions()

    def happened(self, now: int, request: Request, event: str, slots: int, cause: int, reason: str) -> None:
        """Write the row of what happened to a request's memory."""
        self.events.append(
            {
                "time_s": now / 1e9,
                "request_id": request.index,
                "event": event,
                "slots": slots,
                "cause": cause,
                "reason": reason,
            }
        )

    def snapshot(self, now: int, room: Room) -> None:
        """Keep the block map of this instant, if it is time for one."""
        if self.snapshots.due(now):
            self.snapshots.keep(now, block_map(room))

    def write(self, sink: Sink) -> None:
        """Hand all rows to the sink, a table at a time, in the types of the run directory."""
        requests = sorted(self.requests, key=itemgetter("request_id"))
        tables = {
            "steps": (layout("steps", self.steps[0] if self.steps else ()), self.steps),
            "requests": (layout("requests", requests[0] if requests else ()), requests),
            "events": (EVENTS, self.events),
            "blocks": (BLOCKS, self.snapshots.rows()),
        }
        for table, (schema, rows) in tables.items():
            reasons = ("", *sorted({row.get("reason", "") for row in rows} - {""}))
            parts = tuple(dict.fromkeys(row.get("part", "") for row in rows))
            words = {"status": STATUSES, "blocked": BLOCKED, "event": HAPPENINGS, "reason": reasons, "part": parts}
            sink.write(
                table, {field.name: _column(field, [row[field.name] for row in rows], words) for field in schema}
            )


def request_row(request: Request, status: str) -> dict[str, Any]:
    """Make the row of a request that leaves, or stays when the clock stops."""
    return {
        "request_id": request.index,
        "arrival_s": seconds(request.arrival),
        "prompt_tokens": request.prompt,
        "output_tokens": request.wanted,
        "samples": request.samples,
        "status": status,
        "reason": request.reason,
        "generated_tokens": request.generated,
        "scheduled_s": seconds(request.scheduled),
        "first_token_s": seconds(request.first_token),
        "finish_s": seconds(request.finished),
        "cached_tokens": request.cached,
        "recomputed_tokens": request.recomputed,
        "swapped_blocks": request.swapped_blocks,
        "preemptions": request.preemptions,
        "stall_s": [stall / 1e9 for stall in request.stalls],
    }


def seconds(instant: int) -> float:
    """Turn nanoseconds into seconds, and what never was into NaN."""
    return float("nan") if instant == NEVER else instant / 1e9


def _column(field: pa.Field, values: list[Any], words: dict[str, tuple[str, ...]]) -> object:
    if pa.types.is_dictionary(field.type):
        known = words[field.name]
        return np.array([known.index(value) for value in values], np.int8), known
    if pa.types.is_list(field.type):
        offsets = np.cumsum([0, *(len(value) for value in values)])
        return offsets, np.array([each for value in values for each in value], np.float64)
    return np.array(values, field.type.to_pandas_dtype())
