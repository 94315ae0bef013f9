"""How the rows of a hybrid allocator grow: one after the other, in turns.

In its turn, a row gives back what its windows have passed, copies shared pieces that it is about to write into
(copy-on-write), takes a piece for each attention group that runs out of slots, and enters newly full blocks in the
prefix cache.  Rows that do none of this are only counted.  Turns can be tried out on a copy of the pool.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from allocators.answers import Copy, Growth, Reason, Refusal
from allocators.compiled import mypyc_attr
from allocators.content import Content
from allocators.errors import AllocatorError
from allocators.groupcycle import RegularGroups
from allocators.pieces import PiecePool
from allocators.runs import key_in
from allocators.table import Bools, Ints
from allocators.trial import trial


class Turn(NamedTuple):
    """What one row's growth has changed in the pool, to be written into its row."""

    copies: list[tuple[int, int, int, int]]
    """(group, column, source, target) of shared pieces that are written to and so must be copied."""
    new: list[Ints]
    """By group: pieces taken for further tokens."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class GroupTurns(RegularGroups):
    """The part of a hybrid allocator that lets its rows grow."""

    checkpoint: int
    """Tokens between states kept for the prefix cache, whole blocks."""

    def grow(self, rows: Ints, lengths: Ints) -> Growth:
        """See `Allocator.grow`.  Rows that need nothing are only counted; the others take turns."""
        copies: list[Copy] = []
        copied = 0
        self.gather(rows.tolist())
        for index in self._due(rows, lengths).tolist():
            row, length = int(rows[index]), int(lengths[index])
            now = self._leave_behind(self.pool, row, real=True)
            turn = self._turn(self.pool, row, length, now)
            if isinstance(turn, Refusal):
                self.table.length[rows[:index]] = lengths[:index]
                return Growth(index, turn, copies, copied)
            copied += self._finish(row, length, turn, copies)
            if row in self._entangled and length // self.cut.tokens > now // self.cut.tokens:
                self.enter_row(row, now // self.cut.tokens, length // self.cut.tokens)
        self.table.length[rows] = lengths
        return Growth(len(rows), None, copies, copied)

    def can_grow(self, rows: Ints, lengths: Ints) -> bool:
        """See `Allocator.can_grow`.  If memory may be short, the turns are tried out on a copy of the pool."""
        due = self._due(rows, lengths)
        if len(due) and lengths.max() > self.max_model_len:
            return False
        most = (self._places_more(rows, lengths)[due] + 1).sum() * len(self.pieces) if len(due) else 0
        if most <= len(self.pool.queue):
            return True
        pool = trial(self.pool)
        return not any(
            isinstance(self._turn(pool, row, length, self._leave_behind(pool, row, real=False)), Refusal)
            for row, length in zip(rows[due].tolist(), lengths[due].tolist(), strict=True)
        )

    def demand(self, rows: Ints, lengths: Ints) -> Ints:
        """See `Allocator.demand`.  Counts pieces for copies, but not those that windows are about to give back."""
        more = np.zeros(len(rows), np.int64)
        for index in self._due(rows, lengths).tolist():
            row, length = int(rows[index]), int(lengths[index])
            new = max(0, self.places_for(length) - self._held_places(row))
            copying = self._copying(self.pool, row, length)
            more[index] = new * self.stride + sum(self.pieces[group].blocks for group, _, _ in copying)
        return more

    def _places_more(self, rows: Ints, lengths: Ints) -> Ints:
        more: Ints = -(-lengths // self.cut.tokens) - self.table.slots[rows] // self.cut.tokens
        return more.clip(min=0)

    def _due(self, rows: Ints, lengths: Ints) -> Ints:
        """Return which rows take, copy, cache or give back anything when they grow to `lengths`."""
        table, tokens = self.table, self.cut.tokens
        try:
            now = table.length[rows]
        except IndexError as error:
            raise AllocatorError(f"no such row: {error}") from error
        if not now.all():
            raise AllocatorError(f"row {int(rows[now == 0][0])} is not open")
        if (lengths < now).any():
            row = int(rows[np.flatnonzero(lengths < now)[0]])
            raise AllocatorError(f"row {row} is {table.length[row]} tokens long and cannot shrink")
        if len(set(rows.tolist())) < len(rows):
            raise AllocatorError(f"a row is named twice: {rows.tolist()}")
        due = (lengths > table.slots[rows]) | (lengths > self.max_model_len)
        if self._entangled:
            due |= self._among(self._entangled)[rows] & (lengths // tokens > now // tokens)
        if self.forked:
            due |= self._among(self.forked)[rows] & (lengths > now)
        for group, window in self.windows.items():
            behind = np.maximum(0, now - window.tokens + 1) // tokens
            column = self.first_column[group] + (behind - 1) * self.stride
            due |= (behind > 0) & (table.blocks[rows, column] != 0) & (lengths > now)
        return np.flatnonzero(due)

    def _among(self, some: set[int]) -> Bools:
        """Return bool[rows]: which rows of the table are among `some`."""
        among = np.zeros(len(self.table.count), np.bool_)
        among[list(some)] = True
        return among

    def _leave_behind(self, pool: PiecePool, row: int, *, real: bool) -> int:
        """Give back what windows have passed, even if growth is then refused; return the row's length."""
        length = int(self.table.length[row])
        for group, window in self.windows.items():
            behind = window.behind(length)
            start = self.first_column[group]
            cells = self.table.blocks[row, start : start + behind * self.stride : self.stride]
            left = cells[cells > 0].astype(np.int64)
            if real:
                pieces = enumerate(left.tolist(), behind - len(left))
                self.give_back([(row, group, place, piece) for place, piece in pieces])
            elif row in self.contents:
                pool.cache.key[left] = 1
            idle = pool.let_go(group, left[::-1])
            if real and len(left):
                self.host.part(idle)
                for block in range(self.pieces[group].blocks):
                    self.table.blocks[row, start + block : start + behind * self.stride : self.stride] = 0
                self.left += len(left) * self.pieces[group].full
        return length

    def _turn(self, pool: PiecePool, row: int, length: int, now: int) -> Turn | Refusal:
        """Take from `pool` what one row needs to grow; if it is refused, nothing is taken."""
        if length > self.max_model_len:
            return self.too_long(length)
        copying = self._copying(pool, row, length)
        new = max(0, self.places_for(length) - self._held_places(row))
        needs = [*(0 for _ in self.states), *(new for _ in self.attention)]
        for group, _, _ in copying:
            needs[group] += 1
        if not any(needs):
            taken = [np.zeros(0, np.int64)] * len(needs)
        elif pool.fits(needs):
            taken = pool.take(needs)
        else:
            return self._short_of(self.pool.blocks_of(needs), 0, pool)
        copies = []
        for group, column, source in copying:
            pool.let_go(group, np.array([source]))
            copies.append((group, column, source, int(taken[group][0])))
            taken[group] = taken[group][1:]
        if row in self.contents:
            self._save(pool, self.contents[row], now, length)
        return Turn(copies, taken)

    def _copying(self, pool: PiecePool, row: int, length: int) -> list[tuple[int, int, int]]:
        """Return (group, column, piece) of what a row must copy before it grows: shared last blocks and states."""
        now = int(self.table.length[row])
        if row not in self.forked or length == now:
            return []
        last = (self._held_places(row) - 1) * self.stride
        columns = [(group, self.first_column[group]) for group in self.states]
        if now < int(self.table.slots[row]):
            columns += [(group, self.first_column[group] + last) for group in self.attention]
        cells = [(group, column, int(self.table.blocks[row, column])) for group, column in columns]
        return [(group, column, piece) for group, column, piece in cells if pool.references[piece] > 1]

    def _finish(self, row: int, length: int, turn: Turn, copies: list[Copy]) -> int:
        """Write a turn into its row; return the number of tokens whose K/V is copied, at least in part."""
        now, held = int(self.table.length[row]), self._held_places(row)
        copied = 0
        for group, column, source, target in turn.copies:
            piece = self.pieces[group]
            self.write(row, column, np.array([target]), group)
            copies += [Copy(source + block, target + block) for block in range(piece.blocks)]
            copied += piece.slots * (now % self.cut.tokens if piece.tokens else 1)
        if length > now and row in self.forked:  # what it writes now is the twin of nothing any more
            written = range(len(self.pieces)) if now < held * self.cut.tokens else self.states
            cells = self.cells_of(row)
            self.host.part([int(cells[group][-1]) for group in written])
            self.forked.discard(row)
        for group in self.attention:
            if len(turn.new[group]):
                self.write(row, self.first_column[group] + held * self.stride, turn.new[group], group)
        self._set_length(row, length)
        return -(-copied // self.token_slots)

    def _save(self, pool: PiecePool, content: Content, now: int, length: int) -> None:
        """Save states where a row passes a checkpoint."""
        tokens = self.cut.tokens
        for end in range(now // self.checkpoint + 1, length // self.checkpoint + 1) if self.states else ():
            needs = [1 if group in self.states else 0 for group in range(len(self.pieces))]
            if not pool.fits(needs):
                return
            key = content.key(tokens, end * self.checkpoint // tokens - 1)
            for group, state in enumerate(pool.take(needs)[: len(self.states)]):
                pool.cache.enter([key_in(group, key)], state)
                pool.let_go(group, state)

    def _short_of(self, need: int, spare: int, pool: PiecePool | None = None) -> Refusal:
        missing = need + spare - (pool or self.pool).blocks_free
        if need > self.num_blocks:
            return Refusal(Reason.NEVER, need, missing)
        return Refusal(Reason.BLOCKS if missing > 0 else Reason.HOLE, need, max(missing, 1))
