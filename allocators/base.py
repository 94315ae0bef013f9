"""The interface that every allocator implements.

An allocator owns a pool of physical blocks and gives them to sequences.  It is a pure data structure, without a
clock, a queue or a framework, so a simulator and a real engine can call the same methods.  Three rules apply to all:

* A call that cannot be granted returns a `Refusal`, which says why and how many blocks are missing, and changes
  nothing.  Misuse, such as naming a row that is not open, raises `AllocatorError`.
* An allocator does not know how long an output will be, unless its class declares itself an `oracle`.
* Physical block ids run from 1 to `num_blocks`.  Block 0 is the *null block*: it is never handed out and always
  readable, so unused entries of the block table point to it.

This module says what an allocator does.  `counting.py` says what it tells about its pool, and `regular.py` how an
engine may let sequences grow without calling it for every token; `answers.py` defines arguments and results.  An
allocator must define `never`, `admit`, `grow`, `can_grow`, `release`, `usage` and `check`; all else has a default.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Self

import numpy as np

from allocators.answers import MISS, Ask, Grant, Growth, Hit, Leap, Measure, Reason, Refusal, Swap
from allocators.compiled import copied_whole, mypyc_attr
from allocators.content import Content
from allocators.counting import Counting
from allocators.errors import AllocatorError
from allocators.options import BLOCK_SIZE, Option, Value, resolve
from allocators.table import BlockTable, Columns, Ints


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Allocator(Counting):
    """A pool of `num_blocks` blocks of `block_size` token slots each, and the sequences that hold them.

    An executor needs nothing but `table`: row `r` of `table.blocks` lists the physical block ids of one sequence in
    logical order.
    """

    kind: ClassVar[str]
    """Name in workload files and reports."""
    options: ClassVar[Mapping[str, Option]] = MappingProxyType({"block_size": BLOCK_SIZE})
    """The options of a workload file; each is a keyword argument of the constructor."""
    recomputes: ClassVar[bool] = False
    """True if no K/V is kept between steps, so that every step recomputes all tokens so far."""
    concatenates: ClassVar[bool] = False
    """True if each sequence has tensors of its own, which are replaced by longer copies whenever it grows; its row
    lists no blocks."""
    free_preemption: ClassVar[bool] = False
    """True if preempting and restoring a sequence costs nothing (only the ideal allocator)."""
    scattered: ClassVar[bool] = False
    """True if a sequence's blocks may lie anywhere in the pool, so that attention must read through the block table."""
    shares: ClassVar[bool] = False
    """True if `fork` shares blocks and therefore takes none; other allocators take the blocks of all samples of a
    request when it is admitted."""

    def __init_subclass__(cls) -> None:
        """Make copies of instances complete where this class is compiled (see `allocators.compiled`)."""
        super().__init_subclass__()
        copied_whole(cls)

    def __init__(self, num_blocks: int, block_size: int, max_model_len: int, max_rows: int = 256) -> None:
        """Make an empty pool.

        Args:
            num_blocks: physical blocks that can be handed out, with ids 1 to num_blocks.
            block_size: token slots per block.
            max_model_len: length of the longest sequence, in token slots.
            max_rows: sequences expected at once; the table doubles when there are more.

        """
        if num_blocks < 1 or block_size < 1 or max_model_len < 1:
            raise AllocatorError(
                f"a pool needs at least one block of one slot, got {num_blocks} blocks of {block_size} slots "
                f"for sequences of {max_model_len}"
            )
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.max_model_len = max_model_len
        self.table = BlockTable(max_rows, -(-max_model_len // block_size))
        self.columns = Columns.plain(block_size)
        """Which tokens the block in each column of the table holds."""

    @classmethod
    def from_options(
        cls,
        *,
        num_blocks: int,
        max_model_len: int,
        max_rows: int = 256,
        facts: Mapping[str, Value] = MappingProxyType({}),
        **options: Value,
    ) -> Self:
        """Make an empty pool from the options of a workload file, as `registry.create` does.

        Args:
            num_blocks: physical blocks of `cls.slots_per_block(...)` token slots.
            max_model_len: length of the longest sequence, in token slots.
            max_rows: sequences expected at once.
            facts: properties of the model and the run, by name (see `Option.fact`).
            options: as declared in `cls.options`.

        Raises:
            ValueError: an option is unknown or has a bad value.

        """
        values = resolve(cls.kind, cls.options, options, facts)
        block_size = cls.slots_per_block(values)
        values.pop("block_size", None)
        make: Callable[..., Self] = cls  # subclasses take their options as keywords
        return make(num_blocks, block_size, max_model_len, max_rows, **values)

    @classmethod
    def slots_per_block(cls, values: Mapping[str, Value]) -> int:
        """Token slots per block under these (resolved) options."""
        return int(values["block_size"] or 0)

    @classmethod
    def measure(cls, values: Mapping[str, Value]) -> Measure:
        """Return the unit in which the pool's capacity is counted under these (resolved) options."""
        return Measure(cls.slots_per_block(values))

    @property
    def oracle(self) -> bool:
        """True if the allocator reads `Ask.output`, the true output length; may depend on its options."""
        return False

    @property
    def settled(self) -> bool:
        """True if a refused `admit` stays refused until a row is released.

        False where growing rows can change the answer, for example by entering blocks in a prefix cache.
        """
        return True

    @property
    def swaps(self) -> bool:
        """True if sequences can be swapped out to host memory."""
        return type(self).swap_out_group is not Allocator.swap_out_group

    @property
    def token_slots(self) -> int:
        """Slots that one token takes: 1, or more where the pool is counted in parts of a token (`HybridAllocator`)."""
        return 1

    @property
    def page_bytes(self) -> int:
        """Bytes of a physical page, for allocators that map pages (see `mappings`); 0 for all others."""
        return 0

    def blocks_for(self, tokens: int) -> int:
        """Blocks needed for `tokens` token slots."""
        return -(-tokens // self.block_size)

    def too_long(self, length: int) -> Refusal:
        """Return the refusal of `length` token slots, which exceed `max_model_len`."""
        return Refusal(Reason.LENGTH, self.blocks_for(length), self.blocks_for(length - self.max_model_len))

    def demand_open(self, row: int) -> None:
        """Raise `AllocatorError` unless `row` is open."""
        if row not in self.table:
            raise AllocatorError(f"{self.kind}: row {row} is not open")

    @staticmethod
    def demand_each_once(rows: Sequence[int]) -> None:
        """Raise `AllocatorError` if a row is named twice."""
        if len(set(rows)) < len(rows):
            raise AllocatorError(f"a row is named twice: {rows}")

    def lookup(self, content: Content, tokens: int) -> Hit:
        """Find the longest cached prefix of the first `tokens` tokens.

        The prefix never includes the last of them, which must be computed to produce logits.  Does not change what
        the allocator holds.
        """
        return MISS

    @abstractmethod
    def never(self, ask: Ask, final: int) -> Refusal | None:
        """Return why a request could not run even alone in the pool, or None if it could.  Changes nothing.

        Args:
            ask: what the request would be admitted with.
            final: token slots that each of its sequences will have used when it ends.

        """

    @abstractmethod
    def admit(self, ask: Ask) -> Grant | Refusal:
        """Open a row for a sequence and give it `ask.tokens` slots, or more if the allocator reserves in advance.

        The blocks of `ask.hit` are shared; only those for the remaining tokens are taken.
        """

    @abstractmethod
    def grow(self, rows: Ints, lengths: Ints) -> Growth:
        """Make room for each row to be `lengths` tokens long, in the given order.

        Equivalent to one call per row: it stops at the first row that cannot grow, and leaves that row and all after
        it unchanged.  Blocks that become full are entered in the prefix cache, so the content of a row must know its
        tokens up to `lengths` before (`Tokens.extend`).  A row with a sliding window gives
        back what the next token does not read, unless it gets none: the last one may be yet to be computed.

        Args:
            rows: int64[n], open rows of `table`, each at most once.
            lengths: int64[n], token slots that each will use, not less than it uses now.

        """

    def advance(self, rows: Ints, lengths: Ints, steps: int) -> Leap:
        """Let every row grow by one token in each of up to `steps` steps, in the given order.

        Equivalent to that many calls of `grow`, down to the block ids.  It stops before the first step in which a row
        would be refused or pages would be mapped; it may stop earlier, but not before the first step without such a
        reason.  This default implementation does one step.

        Args:
            rows: int64[n], open rows.
            lengths: int64[n], tokens that each holds before the first step.
            steps: at least 1.

        """
        before, evictions = self.table.slots[rows], self.evictions()
        if not self.can_grow(rows, lengths + 1):
            return Leap.none()
        growth = self.grow(rows, lengths + 1)
        after = self.table.slots[rows]
        who = np.flatnonzero(after != before)
        when = np.zeros(len(who), np.int64)
        held, cached, rounding = (np.array([slots]) for slots in self.usage()[:3])
        evicted = np.array([self.evictions() - evictions])
        return Leap(1, when, who, after[who], held, cached, growth.copies, growth.copied, rounding, evicted)

    @abstractmethod
    def can_grow(self, rows: Ints, lengths: Ints) -> bool:
        """Return whether `grow` with the same arguments would grant every row.  Changes nothing."""

    def demand(self, rows: Ints, lengths: Ints) -> Ints:
        """Return int64[n]: at most how many free blocks `grow` would take for each row.  Changes nothing.

        Args:
            rows: as for `grow`.
            lengths: as for `grow`.

        """
        size = self.block_size
        more: Ints = -(-lengths // size) - -(-self.table.slots[rows] // size)
        return more.clip(min=0)

    def fork(self, row: int, output: int | None = None, content: Content | None = None) -> Grant | Refusal:
        """Open a second row that holds the same tokens as `row`.

        Allocators that share blocks share all of them until one of the rows writes into a shared block; others take
        new blocks and report in `Grant.copied` how many tokens must be copied.

        Args:
            row: an open row.
            output: as `Ask.output`.
            content: the tokens of the new row, equal to those of `row` so far; without it, blocks that the new row
                fills are not entered in the prefix cache.

        """
        raise AllocatorError(f"{self.kind} cannot fork")

    @abstractmethod
    def release(self, row: int) -> None:
        """Close a row and free the blocks that no other row holds."""

    def swap_out(self, row: int) -> Swap | Refusal:
        """Move a sequence to host memory: its row is closed and a row of the host's table is opened."""
        swaps = self.swap_out_group([row])
        return swaps if isinstance(swaps, Refusal) else swaps[0]

    def swap_in(self, row: int, spare: int = 0) -> Swap | Refusal:
        """Move a sequence back to the device.

        Args:
            row: a row of the host's table.
            spare: blocks that must still be free afterwards, among them one for each sequence's next token; where a
                token takes several (a block in each group of layers) at least so many, unless it is 0.

        """
        swaps = self.swap_in_group([row], spare)
        return swaps if isinstance(swaps, Refusal) else swaps[0]

    def swap_out_group(self, rows: Sequence[int]) -> list[Swap] | Refusal:
        """Move all of `rows`, the sequences of one request, to the host, or none of them."""
        raise AllocatorError(f"{self.kind} cannot swap")

    def swap_in_group(self, rows: Sequence[int], spare: int = 0) -> list[Swap] | Refusal:
        """Move all of `rows`, rows of the host's table, back to the device, or none of them; see `swap_in`."""
        raise AllocatorError(f"{self.kind} cannot swap")

    @abstractmethod
    def check(self) -> None:
        """Recompute every invariant from scratch; raise `CorruptionError` for the first one that does not hold."""
