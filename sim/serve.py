"""Serving requests with one allocator: the engine, assembled with everything it needs."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

from allocators.content import Segments
from allocators.errors import AllocatorError
from allocators.registry import BUILT_IN
from sim.engine.executor import Simulated
from sim.engine.jobs import StalledError
from sim.engine.loop import Engine
from sim.errors import UserError
from sim.schedulers import SCHEDULERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from allocators.base import Allocator
    from allocators.content import Content
    from sim.case import Case
    from sim.engine.executor import Executor
    from sim.engine.telemetry import Sink
    from sim.setup import Setup
    from workloads.requests import Requests

    Executing = Callable[[Setup, Case, Requests, Allocator, Sink], AbstractContextManager[tuple[Executor, Sink]]]
    """Makes the executor of one run and the sink that its telemetry takes on the way to the one that is given, and
    takes both apart when the run is over."""


class Progress(NamedTuple):
    """How far a run has come."""

    label: str
    repeat: int
    done: int
    """Requests finished or refused."""
    total: int


def serve(
    setup: Setup,
    case: Case,
    requests: Requests,
    sink: Sink,
    *,
    progress: Callable[[int], None] | None = None,
    leaps: bool = True,
    executing: Executing | None = None,
) -> None:
    """Let one allocator serve requests; what it did goes to `sink`.

    Raises:
        UserError: an allocator of somebody else's, which is checked at the end, miscounts or lets nothing go on, or a
            scheduler of somebody else's lets nothing go on or asks for what no allocator grants.

    """
    allocator = case.allocator(shared_prefixes=requests.prefixes is not None)
    make = executing or simulated
    try:
        with make(setup, case, requests, allocator, sink) as (executor, telemetry):
            engine_of(setup, case, requests, allocator, executor, telemetry, leaps=leaps).run(progress)
        if case.spec.kind not in BUILT_IN:
            allocator.check()
    except (AllocatorError, StalledError) as error:
        strangers = [f"allocator {case.spec.kind}"] * (case.spec.kind not in BUILT_IN)
        strangers += [f"scheduler {case.scheduler}"] * (case.scheduler not in SCHEDULERS)
        if not strangers:
            raise
        they = "it" if len(strangers) == 1 else "they"
        raise UserError(f"{' and '.join(strangers)}: {error}; tests/conformance tests what {they} must do") from error


def engine_of(
    setup: Setup,
    case: Case,
    requests: Requests,
    allocator: Allocator,
    executor: Executor,
    sink: Sink,
    *,
    leaps: bool = True,
) -> Engine:
    """Make the engine that a workload asks for, which has not started."""
    workload = setup.workload
    return Engine(
        requests,
        contents(requests),
        allocator,
        case.make_scheduler(),
        executor,
        sink,
        seed=workload.seed,
        swap=case.preemption == "swap",
        instants=workload.telemetry.snapshots,
        horizon_s=workload.horizon_s,
        leaps=leaps,
    )


def simulated(
    setup: Setup, case: Case, _: Requests, allocator: Allocator, sink: Sink
) -> AbstractContextManager[tuple[Executor, Sink]]:
    """Make an executor that asks the cost model; what it says needs no correction."""
    cost = setup.cost(allocator)
    return nullcontext((Simulated(cost, recomputes=allocator.recomputes, block_bytes=case.pool.block_bytes), sink))


def contents(requests: Requests) -> Callable[[int], Content]:
    """Return what makes the content of request i, once: the pieces of its prompt, or one piece of its own."""
    prefixes = requests.prefixes
    if prefixes is None:
        return lambda index: Segments([], index, sole=not len(requests.samples))
    outputs = prefixes.outputs
    return lambda index: Segments(prefixes.pieces(index), int(outputs[index]))
