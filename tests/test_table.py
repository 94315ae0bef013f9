"""The block table: many blocks at once are entered as one after the other would be."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

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
