"""The interface of every allocator: its verbs, and the questions it answers.

An allocator owns a pool of physical blocks and hands them to sequences.  It is a
pure data structure: no clock, no queue, no framework; a simulator and a real engine
call the same methods.  Three rules keep it honest:

* A *refusal* is a value (`Refusal`) that says why and by how much.  A refused verb
  has changed nothing.  Misuse (such as a row that is not open) raises `AllocatorError`.
* An allocator never learns how long an output will really be, unless its class says
  that `oracle` is true.
* Physical block ids run from 1 to `num_blocks`.  Block 0 is the *null block*: never
  handed out and always readable, so that a table row can be padded with it.

Arguments and results are defined in `answers.py`; `regular.py` defines how an engine may
let rows grow without asking for every token.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Self

import numpy as np

from allocators.answers import (
    MISS,
    NO_MAPPINGS,
    Ask,
    Grant,
    Growth,
    Hit,
    Leap,
    Mappings,
    Measure,
    Reason,
    Refusal,
    Swap,
    Usage,
)
from allocators.compiled import copied_whole, mypyc_attr
from allocators.content import Content
from allocators.errors import AllocatorError
from allocators.options import BLOCK_SIZE, Option, Value, resolve
from allocators.regular import RegularGrowth
from allocators.table import BlockTable, Columns, Ints


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Allocator(RegularGrowth):
    """A pool of `num_blocks` blocks of `block_size` token slots, and who holds them.

    `table` is the only record of who holds what that an executor needs: row `r` of
    `table.blocks` lists the physical ids of one sequence in logical order.
    """

    kind: ClassVar[str]
    """Name in workload files and reports."""
    options: ClassVar[Mapping[str, Option]] = MappingProxyType({"block_size": BLOCK_SIZE})
    """What a workload file may set; each is a keyword argument of the constructor."""
    recomputes: ClassVar[bool] = False
    """True if K/V does not outlive a step, so that every step recomputes all known tokens."""
    concatenates: ClassVar[bool] = False
    """True if a sequence is its own tensors, replaced by longer copies whenever it grows; its row lists no blocks."""
    free_preemption: ClassVar[bool] = False
    """True if preempting a sequence and restoring it costs nothing (the bound)."""
    scattered: ClassVar[bool] = False
    """True if a sequence's blocks may lie anywhere, so that attention must read through the block table."""
    shares: ClassVar[bool] = False
    """True if `fork` shares blocks and so takes no room; other allocators take room for a whole group on admission."""

    def __init_subclass__(cls) -> None:
        """See `allocators.compiled`."""
        super().__init_subclass__()
        copied_whole(cls)

    def __init__(self, num_blocks: int, block_size: int, max_model_len: int, max_rows: int = 256) -> None:
        """Make an empty pool.

        Args:
            num_blocks: physical blocks that can be handed out, ids 1 to num_blocks.
            block_size: token slots a block.
            max_model_len: the longest sequence, in token slots.
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
        self.columns = Columns.plain(self.table.width, block_size)
        """What a block holds, by its column of the table."""

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
            max_model_len: the longest sequence, in token slots.
            max_rows: sequences expected at once.
            facts: what is known of the model (see `Option.fact`).
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
        """Token slots per block under these (resolved) options: the unit in which the pool is counted."""
        return int(values["block_size"] or 0)

    @classmethod
    def measure(cls, values: Mapping[str, Value]) -> Measure:
        """Return the unit in which the pool is counted under these (resolved) options."""
        return Measure(cls.slots_per_block(values))

    @property
    def oracle(self) -> bool:
        """True if `Ask.output` may be read; depends on the options for some classes."""
        return False

    @property
    def settled(self) -> bool:
        """True if a refused `admit` stays refused until something is released (as without a cache)."""
        return True

    @property
    def swaps(self) -> bool:
        """True if sequences can be moved to a host."""
        return type(self).swap_out_group is not Allocator.swap_out_group

    @property
    def token_slots(self) -> int:
        """Slots that one token takes: 1, or several where groups of layers are counted separately."""
        return 1

    @property
    def page_bytes(self) -> int:
        """Bytes of a physical page, for allocators that map pages (see `mappings`)."""
        return 0

    @property
    def capacity(self) -> int:
        """Token slots in the pool."""
        return self.num_blocks * self.block_size

    @property
    def free(self) -> int:
        """Token slots that are neither held nor cached."""
        usage = self.usage()
        return self.capacity - usage.held - usage.cached

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold `tokens` token slots."""
        return -(-tokens // self.block_size)

    def too_long(self, length: int) -> Refusal:
        """Refuse `length` token slots, which exceed `max_model_len`."""
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
        """Find the longest cached prefix of the first `tokens` tokens.  Changes nothing.

        Never covers the last token: a full hit still computes it.
        """
        return MISS

    @abstractmethod
    def never(self, ask: Ask, final: int) -> Refusal | None:
        """Return why sequences that will use `final` slots each could not run even alone, or None.  Changes nothing."""

    @abstractmethod
    def admit(self, ask: Ask) -> Grant | Refusal:
        """Open a row for a sequence and give it `ask.tokens` slots, or as many as policy reserves.

        All or nothing.  Blocks of `ask.hit` are shared, not taken.
        """

    @abstractmethod
    def grow(self, rows: Ints, lengths: Ints) -> Growth:
        """Make room for each row to be `lengths` tokens long, in the order given.

        Equivalent to one call per row: stops at the first row that cannot grow; that row and
        those after it are unchanged.  Blocks that become full are entered in the prefix
        cache.  A row may appear once.

        Args:
            rows: int64[n], open rows of `table`.
            lengths: int64[n], token slots each will use, not less than it uses now.

        """

    def advance(self, rows: Ints, lengths: Ints, steps: int) -> Leap:
        """Let every row grow by one token, in the order given, up to `steps` times over.

        Has exactly the effect of that many calls of `grow`, block ids included; stops before
        the first step in which a row would be refused or pages would be mapped.  An allocator
        may stop earlier, after at least one step.  This default does one.

        Args:
            rows: int64[n], open rows.
            lengths: int64[n], tokens each holds before the first step.
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
        """Say whether `grow` with the same arguments would grant every row.  Changes nothing."""

    def demand(self, rows: Ints, lengths: Ints) -> Ints:
        """Return int64[n]: how many free blocks `grow` with the same arguments takes for each row, at most.

        Changes nothing.
        """
        size = self.block_size
        more: Ints = -(-lengths // size) - -(-self.table.slots[rows] // size)
        return more.clip(min=0)

    def fork(self, row: int, output: int | None = None, content: Content | None = None) -> Grant | Refusal:
        """Open a second row that holds the same tokens as `row`.

        Allocators that share blocks share every block until one of the two writes; others take
        new room and say in `Grant.copied` how many tokens must be copied.

        Args:
            row: an open row.
            output: as `Ask.output`.
            content: the tokens of the new row, equal to those of `row` so far; without it
                nothing that it writes enters the prefix cache.

        """
        raise AllocatorError(f"{self.kind} cannot fork")

    @abstractmethod
    def release(self, row: int) -> None:
        """Close a row and give back the blocks that only it held."""

    def swap_out(self, row: int) -> Swap | Refusal:
        """Move a sequence to the host; its row is closed and a host row opened."""
        swaps = self.swap_out_group([row])
        return swaps if isinstance(swaps, Refusal) else swaps[0]

    def swap_in(self, row: int, spare: int = 0) -> Swap | Refusal:
        """Move a sequence back; `row` is a host row.

        `spare` blocks must still be free afterwards, and if any need be, the sequence's next token must find room.
        """
        swaps = self.swap_in_group([row], spare)
        return swaps if isinstance(swaps, Refusal) else swaps[0]

    def swap_out_group(self, rows: Sequence[int]) -> list[Swap] | Refusal:
        """Do `swap_out` for all of `rows`, the sequences of one request, or for none."""
        raise AllocatorError(f"{self.kind} cannot swap")

    def swap_in_group(self, rows: Sequence[int], spare: int = 0) -> list[Swap] | Refusal:
        """Do `swap_in` for all of `rows`, which are host rows, or for none."""
        raise AllocatorError(f"{self.kind} cannot swap")

    @abstractmethod
    def usage(self) -> Usage:
        """Count the pool.  O(1); `check` recomputes it."""

    def repeated(self, aside: Sequence[int] = ()) -> int:
        """Count the tokens that rows share: over all blocks, (rows that list it - 1) x tokens in it.

        When all rows attend, this many K/V tokens are read that were read for another row already.  Where groups of
        layers are kept separately, the group that keeps all tokens counts.  Changes nothing.  O(1), except for rows
        set aside.

        Args:
            aside: open rows that do not count.

        """
        return 0

    def mappings(self) -> Mappings:
        """Count the physical pages mapped and unmapped since the beginning; those of a step add to its time."""
        return NO_MAPPINGS

    def evictions(self) -> int:
        """Count the cached blocks evicted since the beginning, because their room was needed."""
        return 0

    def cached_blocks(self) -> Ints:
        """Return int64[k]: physical ids of the blocks that nobody holds and that are kept for reuse, in any order."""
        return np.zeros(0, np.int64)

    def padding(self) -> tuple[Ints, Ints]:
        """Return int64[k] rows and int64[k] blocks that they hold beyond their tables only because placement rounds up.

        In any order; a row is listed once for each such block.
        """
        return np.zeros(0, np.int64), np.zeros(0, np.int64)

    def extents(self, rows: Ints) -> Ints | None:
        """Return int64[n]: blocks that each row holds, `padding` included, if their ids follow one another; or None.

        Args:
            rows: int64[n], open rows.

        """
        return None

    def largest_hole(self) -> int:
        """Token slots in the longest run of free blocks that one request could be given."""
        return self.free

    def stranded(self, need: int) -> int:
        """Token slots that are free but in holes shorter than `need` blocks (external fragmentation)."""
        return 0

    @abstractmethod
    def check(self) -> None:
        """Recompute every invariant from scratch; raise `CorruptionError` at the first that fails."""
