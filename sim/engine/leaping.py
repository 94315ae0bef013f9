"""Leaping: many certain steps at once.

A step in which every decoding sequence advances by a token, and nobody arrives, finishes or
lacks memory, changes nothing but counters.  All steps up to the next such event are done in
one call of `Allocator.advance` and a few NumPy operations, and leave the same rows behind as
so many single steps would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from sim.engine.plan import MoveKind, Plan
from sim.telemetry import Step, step_row

if TYPE_CHECKING:
    from allocators.base import Leap
    from sim.engine.executor import Executor
    from sim.engine.serving import Serving

    Ints = npt.NDArray[np.int64]

LONGEST = 4096
"""Steps a leap; bounds its arrays."""


class Leapt(NamedTuple):
    """Steps that were leapt over, as rows for the log."""

    steps: int
    duration: int
    """Nanoseconds from the start of the first to the end of the last."""
    first: Step
    durations: Ints
    """int64[steps]"""
    changes: dict[str, Ints]
    """Columns in which the rows differ from `first`."""


def leap(serving: Serving, executor: Executor, first: Step, until: float) -> Leapt | None:
    """Do as many pure-decode steps as are certain, and count their tokens in `serving`.

    Args:
        serving: nothing prefills, and the queue cannot move.
        executor: foresees durations.
        first: row of the first step, of which number, start and gap before it are filled in.
        until: nanoseconds from now after which no step may start.

    Returns:
        None if the executor cannot foresee, or the first step lacks memory; nothing has changed then.

    """
    decoding = serving.decoding
    count, left = len(decoding), decoding.column(decoding.LEFT)
    durations = executor.foresee(serving, min(int(left.min()), LONGEST))
    if durations is None:
        return None
    steps = 1 + int(durations[:-1].cumsum().searchsorted(until, side="left"))
    done = serving.allocator.advance(decoding.column(decoding.ROW), decoding.column(decoding.LENGTH), steps)
    steps = done.steps
    if not steps:
        return None
    durations = durations[:steps]
    if (done.copies or done.copied) and not serving.allocator.concatenates:  # such a leap is one step long
        plan = Plan(count, copied_tokens=done.copied)
        plan.move(MoveKind.COPY, done.copies)
        durations[0] = executor.run(plan, serving)
    internal = _internal(serving, done)
    changes = _clock(first, durations)
    if done.evicted is not None and done.evicted.any():
        changes["evicted"] = done.evicted
    first = step_row(first, serving, serving.ledger(ahead=count), decode_tokens=count, gap_tokens=count)
    if not serving.allocator.recomputes:
        changes |= _shares(serving, done, internal, first)
    serving.tokens += count * steps
    serving.context += count * steps
    return Leapt(steps, int(durations.sum()), first, durations, changes)


def _internal(serving: Serving, done: Leap) -> Ints:
    """Slots that will never be used, after each step, as sequences come to hold more; kept in `serving` too."""
    decoding = serving.decoding
    internal = np.full(done.steps, serving.internal)
    if len(done.who):
        final = (decoding.column(decoding.LENGTH) + decoding.column(decoding.LEFT))[done.who]
        over = np.zeros(done.steps, np.int64)
        np.add.at(over, done.when, np.maximum(done.slots - final, 0))
        internal += over.cumsum()
        decoding.column(decoding.SLOTS)[done.who] = done.slots
        serving.internal = int(internal[-1])
    return internal


def _clock(first: Step, durations: Ints) -> dict[str, Ints]:
    """Number, start, length and token gap of each step."""
    steps = len(durations)
    starts = np.full(steps, first.start)
    starts[1:] += durations[:-1].cumsum()
    gaps = durations.copy()
    gaps[0] += first.gap
    return {"step": first.step + np.arange(steps), "start": starts, "duration": durations, "gap": gaps}


def _shares(serving: Serving, done: Leap, internal: Ints, first: Step) -> dict[str, Ints]:
    """Columns of the ledger: what the allocator holds and the tokens grow, all else stays as in `first`."""
    allocator, usage, spent = serving.allocator, serving.allocator.usage(), serving.spent()
    tokens = serving.tokens + len(serving.decoding) * np.arange(1, done.steps + 1)
    live = allocator.token_slots * tokens + usage.states - usage.saved - usage.dropped - spent
    internal = allocator.token_slots * internal + spent
    rounding = np.full(done.steps, usage.rounding) if done.rounding is None else done.rounding
    free = allocator.capacity - done.held - done.cached - first.external
    return {
        "live": live,
        "internal": internal,
        "reserved": done.held - rounding - live - internal,
        "rounding": rounding,
        "cached": done.cached,
        "free": free,
        "largest_hole": first.largest_hole + free - free[-1],
    }
