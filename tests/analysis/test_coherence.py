"""Whether tables belong together: at the very edge of what they may hold."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pytest

from analysis.coherence import demand_blocks, demand_ids, demand_known
from analysis.errors import RunDirectoryError

PATH = Path("x.parquet")
HOLDS = nullcontext
Expected = Callable[[], AbstractContextManager[object]]


def wrong(what: str) -> Expected:
    return lambda: pytest.raises(RunDirectoryError, match=f"^x.parquet: {what}: it was changed")


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([], HOLDS),
        ([0], HOLDS),
        ([3, 4, 9], HOLDS),
        ([-1, 0], wrong("request_id does not ascend")),
        ([0, 0], wrong("request_id does not ascend")),
        ([1, 0], wrong("request_id does not ascend")),
    ],
)
def test_requests_ascend_from_0(ids: list[int], expected: Expected) -> None:
    with expected():
        demand_ids(PATH, np.array(ids, np.int64))


@pytest.mark.parametrize(
    ("ids", "known", "expected"),
    [
        ([], [], HOLDS),
        ([-1], [], HOLDS),
        ([-1, 0, 2], [0, 1, 2], HOLDS),
        ([3], [0, 1, 2], wrong("names a request that is not in requests.parquet")),
        ([0], [], wrong("names a request that is not in requests.parquet")),
        ([-2], [0], wrong("names a request that is not in requests.parquet")),
    ],
)
def test_only_requests_that_came_are_named(ids: list[int], known: list[int], expected: Expected) -> None:
    with expected():
        demand_known(PATH, np.array(ids, np.int64), np.array(known, np.int64))


@pytest.mark.parametrize(
    ("first", "count", "expected"),
    [
        ([], [], HOLDS),
        ([1, 8], [7, 1], HOLDS),
        ([1], [9], wrong("has blocks that a pool of 8 does not")),
        ([0], [1], wrong("has blocks that a pool of 8 does not")),
        ([1], [0], wrong("has blocks that a pool of 8 does not")),
        ([2**31 - 1], [2**31 - 1], wrong("has blocks that a pool of 8 does not")),
    ],
)
def test_every_block_is_one_of_the_pool(first: list[int], count: list[int], expected: Expected) -> None:
    with expected():
        demand_blocks(PATH, {"block": np.array(first, np.int32), "count": np.array(count, np.int32)}, 8)
