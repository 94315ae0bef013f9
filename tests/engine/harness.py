"""What the engine's tests share: a sink in memory, a clock with round numbers, and small set-ups in words."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache, partial
from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np

from allocators import registry
from allocators.content import Segments
from allocators.options import Value, resolve
from analysis.observed import SHARES
from sim.engine.executor import Executor
from sim.engine.loop import Engine, Outcome
from sim.engine.timeline import Foresight
from sim.limits import Limits
from sim.reference import ReferenceEngine
from sim.schedulers import SCHEDULERS
from sim.serve import contents
from tests.conformance.cases import repeated
from workloads.requests import Requests

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from allocators.answers import Mappings, Measure
    from allocators.base import Allocator
    from sim.engine.plan import Plan
    from sim.engine.serving import Serving

MS = 1_000_000
"""Nanoseconds."""


class Memory:
    """A sink that keeps the tables as lists."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, list[Any]]] = {}

    def write(self, table: str, columns: Mapping[str, Any]) -> None:
        kept = self.tables.setdefault(table, defaultdict(list))
        for name, column in columns.items():
            kept[name] += _values(column)

    def rows(self, table: str) -> list[dict[str, Any]]:
        columns = self.tables[table]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _values(column: Any) -> list[Any]:
    if not isinstance(column, tuple):
        values: list[Any] = column.tolist()
        return ["nan" if isinstance(value, float) and isnan(value) else value for value in values]  # equal to itself
    first, second = column
    if isinstance(second, np.ndarray):
        return [second[a:b].tolist() for a, b in zip(first[:-1].tolist(), first[1:].tolist(), strict=True)]
    return [str(second[code]) for code in first.tolist()]


