"""Virtual contiguity: an address range per sequence, into which physical pages are mapped on demand (vAttention).

Each sequence owns a virtual range for `max_model_len` tokens in the K and the V tensor of every layer,
so kernels need no block table.  It uses memory only for pages that its tokens have reached: one page in
each of those tensors at a time, together a *page group*, which is the block here.  A group holds
`page / bytes of a token in one tensor` tokens: for Llama-3-8B 32 with pages of 64 KiB, and 1,024 with
the 2 MiB pages of an unmodified CUDA driver (vAttention, ASPLOS 2025, table 8).

Mapping a page is a call to the driver, so calls are counted, and two mechanisms keep them off the critical
path.  With deferred reclamation, a range keeps its pages when its sequence ends, and the next sequence starts
in them (in the smallest such range that has enough pages, else in the largest); pages are unmapped from idle
ranges only when none are left elsewhere.  With overlap, a second thread maps the pages that each sequence's
next decode will reach while the GPU computes the step before.  A step then waits only for pages of prompts,
and for those that the step before was too short to hide.

vAttention's thread looks up to ten steps ahead, maps at most two groups per step and sequence, and while the
pool is full finds nothing to map until the step that frees memory is over.  Here it looks one step ahead, and
knows what the next step will need.  Mapping pages in advance for requests that have not arrived (the paper's
eager allocation) is not in vAttention's published code, and not here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from allocators.answers import Ask, Grant, Growth, Leap, Mappings, Reason, Refusal, Usage
from allocators.compiled import mypyc_attr
from allocators.errors import CorruptionError
from allocators.lockstep import ExactRows, most_steps
from allocators.options import KV_TENSORS, TENSOR_TOKEN_BYTES, Option, Value
from allocators.ranges import Ranges
from allocators.table import Ints

KIB = 1 << 10


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class VirtualAllocator(ExactRows):
    """Page groups that are mapped into ranges; row `r` of the table lists those that its sequence has reached."""

    kind = "virtual"
    options = MappingProxyType(
        {
            "page_kib": Option(int, 2048, "size of a physical page, KiB", choices=(64, 128, 256, 512, 1024, 2048)),
            "deferred": Option(bool, True, "a range keeps its pages for the next sequence (deferred reclamation)"),
            "overlap": Option(
                bool, True, "the pages that decodes will reach are mapped while the step before computes"
            ),
            "kv_tensors": KV_TENSORS,
            "tensor_token_bytes": TENSOR_TOKEN_BYTES,
        }
    )

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        max_model_len: int,
        max_rows: int = 256,
        *,
        page_kib: int = 2048,
        deferred: bool = True,
        overlap: bool = True,
        kv_tensors: int = 64,
        tensor_token_bytes: int = 2048,
    ) -> None:
        """Make an empty pool; `block_size` must be what `slots_per_block` returns for the options."""
        super().__init__(num_blocks, block_size, max_model_len, max_rows)
        self._page_bytes = page_kib * KIB
        self.ranges = Ranges(num_blocks, kv_tensors, deferred=deferred, overlap=overlap)
        self._in_use = 0

    @property
    def notice(self) -> int:
        """See `Allocator.notice`.  1, because `usage` counts the tokens of rows."""
        return 1

    @property
    def regular(self) -> bool:
        """See `Allocator.regular`.  A row reaches one group of pages after the other."""
        return True

    @property
    def room(self) -> int:
        """See `Allocator.room`.  Groups that no sequence has reached can be taken, wherever they are mapped."""
        return self.num_blocks - self._in_use

    @property
    def page_bytes(self) -> int:
        """See `Allocator.page_bytes`."""
        return self._page_bytes

    @classmethod
    def slots_per_block(cls, values: Mapping[str, Value]) -> int:
        """See `Allocator.slots_per_block`: the whole tokens that fit in a page of one tensor."""
        page, token = int(values["page_kib"] or 0) * KIB, int(values["tensor_token_bytes"] or 0)
        if page < token:
            raise ValueError(f"{cls.kind}.page_kib: a page of {page} bytes is smaller than a token's {token} bytes")
        return page // token

    def never(self, ask: Ask, final: int) -> Refusal | None:
        """See `Allocator.never`.  Refuses what exceeds `max_model_len` or the pool."""
        final = max(final, ask.whole)
        if final > self.max_model_len:
            return self.too_long(final)
        need = self.blocks_for(final) * ask.samples + ask.spare
        return Refusal(Reason.NEVER, need, need - self.num_blocks) if need > self.num_blocks else None

    def open_row(self, tokens: int, whole: int, spare: int, samples: int) -> Grant | Refusal:
        """See `ExactRows.open_row`.  The row gets an idle range, if there is one, and the groups that are missing."""
        if whole > self.max_model_len:
            return self.too_long(whole)
        need = self.blocks_for(whole) * samples + spare
        if need > self.room:
            return Refusal(Reason.BLOCKS, need, need - self.room)
        row = self.table.open()
        self.ranges.open(row, self.blocks_for(whole))
        self._reach(row, tokens)
        return Grant(row, tokens)

    def grow(self, rows: Ints, lengths: Ints) -> Growth:
        """See `Allocator.grow`.  Rows that cross a page boundary reach further groups, which may have to be mapped."""
        due, need = self._due(rows, lengths)
        granted, refusal = len(rows), None
        total = need.cumsum()
        room = self.room
        bad = (total > room) | (lengths[due] > self.max_model_len)
        if bad.any():
            first = int(bad.argmax())
            granted = int(due[first])
            if lengths[granted] > self.max_model_len:
                refusal = self.too_long(int(lengths[granted]))
            else:
                refusal = Refusal(Reason.BLOCKS, int(need[first]), int(total[first]) - room)
            due = due[:first]
        rows, lengths = rows[:granted], lengths[:granted]
        decoding = lengths[due] == self.table.length[rows[due]] + 1
        for row, length, decodes in zip(rows[due].tolist(), lengths[due].tolist(), decoding.tolist(), strict=True):
            self._reach(row, length, decoding=decodes)
        self.table.length[rows] = self.table.slots[rows] = lengths
        return Growth(granted, refusal)

    def append(self, rows: Sequence[int]) -> Sequence[int]:
        """See `Allocator.append`.  A row reaches the next group of its range, which may have to be mapped."""
        table, size = self.table, self.block_size
        views, width = table.views, table.width
        length, count, slots, cells = views.length, views.count, views.slots, views.cells
        groups = self.ranges.reach_one_each(rows)
        for place, row in enumerate(rows):
            have: int = count[row]
            cells[row * width + have] = groups[place]
            count[row] = have + 1
            length[row] = slots[row] = have * size + 1
        self._in_use += len(rows)
        return ()

    def calls(self, rows: Sequence[int]) -> Mappings | None:
        """See `Allocator.calls`.  Unknown if ranges in use would have to give up groups."""
        return self.ranges.foresee(rows)

    def note(self, rows: Ints, lengths: Ints) -> None:
        """See `Allocator.note`."""
        self.table.length[rows] = self.table.slots[rows] = lengths

    def can_grow(self, rows: Ints, lengths: Ints) -> bool:
        """See `Allocator.can_grow`."""
        _, need = self._due(rows, lengths)
        return int(need.sum()) <= self.room and bool((lengths <= self.max_model_len).all())

    def demand(self, rows: Ints, lengths: Ints) -> Ints:
        """See `Allocator.demand`."""
        due, need = self._due(rows, lengths)
        more = np.zeros(len(rows), np.int64)
        more[due] = need
        return more

    def advance(self, rows: Ints, lengths: Ints, steps: int) -> Leap:
        """See `Allocator.advance`.  Leaps to the next page boundary; crosses it only if no page need be mapped."""
        self._due(rows, lengths)
        room = int((self.table.count[rows] * self.block_size - lengths).min(initial=steps))
        leap = min(steps, most_steps(len(rows), int(lengths.max(initial=0)), self.max_model_len), room)
        if leap < 1 and self._can_step(rows, lengths + 1):
            leap = 1
        if leap > 0:
            self.grow(rows, lengths + leap)
        leap = max(leap, 0)
        return Leap.unlisted(np.full(leap, self._in_use * self.block_size), np.zeros(leap, np.int64))

    def _can_step(self, rows: Ints, lengths: Ints) -> bool:
        """Whether all rows can grow by one token into groups that are already mapped in their ranges."""
        if not self.can_grow(rows, lengths):
            return False
        return all(row in self.ranges.ahead for row in rows[self._due(rows, lengths)[0]].tolist())

    def _due(self, rows: Ints, lengths: Ints) -> tuple[Ints, Ints]:
        """Return which rows exceed their pages or `max_model_len`, and how many groups each then reaches."""
        self.demand_longer(rows, lengths)
        more = -(-lengths // self.block_size) - self.table.count[rows]
        due = ((more > 0) | (lengths > self.max_model_len)).nonzero()[0]
        return due, more[due]

    def _reach(self, row: int, length: int, *, decoding: bool = False) -> None:
        """Let a row reach the groups that `length` tokens need; `decoding` as in `Ranges.reach`."""
        table = self.table
        count = int(table.count[row])
        need = self.blocks_for(length) - count
        table.blocks[row, count : count + need] = self.ranges.reach(row, need, decoding=decoding)
        table.count[row] = count + need
        table.length[row] = table.slots[row] = length
        self._in_use += need

    def release(self, row: int) -> None:
        """See `Allocator.release`.  The range keeps its groups, or they are unmapped at once."""
        self.demand_open(row)
        self._in_use -= int(self.table.count[row])
        self.ranges.close(row, self.table.row(row).tolist())
        self.table.close(row)

    def usage(self) -> Usage:
        """See `Allocator.usage`.  Groups that a sequence has reached are held; what it does not fill is rounding."""
        held = self._in_use * self.block_size
        return Usage(held, rounding=held - int(self.table.length.sum()))

    def mappings(self) -> Mappings:
        """See `Allocator.mappings`.  A group has one page in each tensor."""
        return self.ranges.calls

    def largest_hole(self) -> int:
        """See `Allocator.largest_hole`.  Any group that no sequence has reached is available."""
        return self.room * self.block_size

    def check(self) -> None:
        """See `Allocator.check`.  Every group must be in one place, and rows must list what their tokens need."""
        table = self.table
        rows = table.rows()
        if not self.ranges.ahead.keys() <= set(rows):
            raise CorruptionError("a row that is not open has a range")
        if sum(int(table.count[row]) for row in rows) != self._in_use:
            raise CorruptionError(f"{self._in_use} groups are counted in use")
        for row in rows:
            length = int(table.length[row])
            if table.slots[row] != length or table.count[row] != self.blocks_for(length):
                raise CorruptionError(f"row {row} of {length} tokens has {table.count[row]} groups")
        self.ranges.check(table.row(row).tolist() for row in rows)
