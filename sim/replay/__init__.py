"""Replaying recordings of real engines with kvsim's code, and comparing every answer.

The first line of a recording says what it is:

| first line has              | engine                       | ours                            |
|-----------------------------|------------------------------|---------------------------------|
| `engine: sglang-...`        | SGLang's RadixCache          | `allocators.radix`              |
| `engine: vllm-0...`         | vLLM 0.6.6's block manager   | `allocators.paged`: fork, swap  |
| `max_num_batched_tokens`    | vLLM's V1 scheduler          | the engine that `run` uses      |
| none of these               | vLLM's V1 KVCacheManager     | `allocators.paged`: prefix cache|
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sim.replay.blocks import BlocksReplay
from sim.replay.legacy import LegacyReplay
from sim.replay.radix import RadixReplay
from sim.replay.recording import Difference, Recording, Replay
from sim.replay.schedule import ScheduleReplay

__all__ = ["Difference", "ReplayResult", "replay"]


@dataclass(frozen=True)
class ReplayResult:
    """What came of replaying some recordings."""

    files: int
    ops: int
    """Operations, or steps of a scheduler."""
    differences: int
    """Fields of answers that are not the engine's."""
    first_difference: Difference | None
    explained: Sequence[str] = ()
    """Answers that differ for a reason that is known and right, one line each."""


def replay(paths: Iterable[Path]) -> ReplayResult:
    """Replay recordings, each against what it was recorded from.

    Raises:
        UserError: a file cannot be read, or is no such recording.

    """
    reports = [replayer(Recording(path)).run() for path in paths]
    differences = [difference for report in reports for difference in report.differences]
    return ReplayResult(
        files=len(reports),
        ops=sum(report.ops for report in reports),
        differences=len(differences),
        first_difference=differences[0] if differences else None,
        explained=[line for report in reports for line in report.explained],
    )


def replayer(recording: Recording) -> Replay:
    """Choose what a recording is replayed against.

    Raises:
        UserError: its configuration is of no engine that is known here.

    """
    engine = str(recording.config.get("engine", "vllm"))
    with recording.faults():
        if engine.startswith("sglang"):
            return RadixReplay(recording)
        if engine.startswith("vllm-0"):
            return LegacyReplay(recording)
        if not engine.startswith("vllm"):
            raise recording.error(f"unknown engine {engine}; known: vllm, vllm-0.6.6, sglang-0.5.23")
        return ScheduleReplay(recording) if "max_num_batched_tokens" in recording.config else BlocksReplay(recording)
