"""Rows of a block table that several groups of layers share: what a sequence holds of each group.

The block tables of the groups are strided views of one array (`GroupRows.tables`).  A row begins
with the blocks of its states; then come the first block of tokens of each group, the second of each,
and so on.  All blocks of a piece are listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from allocators.answers import Grant, Usage
from allocators.compiled import mypyc_attr
from allocators.errors import AllocatorError
from allocators.host import HostPool
from allocators.pieces import PiecePool
from allocators.sharing import shared_with
from allocators.swapping import SwappingRows
from allocators.table import BlockTable, Columns, Ints
from allocators.window import Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocators.content import Content
    from allocators.groups import Cut


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class GroupRows(SwappingRows):
    """The part of a hybrid allocator that opens, forks and closes rows and keeps the running counts."""

    def __init__(self, num_blocks: int, cut: Cut, max_model_len: int, max_rows: int, host_blocks: int) -> None:
        """Make an empty pool of `num_blocks` blocks, cut as `cut` says; for the others see `Allocator`.

        Raises:
            AllocatorError: the pool is no whole number of pages.

        """
        super().__init__(num_blocks, cut.block_slots, max_model_len, max_rows)
        if num_blocks % cut.page_blocks:
            raise AllocatorError(f"{num_blocks} blocks are no whole number of pages of {cut.page_blocks}")
        self.cut = cut
        self.pieces = [*cut.states, *cut.attention]
        """What each group takes at a time, recurrent groups first."""
        self.states = range(len(cut.states))
        self.attention = range(len(cut.states), len(self.pieces))
        self.windows = {
            group: Window(window, cut.tokens)
            for group in self.attention
            if (window := self.pieces[group].group.window) and window < max_model_len
        }
        self._everything = Window(max_model_len + cut.tokens, cut.tokens)
        """The window of groups that keep all tokens."""
        self.windowed = bool(self.windows)
        self.block_tokens = cut.tokens
        reach = {
            group: self.windows[group].tokens if group in self.windows else max_model_len for group in self.attention
        }
        self.keeper = max(reach, key=lambda group: reach[group])
        self.first_column = [0, *np.cumsum([piece.blocks for piece in self.pieces]).tolist()][:-1]
        self.stride = sum(piece.blocks for piece in cut.attention)
        self.columns = self._make_columns()
        self.table = BlockTable(max_rows, self.blocks_for(max_model_len))
        pages = zip(self.most(1, max_model_len), self.pieces, strict=True)
        self._ample = 8 * sum(-(-most // piece.pieces) for most, piece in pages)
        """Pages that eight sequences of the longest context need; a pool with more of them free need not save any."""
        self.pool = PiecePool(num_blocks, cut.page_blocks, self.pieces, self._ample)
        self.cache = self.pool.cache
        host = PiecePool(host_blocks // cut.page_blocks * cut.page_blocks, cut.page_blocks, self.pieces, 0)
        self.host = HostPool(host, max_rows, self.table.width, num_blocks)
        self.forked: set[int] = set()
        """Rows whose last block or state may be shared with another row, and must then be copied before a write."""
        self.left = 0
        """Slots whose blocks windows have left behind."""

    @property
    def references(self) -> Ints:
        """See `KeyedRows.references`."""
        return self.pool.references

    @property
    def token_slots(self) -> int:
        """See `Allocator.token_slots`."""
        return self.cut.token_slots

    def _make_columns(self) -> Columns:
        """Say what the columns of the table are."""
        cut, size = self.cut, self.block_size
        lead = [(1, piece.slots, block * size) for piece in cut.states for block in range(piece.blocks)]
        place = [(cut.tokens, piece.slots, block * size) for piece in cut.attention for block in range(piece.blocks)]
        full = not lead and all(slots * tokens - before >= size for tokens, slots, before in place)
        tokens, slots, before = np.array([*lead, *place], np.int64).T.copy()
        return Columns(tokens, slots, before, len(lead), cut.tokens, full)

    @property
    def tables(self) -> list[npt.NDArray[np.int32]]:
        """By group, recurrent ones first: its block table, int32[rows, places], a view of its pieces' first blocks."""
        cells = self.table.blocks
        return [
            *(cells[:, self.first_column[group] : self.first_column[group] + 1] for group in self.states),
            *(cells[:, self.first_column[group] :: self.stride] for group in self.attention),
        ]

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold `tokens` tokens in all groups, none left behind, and the states."""
        return self.columns.lead + self.places_for(tokens) * self.stride

    def places_for(self, tokens: int) -> int:
        """Blocks of one attention group that hold `tokens` tokens."""
        return -(-tokens // self.cut.tokens)

    def _held_places(self, row: int) -> int:
        return int(self.table.slots[row]) // self.cut.tokens

    def most(self, first: int, final: int, samples: int = 1) -> list[int]:
        """By group: pieces that sequences hold at the most while they grow from `first` to `final` tokens."""
        every = [self.windows.get(group, self._everything) for group in self.attention]
        return [samples] * len(self.states) + [window.most(first, final, samples) for window in every]

    # -- rows ------------------------------------------------------------------------------

    def fork(self, row: int, output: int | None = None, content: Content | None = None) -> Grant:
        """See `Allocator.fork`.  Takes nothing, so it is never refused."""
        self.demand_open(row)
        if content is not None:
            self.rejoin(row)
        for group, cells in enumerate(self.cells_of(row)):
            self.pool.share(group, cells[cells > 0])
        child = self.open_row(self.table.row(row).astype(np.int64), int(self.table.length[row]))
        self.copy_on_write(row)
        self.copy_on_write(child)
        if content is not None and row in self.contents:
            self.know(child, content)
        return Grant(child, int(self.table.slots[child]))

    def release(self, row: int) -> None:
        """See `Allocator.release`."""
        self.demand_open(row)
        self.close_row(row)

    def open_row(self, blocks: Ints, length: int) -> int:
        """See `SwappingRows.open_row`."""
        row, places = self.table.open(), (len(blocks) - self.columns.lead) // self.stride
        self.table.fill(row, blocks, length, places * self.cut.tokens)
        self.left += self.left_by(row)
        return row

    def close_row(self, row: int) -> None:
        """See `SwappingRows.close_row`.  Each group's pieces go back tail first."""
        self.forget(row)
        self.left -= self.left_by(row)
        for group, cells in enumerate(self.cells_of(row)):
            pieces = cells[cells > 0] if group in self.windows else cells
            self.host.part(self.pool.let_go(group, pieces[::-1]))
        self.forked.discard(row)
        self.table.close(row)

    def left_by(self, row: int) -> int:
        """Slots whose blocks windows of a row have left behind."""
        cells = zip(self.cells_of(row) if self.windowed else (), self.pieces, strict=False)
        return sum(int(np.count_nonzero(places == 0)) * piece.full for places, piece in cells)

    def copy_on_write(self, row: int) -> None:
        """See `SwappingRows.copy_on_write`."""
        self.forked.add(row)

    def missing(self, needs: list[int], rows: int, spare: int) -> int:
        """See `SwappingRows.missing`.  A token may take a block in every group, and its state may have to be copied."""
        ahead = rows if spare else 0
        missing = self.pool.blocks_of(needs) + max(spare, ahead * self.blocks_for(1)) - self.pool.blocks_free
        return missing if self.pool.fits([count + ahead for count in needs]) else max(missing, 1)

    def share(self, group: int, pieces: Ints) -> None:
        """See `SwappingRows.share`."""
        self.pool.share(group, pieces)

    def take(self, group: int, count: int) -> Ints:
        """See `SwappingRows.take`."""
        return self.pool.take_some(group, count)

    def cells_of(self, row: int, table: BlockTable | None = None) -> list[Ints]:
        """See `SwappingRows.cells_of`; `table` is the device's, if it is not given."""
        cells = (table or self.table).row(row).astype(np.int64)
        return [
            *(cells[self.first_column[group] : self.first_column[group] + 1] for group in self.states),
            *(cells[self.first_column[group] :: self.stride] for group in self.attention),
        ]

    def write(self, row: int, column: int, pieces: Ints, group: int) -> None:
        """Write consecutive pieces of a group into a row, the first at `column`."""
        step = self.stride if group in self.attention else 1
        if self.pieces[group].blocks == 1:
            self.table.blocks[row, column : column + len(pieces) * step : step] = pieces
            return
        for block in range(self.pieces[group].blocks):
            columns = slice(column + block, column + block + max(1, len(pieces)) * step, step)
            self.table.blocks[row, columns][: len(pieces)] = np.where(pieces > 0, pieces + block, 0)

    def alone(self, row: int, key: int, place: int) -> bool:
        """See `KeyedRows.alone`.  Where states are saved as tokens are computed, so is the rest."""
        return not self.states and super().alone(row, key, place)

    def _set_length(self, row: int, length: int) -> None:
        places = max(self._held_places(row), self.places_for(length))
        self.table.count[row] = self.columns.lead + places * self.stride
        self.table.slots[row] = places * self.cut.tokens
        self.table.length[row] = length

    # -- counting --------------------------------------------------------------------------

    def usage(self) -> Usage:
        """See `Allocator.usage`."""
        pool, size = self.pool, self.block_size
        held = cached = rounding = saved = 0
        for piece, has, keeps, shares in zip(self.pieces, pool.held, pool.cached, pool.shared, strict=True):
            held += has * piece.blocks
            cached += keeps * piece.blocks
            rounding += has * piece.padding
            saved += shares * piece.full
        return Usage(
            held=held * size,
            cached=cached * size,
            rounding=rounding,
            saved=saved - self._shared_slack(),
            dropped=self.left,
            swapped=self.host.pool.blocks_held * size,
            states=len(self.table) * self.cut.state_slots,
        )

    def _shared_slack(self) -> int:
        """Empty slots in last blocks that several rows hold, once for each holder but one."""
        if not self.forked:
            return 0
        return sum(self._shared_room(group) * self.pieces[group].slots for group in self.attention)

    def _shared_room(self, group: int) -> int:
        """Tokens that there is room for in one group's last blocks that several rows hold, once for each but one."""
        room, seen = 0, set[int]()
        for row in self.forked:
            empty = int(self.table.slots[row] - self.table.length[row])
            if empty:
                last = int(self.table.count[row]) - self.stride - self.columns.lead
                cell = int(self.table.blocks[row, self.first_column[group] + last])
                room += empty * (cell in seen)
                seen.add(cell)
        return room

    def repeated(self, aside: Sequence[int] = ()) -> int:
        """See `Allocator.repeated`."""
        group = next((group for group in self.attention if group not in self.windows), None)
        if group is None:
            return 0
        size, pool = self.cut.tokens, self.pool
        tokens = pool.shared[group] * size - self._shared_room(group)
        if not tokens or not len(aside):
            return tokens
        cells = [self.cells_of(row)[group] for row in aside]
        return tokens - shared_with(pool.references, cells, self.table.length[aside], size)

    def largest_hole(self) -> int:
        """See `Allocator.largest_hole`."""
        return (self.pool.blocks_free - self.pool.blocks_cached) * self.block_size

    def evictions(self) -> int:
        """See `Allocator.evictions`."""
        return self.pool.evicted

    def cached_blocks(self) -> Ints:
        """See `Allocator.cached_blocks`."""
        return self.pool.cached_blocks()
