"""Which settings to change: every single change, then the best ones together, within a budget.

First, the file is run as it is, to find what limits it.  Then each change is tried by itself on the
same requests, so that its effect has a paired interval.  Then the changes that are clearly better, by what is worth
one, are combined, best first; each is kept only if it clearly adds as much.  Because the best of many always
looks better than it is, the choice is finally measured on replications that were not used to choose it
(if requests are drawn at random).

The budget counts simulations, those that an earlier session has left in the directory included, so that the answer
depends neither on that nor on how fast the machine is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.documents import SCHEMA_VERSION
from analysis.planner.binding import bound
from analysis.planner.effects import Effect, effect, mean, share
from analysis.planner.sweeps import bounds
from analysis.stats import t_interval
from sim.errors import UserError
from sim.planner.adviser import Adviser, Tried
from sim.planner.execute import JobRunner
from sim.planner.knobs import Change, changes, hardware
from sim.planner.slo import shortfall
from sim.planner.source import Source
from sim.planner.store import Store
from sim.setup import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sim.planner.backends import Backend
    from sim.planner.execute import BatchProgress
    from sim.planner.grid import Base
    from sim.planner.slo import Objective

BUDGET = 100
LEAST = 3
"""Changes that a budget must have room for: as many as there are of the hardware."""


def advise(
    base: Base,
    place: int,
    aims: Sequence[Objective],
    out: Path,
    backend: Backend,
    *,
    repeats: int = 3,
    budget: int = BUDGET,
    resume: bool = False,
    force: bool = False,
    progress: Callable[[BatchProgress], None] | None = None,
) -> dict[str, Any]:
    """Search the settings of one allocator, and write the directory.

    Args:
        base: the workload.
        place: which of its allocators.
        aims: the SLO; may be empty, then requests that finish count, and then latency.
        out: the directory.
        backend: where jobs are done.
        repeats: replications, as far as they differ.
        budget: simulations at most.
        resume: keep finished simulations of the same workload.
        force: results of something else in `out` give way.
        progress: called after every simulation.

    Returns:
        the summary.

    Raises:
        UserError: the file cannot run, the budget is too small, or `out` holds something else.

    """
    setup, source = prepare(base.workload), Source.of(base.workload, base.traces)
    repeats = source.replications(repeats)
    if budget < (1 + LEAST) * repeats:
        raise UserError(f"--budget {budget}: give at least {(1 + LEAST) * repeats} simulations")
    asked = {"vary": [], "slo": [one.text for one in aims], "allocator": base.labels[place], "budget": budget}
    with Store(out, "advice", base.workload, asked, resume=resume, force=force) as store:
        ask = Adviser(base, place, aims, JobRunner(store, backend, progress), source, repeats, budget)
        ask.begin()
        offered, left_out = changes(setup, place, shared=source.shared)
        offered, never = ask.possible(offered)
        what = ask.before[0]["limits"]
        offered = _by_relevance(offered, bound(what)["name"])
        machine = hardware(setup, place)
        room = max(0, (ask.left - ask.confirming) // ask.repeats - len(machine))
        left_out += never
        left_out += [f"{one.text}: beyond the budget" for one in offered[room:]]
        tried, failed = ask.each([*offered[:room], *machine])
        left_out += [f"{change.text}: {why.why}" for change, why in failed if not why.bug]
        singles = [one for one in tried if one.changes[0] not in machine]
        as_it_is = ask.tried((), ask.before)
        best = _together(ask, as_it_is, singles)
        summary = {
            "schema": SCHEMA_VERSION,
            "allocator": base.labels[place],
            "slo": [one.document for one in aims],
            "repeats": ask.repeats,
            "drawn": source.drawn,
            "basis": tried[0].against.basis if tried else "requests",
            "limits": what,
            "before": _told(ask, as_it_is),
            "changes": [_told(ask, one) for one in singles],
            "hardware": [_told(ask, one) for one in tried if one.changes[0] in machine],
            "best": {**_told(ask, best), "confirmed": _confirm(ask, best)},
            "left_out": left_out,
            "failed": [{"where": change.text, "why": why.why} for change, why in failed if why.bug],
            "simulations": budget - ask.left,
            "budget": budget,
        }
        store.answer(ask.rows, summary)
        return summary


FIRST = {
    "memory": ("kv_dtype", "gpu_memory_utilization", "block_size", "prefix_cache", "watermark", "preemption"),
    "seats": ("max_num_seqs",),
    "compute": ("max_num_batched_tokens", "prefix_cache"),
    "bandwidth": ("kv_dtype", "max_num_seqs"),
}
"""Knobs to try first where a budget is short, by what limits the workload."""


def _by_relevance(offered: Sequence[Change], limit: str) -> list[Change]:
    first = FIRST.get(limit, ())
    return sorted(offered, key=lambda change: first.index(change.knob) if change.knob in first else len(first))


def _together(ask: Adviser, start: Tried, singles: Sequence[Tried]) -> Tried:
    """Put the changes that are clearly better together, best first, while each clearly adds something."""
    better = sorted((one for one in singles if one.against.tells == "better"), key=ask.score, reverse=True)
    best = start
    for one in better:
        if any(change.knob == one.changes[0].knob for change in best.changes):
            continue
        if not best.changes:
            best = one
            continue
        if ask.left < ask.repeats + ask.confirming:
            break
        some = (*best.changes, *one.changes)
        (records,) = ask.run([some])
        if records is not None and effect(best.records, records).tells == "better":
            best = ask.tried(some, records)
    return best


def _confirm(ask: Adviser, best: Tried) -> dict[str, Any] | None:
    """Measure the choice on replications that had no part in it; None where there are none, or nothing was chosen."""
    if not best.changes or not ask.confirming:
        return None
    before, after = ask.run([(), best.changes], begin=ask.repeats)
    if before is None or after is None:
        return None
    return _effect(effect(before, after))


def _told(ask: Adviser, tried: Tried) -> dict[str, Any]:
    """A setting as JSON."""
    values = {
        "good": [share(record) for record in tried.records],
        "latency": [mean(record) for record in tried.records],
        **{one.name: [one.value(record) for record in tried.records] for one in ask.aims},
    }
    return {
        "change": " and ".join(change.text for change in tried.changes),
        "knobs": [change.knob for change in tried.changes],
        "settings": {".".join(map(str, change.axis.places[0])): change.after for change in tried.changes},
        "meets": ask.meets(tried.records),
        "kept_up": all(record["load"]["kept_up"] for record in tried.records),
        "replications": [shortfall(record, ask.aims) for record in tried.records],
        "figures": {name: bounds(t_interval(np.array(some))) for name, some in values.items()},
        "effect": _effect(tried.against),
    }


def _effect(of: Effect) -> dict[str, Any]:
    return {"good": bounds(of.good), "latency": bounds(of.latency), "tells": of.tells, "basis": of.basis}
