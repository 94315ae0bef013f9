"""A witness tells how long the machine held it up."""

from __future__ import annotations

import os
import signal
import time

import pytest

from sim.decode.quiet import Witness, Witnessed, pinned, quietest, stolen_s


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")
def test_a_witness_that_is_held_up_says_for_how_long() -> None:
    with Witness() as witness:
        time.sleep(0.5)  # it has begun
        os.kill(witness._process.pid, signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(witness._process.pid, signal.SIGCONT)
        time.sleep(0.1)
    seen = witness.seen
    assert seen.gaps >= 1
    assert seen.longest_s >= 0.25
    assert seen.held_up_s >= seen.longest_s
    assert seen.seconds > seen.held_up_s
    assert 0 < seen.share < 1


def test_every_core_is_watched_and_the_quietest_comes_first() -> None:
    cores = quietest(0.2)
    assert sorted(cores) == (sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [])


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads cannot be pinned here")
def test_a_thread_is_pinned_and_let_go() -> None:
    before = os.sched_getaffinity(0)
    cpu = min(before)
    with pinned(cpu):
        assert os.sched_getaffinity(0) == {cpu}
        with Witness(cpu) as witness:
            time.sleep(0.05)
    assert os.sched_getaffinity(0) == before
    assert witness.seen.seconds > 0
    assert stolen_s(cpu) >= 0
    with pinned(None):
        assert os.sched_getaffinity(0) == before


def test_the_share_of_no_time_is_none() -> None:
    assert Witnessed(0.0, 0.0, 0, 0.0).share == 0
