"""The findings of a validation about one run, and whether they are as they should be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from allocators.cuda_caching import round_size, segment_size
from sim.decode.trace import first_difference
from sim.engine.plan import MoveKind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from allocators.base import Allocator
    from sim.case import Case
    from sim.decode.numerics import Numerics
    from sim.decode.runtime import Runtime
    from sim.decode.trace import Step

MEMORY_TOLERANCE = 0.02
"""Share by which simulated and measured peaks of the CUDA caching allocator may differ."""
TABLES = ("steps", "requests", "blocks")


@dataclass
class Decisions:
    """Whether a simulation under the measured clock decides as the real run did."""

    steps: int = 0
    difference: str | None = None
    """The first step in which plans, block tables or counts differ."""
    telemetry: str | None = None
    """The table that a simulation which leaps wrote otherwise."""

    @property
    def passed(self) -> bool:
        """Whether nothing differs."""
        return self.difference is None and self.telemetry is None

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "passed": self.passed,
            "steps": self.steps,
            "first_difference": self.difference,
            "telemetry_difference": self.telemetry,
        }


@dataclass
class Memory:
    """Whether the memory that a run took is what was simulated.  Bytes."""

    kind: str
    """`pool`: blocks of one tensor; `tensors`: a K and a V tensor a layer of each sequence; `none`."""
    simulated: dict[str, int] = field(default_factory=dict)
    measured: dict[str, int] = field(default_factory=dict)
    """Empty where it cannot be measured: the caching allocator is CUDA's."""
    tolerance: float = 0.0
    slack: dict[str, int] = field(default_factory=dict)
    """By name: what a figure may be off by where the tolerance is less, because it comes in pieces of that size."""

    @property
    def errors(self) -> dict[str, float]:
        """(simulated - measured) / measured, by name."""
        return {name: self.simulated[name] / max(1, size) - 1 for name, size in self.measured.items()}

    @property
    def passed(self) -> bool:
        """Whether every figure that could be measured is within the tolerance, or the slack."""
        return all(
            abs(self.simulated[name] - size) <= max(self.tolerance * size, self.slack.get(name, 0))
            for name, size in self.measured.items()
        )

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "passed": self.passed,
            "kind": self.kind,
            "simulated": self.simulated,
            "measured": self.measured or None,
            "errors": self.errors,
            "tolerance": self.tolerance,
            "slack": self.slack,
        }


@dataclass
class Finding:
    """All that is found about one run."""

    label: str
    kind: str
    scheduler: str
    preemption: str
    backend: str = ""
    numerics: Numerics | None = None
    decisions: Decisions = field(default_factory=Decisions)
    memory: Memory = field(default_factory=lambda: Memory("none"))
    exercised: dict[str, int] = field(default_factory=dict)
    """How often each mechanism was put to work."""
    can_swap: bool = False
    """Whether the allocator has room on the host."""
    decoding_s: float = 0.0
    """Sum of the step times."""
    stopped: str | None = None
    """Why the run ended early, and what the ledger was then."""

    @property
    def passed(self) -> bool:
        """Whether the run finished and every check holds."""
        numerics = self.numerics is not None and self.numerics.passed
        return self.stopped is None and numerics and self.decisions.passed and self.memory.passed

    @property
    def name(self) -> str:
        """What the run is called: an allocator may run under either kind of preemption."""
        return f"{self.label}, {self.preemption}" if self.can_swap else self.label

    @property
    def twice(self) -> bool:
        """Whether the other kind of preemption is worth a run of its own: there was need of it, and it can be done."""
        return self.can_swap and bool(self.exercised.get("preemptions"))

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "label": self.label,
            "kind": self.kind,
            "scheduler": self.scheduler,
            "preemption": self.preemption,
            "backend": self.backend,
            "passed": self.passed,
            "stopped": self.stopped,
            "numerics": None if self.numerics is None else self.numerics.as_json(),
            "decisions": self.decisions.as_json(),
            "memory": self.memory.as_json(),
            "exercised": self.exercised,
            "decoding_s": round(self.decoding_s, 6),
        }


def exercised(steps: Sequence[Step]) -> dict[str, int]:
    """Count what a run put to work."""
    moves = [kind for step in steps for kind, _, _ in step.moves]
    counts = {
        "steps": len(steps),
        "steps_with_prefill_and_decode": sum(bool(step.decodes and step.chunks) for step in steps),
        "prefill_chunks": sum(len(step.chunks) for step in steps),
        "prefix_hit_tokens": sum(
            start for step in steps for request, _, start, _ in step.chunks if request in step.admitted
        ),
        "preemptions": sum(len(step.preempted) for step in steps),
        "most_tokens_left_behind_by_a_window": max((step.usage.dropped for step in steps), default=0),
        "most_tokens_shared": max((step.usage.saved for step in steps), default=0),
    }
    names = {MoveKind.COPY: "blocks_copied", MoveKind.OUT: "blocks_swapped_out", MoveKind.IN: "blocks_swapped_in"}
    return counts | {name: moves.count(kind.value) for kind, name in names.items()}


def memory_of(runtime: Runtime, case: Case, allocator: Allocator) -> Memory:
    """Hold what a run's K/V took against what is simulated of it; where tensors lie is yet to be simulated."""
    pool = case.pool
    if runtime.store is not None:
        store = runtime.store
        measured = {"pool_bytes": store.pool_bytes, "blocks": store.num_blocks, "block_bytes": store.block_bytes}
        simulated = {
            "pool_bytes": pool.num_blocks * pool.block_bytes,
            "blocks": allocator.num_blocks,
            "block_bytes": pool.block_bytes,
        }
        return Memory("pool", simulated, measured)
    if not allocator.concatenates:
        return Memory("none")
    names = ("peak_allocated", "peak_reserved")
    meter, measured = runtime.meter, {}
    if meter is not None and not case.spec.options.get("expandable_segments"):  # PyTorch fixes that when it starts
        measured = {name: int(getattr(meter, name)) for name in names}
    longest = int(runtime.transcript.stride.max()) * int(case.facts["tensor_token_bytes"] or 0)
    slack = {"peak_reserved": segment_size(round_size(longest))}
    return Memory("tensors", dict.fromkeys(names, 0), measured, MEMORY_TOLERANCE, slack)


def decisions_of(measured: Sequence[Step], replayed: Sequence[Step], folders: tuple[Path, Path]) -> Decisions:
    """Compare a run's decisions with those of its replay, step by step, and its telemetry with a leaping replay's.

    Args:
        measured: of the real run.
        replayed: of the simulation under its clock.
        folders: where the real run and the simulation that leapt have their tables.

    """
    return Decisions(len(measured), first_difference(measured, replayed), _different_table(*folders))


def _different_table(measured: Path, leapt: Path) -> str | None:
    for name in TABLES:
        one, other = (folder / f"{name}.parquet" for folder in (measured, leapt))
        if one.exists() != other.exists() or (one.exists() and not pq.read_table(one).equals(pq.read_table(other))):
            return name
    return None
