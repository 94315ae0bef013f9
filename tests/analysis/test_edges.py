"""Figures of single slots, of replications that only one side has, and in their units."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.figures import Allocator, both_known
from analysis.metrics import fragmentation_external_index
from analysis.observed import Observed
from analysis.parts import LATENCIES


def observed(durations: list[float], **columns: list[int]) -> Observed:
    """Steps of a pool of 100 slots; what is not given is 0."""
    steps = {name: np.array(columns.get(name, [0] * len(durations))) for name in ("free", "external", "largest_hole")}
    return Observed({}, steps | {"duration_s": np.array(durations)}, 100)


@pytest.mark.parametrize(
    ("free", "external", "hole", "index"),
    [
        ([10, 1], [0, 1], [10, 1], 3 / 8),  # 0 for a second, 1/2 for three
        ([0, 1], [0, 0], [0, 1], 0.0),  # while nothing is free there is no hole
        ([4, 0], [4, 0], [2, 0], 3 / 4),
    ],
)
def test_the_index_of_fragmentation_is_over_the_time_in_which_slots_are_free(
    free: list[int], external: list[int], hole: list[int], index: float
) -> None:
    seen = observed([1.0, 3.0], free=free, external=external, largest_hole=hole)
    assert fragmentation_external_index(seen) == pytest.approx(index)


def test_without_a_free_slot_there_is_no_index_of_fragmentation() -> None:
    assert np.isnan(fragmentation_external_index(observed([1.0, 3.0])))


def test_replications_go_together_by_their_numbers() -> None:
    def runs(*rates: tuple[int, float | None]) -> Allocator:
        return Allocator("x", [{"repeat": at, "metrics": {"throughput_rps": rate}} for at, rate in rates])

    mine, theirs = both_known(runs((0, 1.0), (1, 2.0), (2, None)), runs((1, 4.0), (2, 5.0), (3, 6.0)), "throughput_rps")
    assert (mine.tolist(), theirs.tolist()) == ([2.0], [4.0])


def test_latencies_of_parts_are_in_the_unit_that_heads_them() -> None:
    for one in LATENCIES:
        assert one.scale == (1e3 if one.head.endswith("ms") or one.head == "ms/token" else 1), one.name
        assert ("ms" in one.short) is ("ms" in one.head)
        assert set(one.shown) <= {"p50", "p99"}
