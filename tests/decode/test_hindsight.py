"""Times set right afterwards: steps of known length, told wrongly and a step late, as `sim.decode.pace` does."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sim.decode.hindsight import Hindsight
from sim.engine.executor import Executor
from sim.serve import serve
from sim.setup import prepare
from tests.decode.room import workload
from tests.engine.harness import Memory
from workloads.generate import requests as make_requests

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from allocators.base import Allocator
    from sim.case import Case
    from sim.engine.plan import Plan
    from sim.engine.serving import Serving
    from sim.engine.telemetry import Sink
    from sim.setup import Setup
    from workloads.requests import Requests

MS = 1_000_000


class Late(Executor):
    """A device whose steps take 1 to 2 ms; the clock is told 1.5 ms, and what the step before was off by."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._ahead = 0
        self.took: list[int] = []
        self.ahead: list[int] = []

    def run(self, plan: Plan, serving: Serving) -> int:
        told = 3 * MS // 2 - self._ahead
        self.took.append(int(self._rng.integers(MS, 2 * MS)))
        self._ahead += told - self.took[-1]
        self.ahead.append(self._ahead)
        return told

    def errors(self) -> npt.NDArray[np.int64]:
        return np.array(self.ahead, np.int64)


def served(executor: Late, rate: float, **changes: object) -> tuple[Memory, Memory]:
    """Serve a workload; returns the tables as the engine wrote them and as they were passed on."""
    written, passed = Memory(), Memory()

    class Both:
        def __init__(self, sink: Sink) -> None:
            self.sink = Hindsight(sink, executor.errors)

        def write(self, table: str, columns: dict[str, object]) -> None:
            written.write(table, columns)
            self.sink.write(table, columns)

    @contextmanager
    def executing(_: Setup, __: Case, ___: Requests, ____: Allocator, sink: Sink) -> Iterator[tuple[Late, Both]]:
        yield executor, Both(sink)

    requests = {"count": 40, "arrivals": {"kind": "poisson", "rate": rate}}
    setup = prepare(workload("tiny-llama", {"kind": "paged", "block_size": 4}, requests=requests, **changes))
    serve(setup, setup.cases[0], make_requests(setup.workload), passed, executing=executing)
    return written, passed


@pytest.mark.parametrize("rate", [5.0, 60.0, 1000.0], ids=["much idle", "some idle", "busy"])
@pytest.mark.parametrize("kv_kib", [2048, 70], ids=["roomy", "tight"])
def test_every_step_took_what_it_took(rate: float, kv_kib: float) -> None:
    executor = Late(seed=4)
    written, passed = served(executor, rate, kv_kib=kv_kib)
    before, after = written.rows("steps"), passed.rows("steps")
    busy = [row["running"] > 0 for row in after]
    took = [row["duration_s"] for row in after if row["running"]]
    assert len(took) == len(executor.took) == len(executor.ahead)
    assert took == pytest.approx(np.array(executor.took) / 1e9, abs=1.5e-9)
    assert [row["duration_s"] for row in before if row["running"]] != pytest.approx(took, abs=1e-4)
    for one, other, works in zip(after, after[1:], busy, strict=False):
        begins = one["start_s"] + one["duration_s"]
        assert begins == pytest.approx(other["start_s"], abs=2e-9) or not works or not other["running"]
    assert all(row["gap_s"] == 0 for row in after if not row["gap_tokens"])
    assert before != after
    assert [{**row, "start_s": 0, "duration_s": 0, "gap_s": 0} for row in before] == [
        {**row, "start_s": 0, "duration_s": 0, "gap_s": 0} for row in after
    ]


def test_tokens_come_when_their_step_ended() -> None:
    executor = Late(seed=3)
    written, passed = served(executor, 300, kv_kib=70)
    ends = {round((row["start_s"] + row["duration_s"]) * 1e9) for row in passed.rows("steps")}
    before, after = written.rows("requests"), passed.rows("requests")
    for moment in ("first_token_s", "finish_s"):
        assert {round(row[moment] * 1e9) for row in after} <= ends
        assert [row[moment] for row in before] != [row[moment] for row in after]
    assert all(row["arrival_s"] <= row["scheduled_s"] < row["first_token_s"] for row in after)
    assert [row["arrival_s"] for row in before] == [row["arrival_s"] for row in after]
    events = passed.rows("events")
    assert any(row["event"] == "preempt" for row in events)
    assert {round(row["time_s"] * 1e9) for row in events} <= ends | {0}


def test_a_clock_that_is_right_changes_nothing() -> None:
    class Right(Late):
        def errors(self) -> npt.NDArray[np.int64]:
            return np.zeros(len(self.ahead) - 1, np.int64)  # of the last step nothing is known

    written, passed = served(Right(seed=6), 60)
    for table in ("steps", "requests", "events"):
        for one, other in zip(written.rows(table), passed.rows(table), strict=True):
            times = [name for name in one if name.endswith("_s") and name != "stall_s"]
            assert [one.pop(name) for name in times] == pytest.approx([other.pop(name) for name in times], abs=1e-9)
            assert one == other
