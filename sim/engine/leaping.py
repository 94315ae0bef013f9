"""Leaping: many certain steps at once.

A step in which every decoding sequence advances by a token, and no request arrives, finishes or
lacks memory, only changes counters.  All steps up to the next such event are done at once: their
durations are computed, their memory is found, and their telemetry is recorded as the first row plus
the changes from row to row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.engine.plan import MoveKind, Plan
from sim.engine.stretch import LONGEST
from sim.engine.timeline import Timeline

if TYPE_CHECKING:
    from allocators.table import Ints
    from sim.engine.executor import Executor
    from sim.engine.serving import Serving
    from sim.engine.stretch import Stretch


def leap(
    serving: Serving, executor: Executor, now: int, until: float, before: int, *, unhidden: bool
) -> tuple[Ints, int, Stretch] | None:
    """Find times and memory for as many pure-decode steps as are certain.

    Args:
        serving: what is served; nothing prefills, and nothing can be admitted.
        executor: foresees durations.
        now: nanoseconds since the start of the run.
        until: nanoseconds from now; no step may start after that.
        before: nanoseconds of the step before, without those for which it waited for pages.
        unhidden: whether that step hides nothing of what the host does for the next one.

    Returns:
        int64[steps], the nanoseconds of each; their sum; and the memory found for them.  None, with nothing changed,
        if the executor cannot foresee durations, or the first step lacks memory.

    """
    decoding = serving.decoding
    foresight = executor.foresee(serving, min(decoding.soonest(), LONGEST), now)
    if foresight is None:
        return None
    timeline = Timeline(foresight, until, before, unhidden=unhidden)
    done = serving.growing.stretch(timeline)
    if not done.steps:
        return None
    durations = timeline.durations[: done.steps]
    if (done.copies or done.copied) and not serving.allocator.concatenates:  # such a leap is one step long
        plan = Plan(len(decoding), copied_tokens=done.copied)
        plan.move(MoveKind.COPY, done.copies)
        plan.start, plan.unhidden = now, unhidden
        durations[0] = executor.run(plan, serving)
        return durations, int(durations[0]), done
    return durations, timeline.total(done.steps), done
