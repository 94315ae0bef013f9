"""Who watches a run tells how long the machine held it up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from sim.decode.quiet import Quiet, Witnessed, siblings, two_of

linux = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads cannot be pinned here")


def watcher(*words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "sim.decode.quiet", *words]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def said(process: subprocess.Popen[bytes]) -> Witnessed:
    return Witnessed(**json.loads(process.communicate(timeout=60)[0]))


def test_who_is_held_up_says_for_how_long() -> None:
    process = watcher()
    time.sleep(0.5)  # it has begun
    os.kill(process.pid, signal.SIGSTOP)  # as another program would hold it up
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGCONT)
    time.sleep(0.1)
    seen = said(process)
    assert seen.gaps >= 1
    assert seen.longest_s >= 0.25
    assert seen.seconds > seen.held_up_s >= seen.longest_s
    assert 0 < seen.share < 1


@linux
def test_a_core_is_watched_for_a_while() -> None:
    assert 0.1 <= said(watcher(str(min(os.sched_getaffinity(0))), "0.1")).seconds < 30


@linux
def test_a_run_is_kept_on_the_quietest_core_and_watched() -> None:
    before = os.sched_getaffinity(0)
    quiet = Quiet(0.1)
    assert set(quiet.cores) <= before
    assert len(quiet.cores) == min(2, len(before))
    with quiet.watched() as watch:
        assert os.sched_getaffinity(0) == {quiet.cores[0]}
        time.sleep(0.1)
    assert os.sched_getaffinity(0) == before
    assert 0 <= watch.share <= 1  # all of it, on a machine that has much else to do


@linux
def test_a_run_that_fails_is_let_go() -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(ValueError, match="no"), Quiet(0.1).watched():
        raise ValueError("no")
    assert os.sched_getaffinity(0) == before


def test_the_share_of_no_time_is_none() -> None:
    assert Witnessed(0.0, 0.0, 0, 0.0).share == 0


@linux
def test_an_only_core_is_left_to_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = Quiet(0.1)
    quiet.cores = quiet.cores[:1]
    started: list[list[str]] = []
    monkeypatch.setattr("sim.decode.quiet._start", started.append)
    with quiet.watched() as watch:
        time.sleep(0.01)
    assert started == []
    assert watch.share >= 0


def test_who_watches_does_not_share_hardware_with_the_runs() -> None:
    def pairs(cpu: int) -> set[int]:
        return {cpu, cpu ^ 1}

    assert two_of({0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0}, pairs) == (0, 2)
    assert two_of({0: 0.0, 1: 0.3, 2: 0.1, 3: 0.0, 4: 0.02, 5: 0.05}, pairs) == (4, 3), "0 is next to a busy one"
    assert two_of({0: 0.1, 1: 0.0}, pairs) == (1, 0), "there is no other"
    assert two_of({3: 0.1}, pairs) == (3,)
    assert 0 in siblings(0)
