"""What is written in pieces is what is written at once, and no more is kept than the rows of a piece."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from sim.engine.stretch import HELD, packed
from sim.engine.telemetry import EventLog, Step, StepLog
from tests.engine.harness import Memory


class Pieces(Memory):
    """Also counts the rows of each piece."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def write(self, table: str, columns: Mapping[str, Any]) -> None:
        before = len(self.rows(table)) if table in self.tables else 0
        super().write(table, columns)
        self.sizes.append(len(self.rows(table)) - before)


def step(number: int, start: int, held: int) -> Step:
    """Three sequences decode."""
    amounts = dict.fromkeys(Step._fields, 0) | {"step": number, "start": start, "running": 3, "decode_tokens": 3}
    return Step(**amounts | {"gap": 5, "gap_tokens": 3, "live": held - 8, "held": held, "grows": 3})


def steps(rows: int) -> Pieces:
    """Log seven steps: one alone, three in a stretch whose second takes a block, another one, and two in a stretch."""
    sink = Pieces()
    log = StepLog(sink, 1000, (), rows)
    log.add(step(0, 0, 16), 10)
    log.stretch(step(1, 10, 16), np.array([11, 12, 13]), [packed(1, HELD, 16)])
    log.add(step(4, 46, 32), 14)
    log.stretch(step(5, 60, 32), np.array([15, 16]), [])
    log.flush()
    return sink


@pytest.mark.parametrize(("rows", "sizes"), [(1, [1, 3, 1, 2, 0]), (2, [4, 3, 0]), (4, [4, 3]), (5, [5, 2])])
def test_steps_are_the_same_in_pieces(rows: int, sizes: list[int]) -> None:
    once, pieces = steps(1 << 16), steps(rows)
    assert once.sizes == [7]
    assert pieces.sizes == sizes
    assert pieces.rows("steps") == once.rows("steps")
    shown = [[row[name] for row in once.rows("steps")] for name in ("step", "live", "reserved", "free")]
    assert shown == [
        [0, 1, 2, 3, 4, 5, 6],
        [8, 8, 11, 14, 24, 24, 27],
        [8, 8, 21, 18, 8, 8, 5],
        [984, 984, 968, 968, 968, 968, 968],
    ]


@pytest.mark.parametrize(("rows", "sizes"), [(1, [1, 1, 1, 0]), (2, [2, 1]), (3, [3, 0])])
def test_events_are_the_same_in_pieces(rows: int, sizes: list[int]) -> None:
    found = []
    for most in (1 << 16, rows):
        sink = Pieces()
        log = EventLog(sink, most)
        log.add(10, 0, "preempt", 64, 1, "too few free blocks")
        log.add(20, 0, "resume", 64)
        log.add(30, 2, "refuse", 4096, reason="larger than the whole pool")
        log.flush()
        found.append(sink)
    assert found[1].sizes == sizes
    assert found[0].rows("events") == found[1].rows("events")
    assert [(row["event"], row["cause"], row["reason"]) for row in found[0].rows("events")] == [
        ("preempt", 1, "too few free blocks"),
        ("resume", -1, ""),
        ("refuse", -1, "larger than the whole pool"),
    ]
