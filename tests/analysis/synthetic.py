"""Small honest run directories for tests of the analysis room.

A toy engine, one step at a time, over a real list of physical blocks: FCFS admission, one
decode token a step, newest preempted when blocks run out.  Every row obeys the schema of
`analysis.rundir`: steps tile time and every ledger sums to the capacity.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from analysis import rundir
from analysis.reading import Run, open_directory

BLOCK = 16
KINDS = ("preallocated", "paged", "ideal")


@dataclass(eq=False)
class Sequence:
    request_id: int
    arrival: float
    prompt: int
    output: int
    blocks: list[int] = field(default_factory=list)
    done: int = 0
    generated: int = 0
    scheduled: float = np.nan
    first: float = np.nan
    finish: float = np.nan
    last: float = np.nan
    preemptions: int = 0
    recomputed: int = 0
    stalls: list[float] = field(default_factory=list)
    status: str = "unfinished"
    reason: str = ""

    @property
    def final(self) -> int:
        return self.prompt + self.output - 1


def workload(count: int, rate: float, seed: int, repeat: int = 0) -> list[Sequence]:
    rng = np.random.default_rng([seed, repeat])
    arrivals = np.cumsum(rng.exponential(1 / rate, count))
    prompts = rng.lognormal(4.6, 0.8, count).clip(4, 400).astype(int)
    outputs = rng.lognormal(4.2, 0.8, count).clip(2, 400).astype(int)
    return [
        Sequence(i, *row)
        for i, row in enumerate(zip(arrivals.tolist(), prompts.tolist(), outputs.tolist(), strict=True))
    ]


class Engine:
    def __init__(self, kind: str, num_blocks: int, max_len: int = 1024, seats: int = 64, apart_s: float = 0.05) -> None:
        self.kind, self.num_blocks, self.max_len, self.seats, self.apart_s = kind, num_blocks, max_len, seats, apart_s
        self.free = list(range(num_blocks, 0, -1))
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.steps: list[dict[str, Any]] = []
        self.blocks: list[tuple[Any, ...]] = []
        self.events: list[tuple[Any, ...]] = []
        self.now, self.number, self.snapshot = 0.0, 0, 0.0

    def target(self, seq: Sequence, tokens: int) -> int:
        return -(-(self.max_len if self.kind == "preallocated" else tokens) // BLOCK)

    def admit(self) -> str:
        blocked = ""
        while self.waiting:
            seq = self.waiting[0]
            need = self.target(seq, seq.prompt + seq.generated)
            if len(self.running) == self.seats:
                blocked = "seats"
                break
            if need > len(self.free):
                blocked = "memory"
                break
            self.waiting.pop(0)
            seq.blocks = [self.free.pop() for _ in range(need)]
            if seq.preemptions:
                self.event("resume", seq, need)
            self.running.append(seq)
        return blocked

    def event(self, word: str, seq: Sequence, blocks: int, cause: int = -1, reason: str = "") -> None:
        self.events.append((self.now, seq.request_id, word, blocks * BLOCK, cause, reason))

    def preempt(self, cause: Sequence) -> Sequence:
        seq = self.running.pop()
        self.event("preempt", seq, len(seq.blocks), cause.request_id, "too few free blocks")
        self.free += reversed(seq.blocks)
        seq.recomputed += seq.done
        seq.blocks, seq.done = [], 0
        seq.preemptions += 1
        self.waiting.insert(0, seq)
        return seq

    def grow(self) -> int:
        count = 0
        for seq in list(self.running):
            if seq not in self.running:
                continue
            need = self.target(seq, seq.prompt + seq.generated) - len(seq.blocks)
            while need > len(self.free) and seq in self.running:
                count += 1
                if self.preempt(seq) is seq:
                    break
            if seq in self.running:
                seq.blocks += [self.free.pop() for _ in range(need)]
        return count

    def ledger(self) -> dict[str, int]:
        held = sum(len(seq.blocks) for seq in self.running) * BLOCK
        live = sum(seq.prompt + seq.generated for seq in self.running)
        internal = sum(max(0, len(seq.blocks) * BLOCK - seq.final) for seq in self.running)
        return {
            "live": live,
            "reserved": held - live - internal,
            "internal": internal,
            "rounding": 0,
            "cached": 0,
            "external": 0,
            "free": self.num_blocks * BLOCK - held,
            "shared_savings": 0,
            "swapped": 0,
            "largest_hole": self.num_blocks * BLOCK - held,
        }

    def record(self, duration: float, **row: Any) -> None:
        blank = {name: 0 for name in rundir.STEPS.names if name not in ("step", "start_s", "duration_s")} | {
            "blocked": ""
        }
        self.steps.append(
            {"step": self.number, "start_s": self.now, "duration_s": duration, **blank, **self.ledger(), **row}
        )
        self.now += duration

    def take_snapshot(self) -> None:
        if self.now < self.snapshot:
            return
        self.snapshot = self.now + self.apart_s
        owner = {block: (seq, place) for seq in self.running for place, block in enumerate(seq.blocks)}
        for block in sorted(owner):
            seq, place = owner[block]
            fill = seq.prompt + seq.generated - place * BLOCK
            slack = min(max(BLOCK - fill, 0), BLOCK)
            previous = self.blocks[-1] if self.blocks else None
            if (
                previous
                and previous[0] == self.now
                and previous[3] == seq.request_id
                and previous[1] + previous[2] == block
            ):
                self.blocks[-1] = (*previous[:2], previous[2] + 1, *previous[3:5], previous[5] + slack)
            else:
                self.blocks.append((self.now, block, 1, seq.request_id, 1, slack))

    def receive(self, seq: Sequence) -> None:
        if self.target(seq, seq.final) > self.num_blocks or seq.final > self.max_len:
            seq.status, seq.reason = "refused", "larger than the whole pool"
            self.event("refuse", seq, self.target(seq, seq.final), -1)
        else:
            self.waiting.append(seq)

    def run(self, requests: list[Sequence], until: float = np.inf) -> None:
        coming = list(requests)
        while (coming or self.waiting or self.running) and self.now < until:
            while coming and coming[0].arrival <= self.now:
                self.receive(coming.pop(0))
            preemptions = self.grow()
            blocked = "memory" if preemptions else self.admit()
            if not self.running:
                if not coming:
                    break
                self.record(coming[0].arrival - self.now)
                continue
            self.take_snapshot()
            prefill = [seq for seq in self.running if seq.done < seq.prompt + seq.generated - 1 or not seq.generated]
            decode = [seq for seq in self.running if seq not in prefill]
            tokens = sum(seq.prompt + seq.generated - seq.done for seq in prefill)
            duration = 0.03 + 2e-5 * tokens + 1e-4 * len(decode)
            for seq in self.running:
                seq.scheduled = self.now if math.isnan(seq.scheduled) else seq.scheduled
            end = self.now + duration
            gaps = [end - seq.last for seq in decode]
            common = max(set(gaps), key=gaps.count) if gaps else 0.0
            row = {
                "gap_s": common,
                "gap_tokens": gaps.count(common),
                "preemptions": preemptions,
                "evicted": 0,
                "blocked": blocked,
            }
            self.record(
                duration,
                running=len(self.running),
                waiting=len(self.waiting),
                prefill_tokens=tokens,
                decode_tokens=len(decode),
                **row,
            )
            self.number += 1
            self.deliver(end, prefill, common)

    def deliver(self, end: float, prefill: list[Sequence], common: float) -> None:
        for seq in list(self.running):
            gap = end - seq.last
            if not math.isnan(gap) and (seq in prefill or gap != common):
                seq.stalls.append(gap)
            seq.done = seq.prompt + seq.generated
            seq.generated += 1
            seq.last = end
            if seq.generated == 1:
                seq.first = end
            if seq.generated == seq.output:
                seq.finish, seq.status = end, "finished"
                self.running.remove(seq)
                self.free += reversed(seq.blocks)
                seq.blocks = []


def write_run(path: Path, engine: Engine, requests: list[Sequence]) -> None:
    path.mkdir(parents=True)
    columns = {
        "request_id": [s.request_id for s in requests],
        "arrival_s": [s.arrival for s in requests],
        "prompt_tokens": [s.prompt for s in requests],
        "output_tokens": [s.output for s in requests],
        "samples": [1] * len(requests),
        "status": [s.status for s in requests],
        "reason": [s.reason for s in requests],
        "generated_tokens": [s.generated for s in requests],
        "scheduled_s": [s.scheduled for s in requests],
        "first_token_s": [s.first for s in requests],
        "finish_s": [s.finish for s in requests],
        "cached_tokens": [0] * len(requests),
        "recomputed_tokens": [s.recomputed for s in requests],
        "swapped_blocks": [0] * len(requests),
        "preemptions": [s.preemptions for s in requests],
        "prefix_group": [-1] * len(requests),
        "stall_s": [s.stalls for s in requests],
    }
    pq.write_table(table(columns, rundir.REQUESTS), path / "requests.parquet")
    steps = {name: [row[name] for row in engine.steps] for name in rundir.STEPS.names}
    pq.write_table(table(steps, rundir.STEPS), path / "steps.parquet")
    for name, rows, schema in (("blocks", engine.blocks, rundir.BLOCKS), ("events", engine.events, rundir.EVENTS)):
        columns = (
            dict(zip(schema.names, map(list, zip(*rows, strict=True)), strict=True))
            if rows
            else {n: [] for n in schema.names}
        )
        pq.write_table(table(columns, schema), path / f"{name}.parquet")


def table(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    arrays = []
    for item in schema:
        values = columns[item.name]
        if pa.types.is_dictionary(item.type):
            arrays.append(pa.array(values, pa.string()).dictionary_encode().cast(item.type))
        else:
            arrays.append(pa.array(values, item.type, from_pandas=False))
    return pa.Table.from_arrays(arrays, schema=schema)


def write_directory(
    path: Path | str,
    *,
    count: int = 120,
    rate: float = 6.0,
    num_blocks: int = 128,
    seed: int = 0,
    repeats: int = 1,
    kinds: tuple[str, ...] = KINDS,
    name: str = "toy",
    labels: tuple[str, ...] = (),
    until: float = np.inf,
    apart_s: float = 0.05,
) -> Path:
    """Simulate every kind and leave a complete run directory (without report.html), its snapshots `apart_s` apart."""
    path = Path(path)
    runs = []
    for index, kind in enumerate(kinds):
        label = labels[index] if labels else kind
        for repeat in range(repeats):
            requests = workload(count, rate, seed, repeat)
            engine = Engine("paged" if kind == "ideal" else kind, num_blocks, apart_s=apart_s)
            engine.run(requests, until)
            directory = f"run{index}" + (f"/repeat-{repeat}" if repeat else "")
            write_run(path / directory, engine, requests)
            runs.append(
                {
                    "label": label,
                    "kind": kind,
                    "scheduler": "toy-fcfs",
                    "repeat": repeat,
                    "dir": directory,
                    "capacity": num_blocks * BLOCK,
                    "block_size": BLOCK,
                    "num_blocks": num_blocks,
                    "block_bytes": BLOCK * 131072,
                }
            )
    manifest = {
        "schema": 1,
        "kvsim": "0.1.0",
        "name": name,
        "seed": seed,
        "repeat": repeats,
        "workload": {"name": name, "requests": {"count": count, "arrivals": {"kind": "poisson", "rate": rate}}},
        "model": {"name": "toy-model"},
        "device": {"name": "toy-device"},
        "runs": runs,
        "slo": {"ttft_s": 1.0, "tpot_s": 0.05},
        "expect": None,
        "versions": {},
        "started": "2026-01-01T00:00:00+00:00",
        "wall_s": 0.1,
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    entries = open_directory(path).summary()
    (path / "summary.json").write_text(json.dumps({"schema": 1, "runs": entries}, allow_nan=False))
    return path


def run_named(directory: Path, label: str) -> Run:
    """Open the run of one allocator."""
    return next(run for run in open_directory(directory).runs if run.label == label)
