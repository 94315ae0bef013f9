"""Leaping: many certain steps at once.

A step in which every decoding sequence advances by a token, and no request arrives, finishes or
lacks memory, only changes counters.  All steps up to the next such event are done at once: their
durations are computed, their memory is found, and their telemetry is recorded as the first row plus
the changes from row to row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.engine.plan import MoveKind, Plan
from sim.engine.stretch import LONGEST

if TYPE_CHECKING:
    import numpy.typing as npt

    from sim.engine.executor import Executor
    from sim.engine.serving import Serving
    from sim.engine.stretch import Stretch


def leap(
    serving: Serving, executor: Executor, until: float, before: int, *, unhidden: bool
) -> tuple[npt.NDArray[np.int64], int, Stretch] | None:
    """Find times and memory for as many pure-decode steps as are certain.

    Args:
        serving: what is served; nothing prefills, and nothing can be admitted.
        executor: foresees durations.
        until: nanoseconds from now; no step may start after that.
        before: nanoseconds of the step before, without those for which it waited for pages.
        unhidden: whether that step hides nothing of what the host does for the next one.

    Returns:
        int64[steps], the nanoseconds of each; their sum; and the memory found for them.  None, with nothing changed,
        if the executor cannot foresee durations, or the first step lacks memory.

    """
    decoding = serving.decoding
    foresight = executor.foresee(serving, min(decoding.soonest(), LONGEST))
    if foresight is None:
        return None
    durations = foresight.durations
    if unhidden and foresight.unhidden:
        durations[0] += foresight.unhidden
    steps, ends = len(durations), np.add.accumulate(durations)
    if steps > 1 and int(ends[-2]) >= until:
        steps = 1 + int(ends.searchsorted(until, side="left"))
    done = serving.growing.stretch(
        steps, lambda step, calls: foresight.hides(calls, int(durations[step - 1]) if step else before)
    )
    if not done.steps:
        return None
    durations = durations[: done.steps]
    if (done.copies or done.copied) and not serving.allocator.concatenates:  # such a leap is one step long
        plan = Plan(len(decoding), copied_tokens=done.copied)
        plan.move(MoveKind.COPY, done.copies)
        plan.unhidden = unhidden
        durations[0] = executor.run(plan, serving)
        return durations, int(durations[0]), done
    return durations, int(ends[done.steps - 1]), done
