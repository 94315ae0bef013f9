"""Records what a run decided, step by step, and replays its clock to a simulation that must decide the same.

`Recorded` wraps an executor and writes down every plan, a fingerprint of the whole block table as the
step found it, and how long the step took.  `Replayed` is an executor that answers with those times.  A
simulation that uses it sees the clock of the real run, so wherever plans or block tables differ,
simulation and execution differ.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from sim.engine.executor import Executor
from sim.engine.timeline import Foresight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocators.answers import Mappings, Usage
    from sim.engine.loop import Engine
    from sim.engine.plan import Plan
    from sim.engine.serving import Serving

Ints = npt.NDArray[np.int64]


class Step(NamedTuple):
    """One step's decisions."""

    decodes: tuple[tuple[int, int, int], ...]
    """(request, row, tokens in the cache) of each sequence that decodes, in order."""
    chunks: tuple[tuple[int, int, int, int], ...]
    """(request, row, start, tokens) of each prefill chunk, in order."""
    admitted: tuple[int, ...]
    """Requests taken from the queue."""
    preempted: tuple[int, ...]
    """Requests that lost their memory."""
    moves: tuple[tuple[str, int, int], ...]
    """(kind, source, target) of each block moved, in order."""
    table: bytes
    """Fingerprint of the block table and the number of blocks in each row."""
    usage: Usage
    """What the allocator counts."""


class Recorded(Executor):
    """Runs plans on another executor and writes down what it was asked and what it answered."""

    def __init__(self, executor: Executor) -> None:
        """Record what `executor` does."""
        self._executor: Executor | None = executor
        self.steps: list[Step] = []
        self.durations: list[int] = []
        """Nanoseconds."""

    def run(self, plan: Plan, serving: Serving) -> int:
        """Write the plan down, then run it."""
        if self._executor is None:
            raise RuntimeError("the run is over")
        self.steps.append(step_of(plan, serving))
        duration = self._executor.run(plan, serving)
        self.durations.append(duration)
        return duration

    def close(self) -> None:
        """Let go of the executor, and of the K/V that it holds; what was written down stays."""
        self._executor = None


class Replayed(Executor):
    """Answers with the durations of an earlier run, by the number of the step that the engine has come to."""

    def __init__(self, durations: Sequence[int]) -> None:
        """Replay `durations`, in nanoseconds."""
        self._durations = np.array(durations, np.int64)
        self._engine: Engine | None = None

    def follow(self, engine: Engine) -> None:
        """Answer this engine, from its first step on."""
        self._engine = engine

    def run(self, plan: Plan, serving: Serving) -> int:
        """Say how long this step took."""
        ahead = self.foresee(serving, 1, plan.start).durations
        if not len(ahead):
            raise DivergedError(f"the run being replayed ended after {len(self._durations)} steps, this one goes on")
        return int(ahead[0])

    def foresee(self, serving: Serving, steps: int, now: int) -> Foresight:
        """Say how long the next steps took, as far as the run went."""
        if self._engine is None:
            raise DivergedError("no engine is followed")
        return Foresight(self._durations[self._engine.steps :][:steps], _hides)


def _hides(calls: Mappings, before: int) -> int:  # noqa: ARG001 - what was measured includes all of them
    return 0


class DivergedError(Exception):
    """A replay does not follow the run it replays."""


def step_of(plan: Plan, serving: Serving) -> Step:
    """Write down what a plan decides."""
    decoding, table = serving.decoding, serving.allocator.table
    owners = decoding.owners[: plan.decodes]
    columns = (decoding.column(which)[: plan.decodes].tolist() for which in (decoding.ROW, decoding.LENGTH))
    fingerprint = blake2b(table.blocks.tobytes(), digest_size=16)
    fingerprint.update(table.count.tobytes())
    return Step(
        decodes=tuple((job.index, row, length) for job, row, length in zip(owners, *columns, strict=True)),
        chunks=tuple((job.index, int(job.rows[0]), start, tokens) for job, start, tokens in plan.chunks),
        admitted=tuple(job.index for job in plan.admitted),
        preempted=tuple(job.index for job in plan.preempted),
        moves=tuple((move.kind.value, move.source, move.target) for move in plan.moves),
        table=fingerprint.digest(),
        usage=serving.allocator.usage(),
    )


def first_difference(one: Sequence[Step], other: Sequence[Step]) -> str | None:
    """Say where two runs first decide differently, or None if they never do."""
    for number, (mine, yours) in enumerate(zip(one, other, strict=False)):
        if mine != yours:
            field = next(name for name in Step._fields if getattr(mine, name) != getattr(yours, name))
            return f"step {number}: {field} {_short(getattr(mine, field))} against {_short(getattr(yours, field))}"
    if len(one) != len(other):
        return f"{len(one)} steps against {len(other)}"
    return None


def _short(value: object) -> str:
    text = value.hex() if isinstance(value, bytes) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
