"""How long the device took is told while it runs, and set right by what follows."""

from __future__ import annotations

import pytest
import torch

from sim.decode.pace import Pace
from tests.decode.room import CPU


class Clock:
    """A device whose steps end when they are told to; stands in for CUDA events."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.end = 0.0, 0.0
        clock = self

        class Event:
            def __init__(self, *, enable_timing: bool = False) -> None:
                self.at = 0.0

            def record(self) -> None:
                self.at = clock.end

            def synchronize(self) -> None:
                clock.now = max(clock.now, self.at)

            def elapsed_time(self, other: Event) -> float:
                return (other.at - self.at) / 1e6

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr("sim.decode.pace.time.perf_counter_ns", lambda: int(clock.now))

    def step(self, pace: Pace, takes: float, *, lanes: int = 0, host: float = 0) -> int:
        """Spend `host` on the host, then launch what takes the device so long."""
        self.now += host
        pace.start()
        self.end = max(self.end, self.now) + takes
        return pace.launched(lanes) if lanes else pace.finished()


def test_what_a_step_told_was_off_by_is_set_right_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, pace = Clock(monkeypatch), Pace(torch.device("cuda"), ahead=True)
    told = [clock.step(pace, 500), clock.step(pace, 100, lanes=8, host=7)]
    assert told == [500, 107]  # the second is waited for: the first of its size
    told.append(clock.step(pace, 90, lanes=8))
    assert (told[-1], clock.now) == (107, 607)  # told before it has run; the host goes on at once
    told.append(clock.step(pace, 110, lanes=8, host=5))
    assert (told[-1], clock.now) == (110 + 90 - 107, 807)  # waited for: the first that did not find the device idle
    told += [clock.step(pace, 95, lanes=8), clock.step(pace, 100, lanes=8)]
    assert (told[-2:], clock.now) == ([90, 110 + 95 - 90], 902)
    assert sum(told) - clock.end == 110 - 100
    told.append(clock.step(pace, 500, lanes=16))
    assert told[-1] == 500 + 100 - 110  # another size: both are waited for
    assert sum(told) == clock.end == clock.now
    told += [clock.step(pace, 40, lanes=8), clock.step(pace, 300)]
    assert told[-2:] == [95, 300 + 40 - 95]  # a prefill settles everything
    assert sum(told) == clock.end == clock.now


def test_the_first_step_of_a_shape_takes_what_its_graph_took(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, pace = Clock(monkeypatch), Pace(torch.device("cuda"), ahead=True, periods={8: 90, 16: 150})
    told = [clock.step(pace, 500), clock.step(pace, 100, lanes=8, host=7)]
    assert (told, clock.now) == ([500, 90], 507)  # told before it has run
    told.append(clock.step(pace, 160, lanes=16))
    assert (told[-1], clock.now) == (150 + 107 - 90, 607)  # another shape, and what the one before was longer
    told += [clock.step(pace, 100, lanes=8), clock.step(pace, 300)]
    assert sum(told) == clock.end == clock.now


def test_what_the_host_does_while_resting_is_in_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, pace = Clock(monkeypatch), Pace(torch.device("cuda"), ahead=True)
    for _ in range(4):
        clock.step(pace, 100, lanes=8)
    pace.rest()
    assert clock.now == clock.end
    clock.now += 10_000
    told = [clock.step(pace, takes, lanes=8) for takes in (70, 80, 90, 90)]
    assert told[0] == 70  # waited for, by the host's clock
    assert sum(told) == pytest.approx(330, abs=30)
    assert min(told) > 50


def test_host_work_is_told_only_where_the_device_had_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, shown = [], []
    for host, told in ((60, hidden), (160, shown)):
        clock, pace = Clock(monkeypatch), Pace(torch.device("cuda"), ahead=True)
        clock.step(pace, 100)
        for _ in range(12):
            told.append(clock.step(pace, 100, lanes=4, host=host))
    assert set(hidden[4:]) == {100}
    assert set(shown[4:]) == {160}


def test_where_nothing_runs_ahead_a_step_is_what_the_host_measured() -> None:
    pace = Pace(CPU, ahead=True)
    pace.start()
    one = pace.launched(4)
    pace.lost()
    assert 0 < one < pace.finished()
