"""The pulse says how fast the host is while it does something else."""

from __future__ import annotations

import signal
import threading
import time

from sim.decode.pulse import EVERY, Pulse, pulse


def busy(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def test_a_host_that_works_has_a_pulse_and_its_timer_is_given_back() -> None:
    handler, timer = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    with pulse() as outer:
        busy(3 * EVERY)
        with pulse() as inner:
            busy(4 * EVERY)
        known = len(outer.beats)
        busy(4 * EVERY)
    assert len(inner.beats) >= 1
    assert len(outer.beats) > known >= 1, "the outer one goes on"
    assert 0 < inner.mean_s < EVERY
    assert outer.mean_s == sum(outer.beats) / len(outer.beats) / 1e9
    assert (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)) == (handler, timer)


def test_without_beats_nothing_is_known() -> None:
    assert Pulse().mean_s == 0


def test_other_threads_have_none() -> None:
    found: list[Pulse] = []

    def elsewhere() -> None:
        with pulse() as beating:
            time.sleep(3 * EVERY)
        found.append(beating)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found[0].beats == []
