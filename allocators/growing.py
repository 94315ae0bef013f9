"""Growing by concatenation: every new token replaces each tensor of a sequence by a longer one (DynamicCache).

This is what Hugging Face transformers does by default.  `torch.cat` allocates a tensor that is one token
longer, copies the old one into it, and only then frees the old one.  Nothing is reserved, so memory use
follows the number of tokens; but each step copies the whole cache, and for a moment a tensor exists twice.
The tensors come from PyTorch's caching allocator, whose rounding, segments and holes take memory too: on
average within 2 % of what placing every tensor gives (`allocators.tensors`).

The tokens of a sequence are in one tensor per layer for K and one for V, each at its own address, so no
block table can list them: rows have no blocks, and a block is only a unit of counting.  Executors that
really decode also really concatenate.
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from allocators.answers import Ask, Grant, Growth, Leap, Reason, Refusal, Usage
from allocators.compiled import mypyc_attr
from allocators.errors import CorruptionError
from allocators.lockstep import ExactRows, most_steps
from allocators.options import BLOCK_SIZE, KV_TENSORS, TENSOR_TOKEN_BYTES, Option
from allocators.table import Ints
from allocators.tensors import Footprints, PlacedTensors


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class GrowingAllocator(ExactRows):
    """Tensors that are exactly as long as their sequence."""

    kind = "growing"
    concatenates = True
    options = MappingProxyType(
        {
            "block_size": BLOCK_SIZE._replace(default=1),
            "expandable_segments": Option(
                bool, False, "PyTorch's expandable segments, which waste no end of a segment"
            ),
            "trace_tensors": Option(bool, False, "also place every tensor, for exact peaks of memory (slow)"),
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
        expandable_segments: bool = False,
        trace_tensors: bool = False,
        kv_tensors: int = 64,
        tensor_token_bytes: int = 2048,
    ) -> None:
        """Make an empty pool."""
        super().__init__(num_blocks, block_size, max_model_len, max_rows)
        self._slot_bytes = kv_tensors * tensor_token_bytes
        capacity = self.capacity * self._slot_bytes
        self._memory = Footprints(
            kv_tensors, tensor_token_bytes, capacity, max_model_len, expandable_segments=expandable_segments
        )
        self.tensors = (
            PlacedTensors(kv_tensors, tensor_token_bytes, capacity, expandable_segments=expandable_segments)
            if trace_tensors
            else None
        )
        """The address of each tensor, if they are traced."""
        self._longest: int | None = 0
        """Tokens of the longest row; None if they must be looked up, as that row has been closed."""
        self._usage: Usage | None = None
        """The result of `usage` since lengths last changed; it is called more than once per step."""

    def never(self, ask: Ask, final: int) -> Refusal | None:
        """See `Allocator.never`.  Refuses what exceeds `max_model_len`, or does not fit together with its copy."""
        if max(final, ask.whole) > self.max_model_len:
            return self.too_long(max(final, ask.whole))
        need = self._memory.alone(max(final, ask.whole), ask.samples) + ask.spare * self.block_size * self._slot_bytes
        missing = need - self._memory.capacity
        return Refusal(Reason.NEVER, self._blocks(need), self._blocks(missing)) if missing > 0 else None

    def open_row(self, tokens: int, whole: int, spare: int, samples: int) -> Grant | Refusal:
        """See `ExactRows.open_row`.  Allocates the row's tensors."""
        table, memory = self.table, self._memory
        if whole > self.max_model_len:
            return self.too_long(whole)
        need = memory.more(whole, self.longest, samples) + spare * self.block_size * self._slot_bytes
        missing = memory.held(self.longest) + need - memory.capacity
        if missing > 0:
            return Refusal(Reason.BLOCKS, self._blocks(need), self._blocks(missing))
        row = table.open()
        self._enter(row, tokens)
        self._longest = max(self.longest, tokens)
        if self.tensors:
            self.tensors.add(row, tokens)
        return Grant(row, tokens)

    @property
    def longest(self) -> int:
        """Tokens of the longest row, 0 if there is none."""
        if self._longest is None:
            self._longest = int(self.table.length.max())
        return self._longest

    def grow(self, rows: Ints, lengths: Ints) -> Growth:
        """See `Allocator.grow`.  Everything that a row held before is copied."""
        before = self.demand_longer(rows, lengths)
        refusal, most = None, int(lengths.max(initial=0))
        if (taken := self._all_fit(before, lengths, most)) is None:
            granted, refusal, taken = self._some_fit(rows, lengths)
            rows, lengths, before = rows[:granted], lengths[:granted], before[:granted]
            most = int(lengths.max(initial=0))
        longer = lengths > before
        self._memory.taken = taken
        self._longest = max(self.longest, most)
        self._set(rows, lengths)
        if self.tensors:
            self.tensors.concatenate(rows[longer].tolist(), lengths[longer].tolist())
        return Growth(len(rows), refusal, copied=int(before[longer].sum()))

    def can_grow(self, rows: Ints, lengths: Ints) -> bool:
        """See `Allocator.can_grow`."""
        return self._all_fit(self.demand_longer(rows, lengths), lengths, int(lengths.max(initial=0))) is not None

    def _all_fit(self, before: Ints, lengths: Ints, most: int) -> int | None:
        """Return the bytes that all tensors take once rows have grown to `lengths`; None if that does not fit."""
        memory = self._memory
        if most > self.max_model_len:
            return None
        taken = memory.taken + memory.difference(before, lengths)
        held = taken + memory.sizes.item(max(most, self.longest))
        return taken if held <= memory.capacity else None

    def _some_fit(self, rows: Ints, lengths: Ints) -> tuple[int, Refusal, int]:
        """Return how many rows can grow, why the next one cannot, and the bytes that all tensors then take."""
        memory = self._memory
        taken, held = self._growth(rows, lengths)
        granted = int(((held <= memory.capacity) & (lengths <= self.max_model_len)).argmin())
        length, so_far = int(lengths[granted]), int(taken[granted - 1]) if granted else memory.taken
        if length > self.max_model_len:
            return granted, self.too_long(length), so_far
        missing = int(held[granted]) - memory.capacity
        need = int(held[granted] - (held[granted - 1] if granted else memory.held(self.longest)))
        return granted, Refusal(Reason.BLOCKS, self._blocks(max(need, missing)), self._blocks(missing)), so_far

    def demand(self, rows: Ints, lengths: Ints) -> Ints:
        """See `Allocator.demand`."""
        self.demand_longer(rows, lengths)
        _, held = self._growth(rows, lengths)
        size = self.block_size * self._slot_bytes
        return np.diff(-(-held // size), prepend=-(-self._memory.held(self.longest) // size))

    def advance(self, rows: Ints, lengths: Ints, steps: int) -> Leap:
        """See `Allocator.advance`.  Leaps as far as memory and `max_model_len` allow, within `most_steps`."""
        memory = self._memory
        self.demand_longer(rows, lengths)
        most = int(lengths.max(initial=0))
        steps = min(steps, most_steps(len(rows), most, self.max_model_len))
        taken, held = memory.foresee(lengths, steps, most, self.longest)
        if not steps or held[-1] > memory.capacity:
            steps = int(held.searchsorted(memory.capacity, side="right"))
            if not steps:
                return Leap.none()
        memory.taken = taken.item(steps - 1)
        self._longest = max(self.longest, most + steps)
        self._set(rows, lengths + steps)
        if self.tensors:
            for step in range(1, steps + 1):
                self.tensors.concatenate(rows.tolist(), (lengths + step).tolist())
        held = (held[:steps] + (self._slot_bytes - 1)) // self._slot_bytes
        return Leap.unlisted(held, np.zeros(steps, np.int64), int(lengths.sum()))

    def _growth(self, rows: Ints, lengths: Ints) -> tuple[Ints, Ints]:
        """See `Footprints.growth`; lengths beyond `max_model_len` count as that."""
        return self._memory.growth(self.table.length[rows], np.minimum(lengths, self.max_model_len), self.longest)

    def _enter(self, row: int, length: int) -> None:
        """Record the length of a row that has just been opened; 0 for one that is about to be closed."""
        views = self.table.views
        self._memory.change(views.length[row], length)
        views.length[row] = views.slots[row] = length
        self._usage = None

    def _set(self, rows: Ints, lengths: Ints) -> None:
        self.table.length[rows] = self.table.slots[rows] = lengths
        self._usage = None

    def release(self, row: int) -> None:
        """See `Allocator.release`."""
        self.demand_open(row)
        if self.table.length[row] == self._longest:
            self._longest = None
        self._enter(row, 0)
        if self.tensors:
            self.tensors.drop(row)
        self.table.close(row)

    def usage(self) -> Usage:
        """See `Allocator.usage`.  Tensors and the copy of one are held; what is not tokens is rounding."""
        if self._usage is None:
            length = self.table.length
            held = -(-self._memory.held(self.longest) // self._slot_bytes)
            self._usage = Usage(held, rounding=held - int(length.sum()))
        return self._usage

    def check(self) -> None:
        """See `Allocator.check`.  Sums must be right, rows must list no blocks, and traced tensors be consistent."""
        table = self.table
        if table.count.any() or table.blocks.any():
            raise CorruptionError("a row lists blocks, but sequences are tensors of their own")
        if (table.length != table.slots).any() or np.flatnonzero(table.length).tolist() != table.rows():
            raise CorruptionError("the open rows are not those that have tokens, all in slots of their own")
        self._memory.check(table.length)
        if self.longest != table.length.max():
            raise CorruptionError(f"the longest row has {table.length.max()} tokens, noted {self.longest}")
        if self.tensors:
            self.tensors.check(table.rows())

    def _blocks(self, size: int) -> int:
        return -(-size // (self.block_size * self._slot_bytes))
