"""The block table: many blocks at once are entered as one after the other would be, and what its columns hold."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocators.registry import create
from allocators.table import BlockTable

some = st.lists(st.integers(0, 5), min_size=1, max_size=20)
in_turn = st.builds(
    lambda rows, rounds, more: rows * rounds + rows[:more],
    st.lists(st.integers(0, 5), min_size=1, unique=True),
    st.integers(1, 5),
    st.integers(0, 3),
)


@given(named=some | in_turn, each=st.integers(1, 3), begun=st.lists(st.integers(0, 2), min_size=6, max_size=6))
def test_blocks_stand_behind_those_of_their_rows(named: list[int], each: int, begun: list[int]) -> None:
    table = BlockTable(6, 80)
    listed = [[100 + row] * count for row, count in enumerate(begun)]
    for row, blocks in enumerate(listed):
        table.fill(row, np.array(blocks, np.int64), 0, 0)
    blocks = np.arange(1, len(named) * each + 1)
    rows = table.enter(named, blocks)
    for row, taken in zip(named, blocks.reshape(-1, each).tolist(), strict=True):
        listed[row] += taken
    assert [table.row(row).tolist() for row in range(6)] == listed
    assert set(rows.tolist()) == set(named)


@pytest.mark.parametrize(
    ("kind", "options"), [("paged", {}), ("hybrid", {"groups": "full 1x64, sliding 3x64/32, state 2x3"})]
)
def test_longer_sequences_have_more_columns_but_no_longer_description(kind: str, options: dict[str, str]) -> None:
    short, long = (
        create(kind, num_blocks=960, max_model_len=length, max_rows=1, **options) for length in (256, 1 << 24)
    )
    assert long.table.width > 60_000 * short.table.width
    for one, other in zip(short.columns, long.columns, strict=True):
        assert np.array_equal(one, other)
    count = short.table.width
    for tokens in (0, 1, 17, 255):
        filled = [each.columns.filled(np.array(tokens), count, each.block_size).tolist() for each in (short, long)]
        assert filled[0] == filled[1]
    last = np.array([long.table.width - 1])
    assert long.columns.filled_at(last, np.array([(1 << 24) - 16]), long.block_size).tolist() == [0]
    assert long.columns.filled_at(last, np.array([1 << 24]), long.block_size) > 0


@pytest.mark.parametrize("duplicate", [deepcopy, lambda table: pickle.loads(pickle.dumps(table))])  # noqa: S301 - our own
def test_a_copy_has_views_of_its_own(duplicate: Callable[[BlockTable], BlockTable]) -> None:
    table = BlockTable(2, 4)
    table.fill(table.open(), np.array([5, 6], np.int64), 20, 32)
    twin = duplicate(table)
    twin.views.count[0], twin.views.cells[2] = 3, 7
    assert (twin.row(0).tolist(), table.row(0).tolist()) == ([5, 6, 7], [5, 6])


def test_views_are_of_the_arrays_after_they_have_been_doubled() -> None:
    table = BlockTable(1, 4)
    before = table.views
    for _ in range(2):
        table.fill(table.open(), np.array([5], np.int64), 3, 16)
    assert table.views is not before
    assert table.views.length.tolist() == table.length.tolist() == [3, 3]
    assert table.views.cells.tolist() == table.blocks.ravel().tolist()