@dataclass(frozen=True)
class Clock(Executor):
    """An executor with round numbers."""

    step: int = 1
    """Milliseconds of any step; what follows adds nanoseconds."""
    token: int = 0
    """For each token computed."""
    context: int = 0
    """For each token attended to by a decode."""
    again: int = 0
    """Less for each of them that is read again."""
    prompt: int = 0
    """For each prompt whose last token is computed."""
    copied: int = 0
    """For each token copied."""
    swapped: int = 0
    """For each block moved over PCIe."""
    mapped: int = 0
    """For each page mapped; a tenth of it for each page unmapped; as many as fit into a thousandth of the step
    before are free if they were foreseen."""
    behind: int = 0
    """For a step with chunks right after one of decodes alone, and for each microsecond of that one."""
    unhidden: int = 0
    """For a step if no step before hides what the host does for it, as none with chunks does of more than 8 tokens."""
    warm: int = 0
    """For a step that starts sooner: a hundredth of the nanoseconds by which it does."""
    foresees: bool = True
    """Whether the engine may leap."""

    def run(self, plan: Plan, serving: Serving) -> int:
        decoding = serving.decoding
        known = int(decoding.column(decoding.LENGTH)[: plan.decodes].sum()) + plan.decodes
        rows = decoding.column(decoding.ROW)[: plan.decodes].tolist()
        again = serving.repeated(plan.decodes)
        assert again == repeated(serving.allocator, rows), "what decodes share is counted as the block table has it"
        tokens = plan.decodes + sum(chunk.tokens for chunk in plan.chunks)
        done = sum(chunk.job.known == chunk.start + chunk.tokens for chunk in plan.chunks)
        moves = plan.copied_tokens * self.copied + plan.swapped_blocks * self.swapped
        calls = plan.mappings
        ahead = calls.mapped_ahead * self.mapped + calls.unmapped_ahead * self.mapped // 10
        plan.hidden = min(ahead, plan.before // 10**3)
        plan.exposed = calls.mapped * self.mapped + calls.unmapped * self.mapped // 10 - plan.hidden
        moves += plan.exposed
        if plan.behind and plan.chunks:
            moves += self.behind * (1 + plan.behind // 1000)
        moves -= again * self.again
        moves += self.unhidden * plan.unhidden + self.warmth(plan.start)
        plan.waited = bool(plan.chunks) and tokens > 8
        return self.step * MS + tokens * self.token + known * self.context + done * self.prompt + moves

    def warmth(self, start: int) -> int:
        return max(0, self.warm - start) // 100

    def foresee(self, serving: Serving, steps: int, now: int) -> Foresight | None:
        if not self.foresees:
            return None
        durations = self.rested(serving, np.arange(1, steps + 1))

        def warm(step: int, start: int) -> int | None:
            warmth = self.warmth(now + start)
            return int(durations[step - 1]) + warmth if warmth else None

        waits = partial(self.waits, serving, now)
        return Foresight(durations.copy(), self.hides, self.unhidden, waits, warm if self.warmth(now) else None)

    def rested(self, serving: Serving, ahead: Any) -> Any:
        count = len(serving.decoding)
        known = serving.context + count * ahead
        copied = known - count if serving.allocator.concatenates else 0
        durations = self.step * MS + count * self.token + known * self.context + copied * self.copied
        return durations - serving.repeated(count) * self.again

    def hides(self, calls: Mappings, before: int) -> int | None:
        ahead = calls.mapped_ahead * self.mapped + calls.unmapped_ahead * self.mapped // 10
        every = calls.mapped * self.mapped + calls.unmapped * self.mapped // 10
        return ahead if every == ahead <= before // 10**3 else None

    def waits(
        self, serving: Serving, now: int, step: int, start: int, calls: Mappings, before: int
    ) -> tuple[int, int, int]:
        every = calls.mapped * self.mapped + calls.unmapped * self.mapped // 10
        hidden = min(calls.mapped_ahead * self.mapped + calls.unmapped_ahead * self.mapped // 10, before // 10**3)
        exposed = every - hidden
        return hidden, exposed, self.rested(serving, step) + self.warmth(now + start) + exposed


def blocks(measure: Measure, slots: int) -> int:
    """Count the blocks of a pool with room for the K/V of at least `slots` tokens, in whole pages."""
    page = measure.block_size * measure.multiple
    return -(-slots * measure.token_slots // page) * measure.multiple


@cache
def family(kind: str) -> type[Allocator]:
    """Find a kind of allocator; the registry reads what is installed every time it is asked."""
    return registry.find(kind)


@dataclass(frozen=True)
class Setup:
    """All that a run depends on."""

    scheduler: str = "vllm-v1"
    limits: Limits = field(default_factory=Limits)
    kind: str = "paged"
    slots: int = 64
    """Tokens whose K/V fits in the pool, rounded up to blocks."""
    options: Mapping[str, Value] = field(default_factory=dict)
    facts: Mapping[str, int] = field(default_factory=dict)
    clock: Executor = Clock()
    swap: bool = False
    instants: int | None = 16
    horizon_s: float | None = None

    def allocator(self) -> Allocator:
        cls = family(self.kind)
        measure = cls.measure(resolve(self.kind, cls.options, self.options, self.facts))
        return cls.from_options(
            num_blocks=blocks(measure, self.slots),
            max_model_len=self.limits.max_model_len,
            max_rows=4,
            facts=self.facts,
            **self.options,
        )

    def run(self, requests: Requests, *, reference: bool = False, leaps: bool = True) -> tuple[Outcome, Memory]:
        sink = Memory()
        more: dict[str, Any] = {} if reference else {"leaps": leaps}
        make = ReferenceEngine if reference else Engine
        engine = make(
            requests,
            unnoted(requests) if reference else contents(requests),
            self.allocator(),
            SCHEDULERS[self.scheduler](self.limits),
            self.clock,
            sink,
            seed=7,
            swap=self.swap,
            instants=self.instants,
            horizon_s=self.horizon_s,
            **more,
        )
        return engine.run(), sink


def unnoted(requests: Requests) -> Any:
    """Make what a run makes of the requests' prefixes, without a note of which contents nobody else has."""
    prefixes = requests.prefixes
    if prefixes is None:
        return lambda index: Segments([], index)
    return lambda index: Segments(prefixes.pieces(index), int(prefixes.outputs[index]))


def ask(*rows: Sequence[float]) -> Requests:
    """Make requests from rows of (arrival in ms, prompt, output[, samples])."""
    arrival, prompt, output, samples = zip(*((*row, 1)[:4] for row in rows), strict=True)
    return Requests(
        np.array(arrival) / 1e3,
        np.array(prompt, np.int64),
        np.array(output, np.int64),
        np.array(samples, np.int64) if max(samples) > 1 else np.zeros(0, np.int64),
    )


def differences(one: Memory, other: Memory) -> list[str]:
    """Say where two runs differ: the first rows of each table that do."""
    found = []
    for table in ("steps", "requests", "events", "blocks"):
        ours, theirs = one.rows(table), other.rows(table)
        for number, (mine, yours) in enumerate(zip(ours, theirs, strict=False)):
            if mine != yours:
                found.append(
                    f"{table}[{number}]: "
                    + ", ".join(
                        f"{name} {mine.get(name)} != {yours.get(name)}"
                        for name in mine
                        if mine.get(name) != yours.get(name)
                    )
                    + f" in {mine}"
                )
                break
        if len(ours) != len(theirs):
            found.append(f"{table}: {len(ours)} rows != {len(theirs)} rows")
    return found


def audit(setup: Setup, outcome: Outcome, sink: Memory, count: int) -> None:
    """Check what is true of every run, whatever ran."""
    steps, requests = sink.rows("steps"), sink.rows("requests")
    capacity = setup.allocator().capacity
    for row in steps:
        shares = [row[name] for name in SHARES]
        assert sum(shares) == capacity, row
        assert min(shares) >= 0, row
        assert min(row["shared_savings"], row["swapped"], row["waiting"], row["running"]) >= 0, row
        assert row["duration_s"] > 0, row
        assert row["gap_tokens"] <= row["decode_tokens"] <= row["running"] <= setup.limits.max_num_seqs, row
    assert sum(row["preemptions"] for row in steps) == sum(row["preemptions"] for row in requests)
    now = 0
    for row in steps:
        assert round(row["start_s"] * 1e9) == now, row
        now += round(row["duration_s"] * 1e9)
    assert outcome.end_s == now / 1e9
    assert outcome.finished + outcome.refused + outcome.unfinished == len(requests) <= count, (
        "every request that arrived is accounted for"
    )
    assert [row["status"] for row in requests].count("finished") == outcome.finished
    if not SCHEDULERS[setup.scheduler].holds_finished and all(row["samples"] == 1 for row in requests):
        littles_law(steps, requests, now)


def littles_law(steps: Sequence[Mapping[str, Any]], requests: Sequence[Mapping[str, Any]], end: int) -> None:
    """Check that the integral of the number in the system is the sum of the times in it, to the nanosecond."""
    served = [row for row in requests if row["status"] != "refused"]
    arrivals = [round(row["arrival_s"] * 1e9) for row in served]
    ends = [end if row["finish_s"] == "nan" else round(row["finish_s"] * 1e9) for row in served]
    integral = 0
    for row in steps:
        start, stop = (round(each * 1e9) for each in (row["start_s"], row["start_s"] + row["duration_s"]))
        inside = row["running"] + row["waiting"]
        assert inside == sum(arrival <= start for arrival in arrivals) - sum(leaving <= start for leaving in ends), row
        integral += inside * (stop - start) + sum(stop - arrival for arrival in arrivals if start < arrival < stop)
    assert integral == sum(leaving - arrival for arrival, leaving in zip(arrivals, ends, strict=True))
