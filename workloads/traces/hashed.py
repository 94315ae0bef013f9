"""JSON lines of timestamp, input_length, output_length and block hashes: Mooncake's format and its relatives.

They look alike and differ in units: Mooncake and AIPerf count milliseconds and blocks of 512
tokens, GuideLLM seconds, Qwen-Bailian seconds and blocks of 16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workloads.traces.base import Options
from workloads.traces.blocks import prefixes_of
from workloads.traces.records import Records, read_records
from workloads.traces.rows import Fault, Rows

if TYPE_CHECKING:
    from workloads.requests import Floats, Ints
    from workloads.traces.files import TraceFile

LENGTHS = {"input_length", "output_length"}


@dataclass(frozen=True)
class HashedFormat:
    """One such format."""

    name: str
    about: str
    marks: frozenset[str]
    """Fields that tell it from its relatives."""
    seconds: float
    """Seconds in one unit of `timestamp`."""
    block_size: int
    """Tokens of the prompt that one hash names."""
    whole: bool | None = None
    """Whether timestamps are whole numbers (True), have fractions (False), or may be either (None)."""

    def matches(self, file: TraceFile) -> bool:
        """Say whether the first records have the marks and such timestamps."""
        records = [record for record in file.records if isinstance(record, dict)]
        if not records or not records[0].keys() >= LENGTHS | self.marks:
            return False
        if any(isinstance(record.get("hash_ids"), dict) for record in records):
            return False
        times = [record.get("timestamp") for record in records]
        fractions = any(isinstance(time, float) and not time.is_integer() for time in times)
        return self.whole is None or self.whole != fractions

    def read(self, file: TraceFile, options: Options) -> Rows:
        """Read the whole file."""
        records = read_records(
            file,
            {
                "timestamp": "number",
                "delay": "number",
                "session_id": "text",
                "input_length": "number",
                "output_length": "number",
                "hash_ids": "ids",
            },
        )
        size = options.block_size or self.block_size
        prompt, hashes = records["input_length"], records.lists["hash_ids"]
        prefixes, crowded = prefixes_of(hashes, prompt, np.full(len(prompt), float(size)))
        crowded = crowded[prompt[crowded] > 0]
        counts = np.diff(hashes.offsets)
        faults: list[Fault] = [
            (line, f"{counts[row]} hash ids for {prompt[row]:g} tokens in blocks of {size}")
            for line, row in zip(records.lines(crowded), crowded.tolist(), strict=True)
        ]
        arrival, after, delay, notes = _times(records, self.seconds)
        rows = Rows(
            arrival, prompt, records["output_length"], records.lines, records.faults, prefixes, after, delay, notes
        )
        return rows.without(crowded, faults) if faults else rows


def _times(records: Records, seconds: float) -> tuple[Floats, Ints, Floats, list[str]]:
    """Return arrivals, links, delays and notes: a turn of a session with a delay follows the turn before it."""
    arrival, delay = records["timestamp"] * seconds, records["delay"] * seconds
    sessions = records["session_id"]
    if np.isnan(arrival).all() and np.isnan(delay).all():
        return (
            np.zeros(len(arrival)),
            np.zeros(0, np.int64),
            np.zeros(0),
            ["no timestamps: all requests arrive at once"],
        )
    if not np.isfinite(delay).any() or not any(sessions):
        return arrival, np.zeros(0, np.int64), np.zeros(0), []
    after = np.full(len(arrival), -1)
    last: dict[str, int] = {}
    for row, session in enumerate(sessions):
        if session and session in last and np.isfinite(delay[row]):
            after[row] = last[session]
        if session:
            last[session] = row
    linked = after >= 0
    # A linked turn's own time is nominal: when the turn before it came, and the delay.
    for row in np.flatnonzero(linked).tolist():
        if not np.isfinite(arrival[row]):
            arrival[row] = arrival[after[row]] + delay[row]
    notes = [f"{int(linked.sum()):,} turns follow the turn before them after the recorded delay"]
    return arrival, after, np.where(linked, delay, 0.0), notes


BAILIAN = HashedFormat(
    name="bailian",
    about="Qwen-Bailian usage traces: chat_id, parent_chat_id, timestamp (s), hashes of 16 tokens",
    marks=frozenset({"chat_id", "parent_chat_id", "timestamp"}),
    seconds=1.0,
    block_size=16,
)
AIPERF = HashedFormat(
    name="aiperf",
    about="AIPerf mooncake_trace: timestamp or delay (ms), session_id, hashes of 512 tokens",
    marks=frozenset({"session_id"}),
    seconds=1e-3,
    block_size=512,
)
MOONCAKE = HashedFormat(
    name="mooncake",
    about="Mooncake: timestamp (ms, whole numbers), input_length, output_length, hash_ids of 512 tokens",
    marks=frozenset({"timestamp"}),
    seconds=1e-3,
    block_size=512,
    whole=True,
)
GUIDELLM = HashedFormat(
    name="guidellm",
    about="GuideLLM trace_synthetic and mooncake: timestamp (s, with fractions), hash_ids of 512 tokens",
    marks=frozenset({"timestamp"}),
    seconds=1.0,
    block_size=512,
    whole=False,
)
