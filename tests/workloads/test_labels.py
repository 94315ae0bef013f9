"""What runs are called."""

from __future__ import annotations

import pytest

from workloads.allocator import AllocatorSpec
from workloads.labels import labels


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([{"kind": "paged"}, {"kind": "ideal"}], ["paged", "ideal"]),
        ([{"kind": "paged", "block_size": 8}], ["paged"]),
        ([{"kind": "paged", "block_size": 8}, {"kind": "paged"}], ["paged-8", "paged"]),
        (
            [{"kind": "contiguous", "reserve": "pow2"}, {"kind": "contiguous", "reserve": "max"}],
            ["contiguous-pow2", "contiguous-max"],
        ),
        ([{"kind": "paged", "prefix_cache": True}, {"kind": "paged"}], ["paged-prefix-cache", "paged"]),
        ([{"kind": "paged", "label": "ours"}, {"kind": "paged"}], ["ours", "paged"]),
        ([{"kind": "paged", "scheduler": "orca"}, {"kind": "paged"}], ["paged-orca", "paged"]),
        (
            [{"kind": "paged", "scheduler": "orca"}, {"kind": "paged", "scheduler": "static"}, {"kind": "ideal"}],
            ["paged-orca", "paged-static", "ideal"],
        ),
        (
            [{"kind": "paged", "preemption": "swap"}, {"kind": "paged", "preemption": "recompute"}],
            ["paged-swap", "paged-recompute"],
        ),
        (
            [{"kind": "paged", "block_size": 8, "scheduler": "orca"}, {"kind": "paged", "scheduler": "orca"}],
            ["paged-8", "paged"],
        ),
        ([{"kind": "paged"}, {"kind": "paged"}], ["paged-1", "paged-2"]),
        (
            [{"kind": "paged", "sliding_window": 16}, {"kind": "paged", "sliding_window": None}],
            ["paged-sliding-window-16", "paged-sliding-window-null"],
        ),
    ],
)
def test_runs_are_called_by_what_tells_them_apart(entries: list[dict[str, object]], expected: list[str]) -> None:
    assert labels([AllocatorSpec.model_validate(entry) for entry in entries]) == expected
