"""Allocators that reserve: on admission a sequence gets all the memory that it will ever have.

Serving systems before PagedAttention kept the K/V of a sequence in one tensor, so its memory had
to be consecutive and its size had to be chosen in advance.  Once admitted, a sequence cannot run
out of memory: `grow` only counts tokens, and a whole decode is a single leap.  The price is memory
that is reserved but empty.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from allocators.answers import Ask, Grant, Growth, Leap, Reason, Refusal, Usage
from allocators.base import Allocator
from allocators.compiled import mypyc_attr
from allocators.content import Content
from allocators.errors import AllocatorError, CorruptionError
from allocators.leap import spread
from allocators.placement import Placement, Span
from allocators.table import Ints


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class ReservingAllocator(Allocator):
    """An allocator in which the slots of a row never change, so that growing only counts tokens."""

    @property
    def notice(self) -> int | None:
        """See `Allocator.notice`."""
        return 0

    def grow(self, rows: Ints, lengths: Ints) -> Growth:
        """See `Allocator.grow`.  Refuses rows that would exceed what was reserved for them."""
        table = self.table
        within = lengths <= table.slots[rows]
        granted = len(rows)
        refusal = None
        if not within.all():
            closed = [row for row in rows.tolist() if row not in table]
            if closed:
                raise AllocatorError(f"{self.kind}: row {closed[0]} is not open")
            granted = int(within.argmin())
            rows, lengths, short = rows[:granted], lengths[:granted], (int(rows[granted]), int(lengths[granted]))
            refusal = self._beyond(*short)
        if (lengths < table.length[rows]).any():
            raise AllocatorError(f"{self.kind}: a sequence cannot shrink")
        table.length[rows] = lengths
        return Growth(granted, refusal)

    def can_grow(self, rows: Ints, lengths: Ints) -> bool:
        """See `Allocator.can_grow`."""
        return bool((lengths <= self.table.slots[rows]).all())

    def advance(self, rows: Ints, lengths: Ints, steps: int) -> Leap:
        """See `Allocator.advance`.  Goes as far as the fullest row has room; no step takes a block."""
        steps = int((self.table.slots[rows] - lengths).min(initial=steps))
        if steps:
            self.grow(rows, lengths + steps)
        usage = self.usage()
        return Leap.unlisted(np.full(steps, usage.held), np.full(steps, usage.cached))

    def _beyond(self, row: int, length: int) -> Refusal:
        """Return the refusal of a length beyond a row's reservation, which cannot be extended in place."""
        if length > self.max_model_len:
            return self.too_long(length)
        need = self.blocks_for(length)
        return Refusal(Reason.HOLE, need, need - self.blocks_for(int(self.table.slots[row])))

    def _open(self, slots: int, length: int) -> int:
        """Open a row that may grow to `slots` and is `length` tokens long."""
        row = self.table.open()
        self.table.slots[row] = slots
        self.table.length[row] = length
        return row


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class RunAllocator(ReservingAllocator):
    """An allocator in which each sequence holds one run of consecutive blocks, whose length a policy determines."""

    def __init__(
        self, placement: Placement, num_blocks: int, block_size: int, max_model_len: int, max_rows: int = 256
    ) -> None:
        """Make an empty pool, in which `placement` decides where runs go."""
        super().__init__(num_blocks, block_size, max_model_len, max_rows)
        self._placement = placement
        self._whole = placement.largest()
        self._empty = [hole.size for hole in placement.holes()]
        self._runs: dict[int, Span] = {}
        self._prompts: dict[int, int] = {}

    @abstractmethod
    def reservation(self, prompt: int, output: int | None) -> int:
        """Token slots that the policy reserves for a sequence; `output` is None unless the class is an `oracle`."""

    def told(self, output: int | None) -> int:
        """Return the true output length; raise `AllocatorError` if it was not given to an oracle."""
        if output is None or output < 1:
            raise AllocatorError(f"{self.kind}: an oracle must be told the output length, got {output}")
        return output

    def never(self, ask: Ask, final: int) -> Refusal | None:
        """See `Allocator.never`.  Refuses what exceeds `max_model_len`, or does not fit in an empty pool."""
        final = max(final, ask.whole)
        if final > self.max_model_len:
            return self.too_long(final)
        need = self._placement.size(self.blocks_for(max(final, self.reservation(ask.prompt, ask.output))))
        fitting = sum(hole // need for hole in self._empty)
        missing = max(need * (ask.samples - fitting), need * ask.samples + ask.spare - self.num_blocks)
        return Refusal(Reason.NEVER, need * ask.samples, missing) if missing > 0 else None

    def admit(self, ask: Ask) -> Grant | Refusal:
        """See `Allocator.admit`.  Reserves what the policy says, but never less than `ask.tokens` and `ask.whole`."""
        if ask.tokens < 1:
            raise AllocatorError(f"{self.kind}: a sequence has at least one token, got {ask.tokens}")
        slots = max(self.reservation(ask.prompt, ask.output), ask.tokens, ask.whole)
        return self._place(slots, ask.tokens, ask.prompt, ask.spare)

    def fork(self, row: int, output: int | None = None, content: Content | None = None) -> Grant | Refusal:
        """See `Allocator.fork`.  Makes a second reservation for the same prompt; all tokens are copied."""
        self.demand_open(row)
        length = int(self.table.length[row])
        prompt = self._prompts[row]
        grant = self._place(max(self.reservation(prompt, output), length), length, prompt, 0)
        return grant if isinstance(grant, Refusal) else grant._replace(copied=length)

    def _place(self, slots: int, tokens: int, prompt: int, spare: int) -> Grant | Refusal:
        if slots > self.max_model_len:
            return self.too_long(slots)
        blocks = self.blocks_for(slots)
        need = self._placement.size(blocks)
        if need > self._whole:
            return Refusal(Reason.NEVER, need, need - self._whole)
        if spare and need <= self._placement.largest() and need + spare > self._placement.free:
            return Refusal(Reason.BLOCKS, need, need + spare - self._placement.free)
        run = self._placement.take(blocks)
        if run is None:
            return Refusal(Reason.HOLE, need, need - self._placement.largest())
        row = self._open(slots, tokens)
        self._runs[row] = run
        self._prompts[row] = prompt
        self.table.count[row] = blocks
        self.table.blocks[row, :blocks] = np.arange(run.start + 1, run.start + 1 + blocks)
        return Grant(row, slots)

    def release(self, row: int) -> None:
        """See `Allocator.release`."""
        self.demand_open(row)
        self._placement.give(self._runs.pop(row))
        del self._prompts[row]
        self.table.close(row)

    def usage(self) -> Usage:
        """See `Allocator.usage`.  Runs are held; what they contain beyond the policy's slots is rounding."""
        held = (self.num_blocks - self._placement.free) * self.block_size
        return Usage(held, rounding=held - int(self.table.slots.sum()))

    def extents(self, rows: Ints) -> Ints:
        """See `Allocator.extents`."""
        return np.array([self._runs[row].size for row in rows.tolist()], np.int64)

    def padding(self) -> tuple[Ints, Ints]:
        """See `Allocator.padding`."""
        rows = np.fromiter(self._runs, np.int64, len(self._runs))
        starts, sizes = np.array([*self._runs.values()], np.int64).reshape(-1, 2).T
        more = sizes - self.table.count[rows]
        which, place = spread(more)
        return rows[which], (starts + 1 + sizes - more)[which] + place

    def largest_hole(self) -> int:
        """See `Allocator.largest_hole`."""
        return self._placement.largest() * self.block_size

    def stranded(self, need: int) -> int:
        """See `Allocator.stranded`.  `need` is first rounded as the placement rounds requests."""
        return self._placement.stranded(need) * self.block_size

    def check(self) -> None:
        """See `Allocator.check`.  Runs and holes must tile the pool, and the table must list the runs."""
        self._placement.check(self._runs.values())
        if set(self._runs) != set(self.table.rows()):
            raise CorruptionError(f"runs of rows {sorted(self._runs)}, open rows {self.table.rows()}")
        for row, run in self._runs.items():
            ids = self.table.row(row)
            count = self.blocks_for(int(self.table.slots[row]))
            first = run.start + 1
            if count > run.size or not np.array_equal(ids, np.arange(first, first + count)):
                raise CorruptionError(f"row {row} lists blocks {ids.tolist()}, its run is [{first}, {run.stop}]")
            if not 0 < self.table.length[row] <= self.table.slots[row]:
                raise CorruptionError(f"row {row} has {self.table.length[row]} tokens in {self.table.slots[row]} slots")
