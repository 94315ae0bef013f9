"""What every allocator answers to, and the words it answers with.

An allocator owns a pool of physical blocks and hands them to sequences.  It is a
pure data structure: no clock, no queue, no framework; a simulator and a real engine
call the same methods.  Three rules keep it honest:

* A *refusal* is a value (`Refusal`) that says why and by how much.  A refused verb
  has changed nothing.  Misuse (a row that is not open, say) raises `AllocatorError`.
* An allocator never learns how long an output will really be, unless its class says
  `oracle` is true.
* Physical block ids run from 1 to `num_blocks`.  Block 0 is the *null block*: never
  handed out, always readable, so that a table row can be padded with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar, NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from allocators.compiled import copied_whole, mypyc_attr
from allocators.content import Content
from allocators.options import Option, Value, resolve
from allocators.table import BlockTable, Columns

Ints: TypeAlias = npt.NDArray[np.int64]

BLOCK_SIZE = Option(int, 16, "token slots a block", minimum=1, maximum=1024)
LARGE = 4
"""Slots a block from which on it pays to name only rows that run out; in smaller ones most rows do."""
NO_ROWS: frozenset[int] = frozenset()


class AllocatorError(Exception):
    """A verb was called in a way that no correct engine would; nothing was changed."""


class CorruptionError(AllocatorError):
    """`Allocator.check` found an invariant broken."""


class Reason(StrEnum):
    """Why an allocator refuses."""

    BLOCKS = "too few free blocks"
    HOLE = "no hole is large enough"
    ROWS = "no free row"
    HOST = "too little room on the host"
    NEVER = "larger than the whole pool"
    LENGTH = "longer than max_model_len"


class Refusal(NamedTuple):
    """The answer no.  The allocator is as it was before the call."""

    reason: Reason
    need: int
    """Blocks asked for; for a contiguous allocator, the length of the hole asked for."""
    shortfall: int
    """Blocks missing: how many more must become free before the same call can succeed."""


class Hit(NamedTuple):
    """A prefix found in the cache.  Valid until the allocator next changes."""

    tokens: int = 0
    blocks: tuple[int, ...] = ()
    """Physical ids in logical order; 0 where a sliding window has left a block behind."""


MISS = Hit()


class Ask(NamedTuple):
    """What a sequence wants on admission."""

    content: Content
    """What its tokens are, for the prefix cache; not its length."""
    prompt: int
    """Prompt tokens."""
    tokens: int
    """Token slots to take now, the hit included."""
    hit: Hit = MISS
    """What `lookup` just answered."""
    whole: int = 0
    """Token slots that must fit now even though only `tokens` are taken."""
    spare: int = 0
    """Blocks that must still be free afterwards (the watermark)."""
    output: int | None = None
    """True output length in tokens; set for allocators whose `oracle` is true only."""
    samples: int = 1
    """Sequences that are to hold these tokens at once, each to be continued on its own: `never` and `admit` answer
    for all of them, but `admit` opens one row, and is asked again for what sharing does not spare."""


class Grant(NamedTuple):
    """The answer yes to one sequence."""

    row: int
    """Its row in `Allocator.table`."""
    slots: int
    """Token slots it may use before it must ask again; placement rounding not counted."""
    copied: int = 0
    """Tokens whose K/V must be copied because of this grant."""


class Copy(NamedTuple):
    """K/V of one whole block to be copied before the step runs (copy-on-write, or a move)."""

    source: int
    target: int


class Growth(NamedTuple):
    """The answer to `grow`: the first `granted` rows got what they asked for, in order."""

    granted: int
    refusal: Refusal | None = None
    """Why row number `granted` did not, when not all did."""
    copies: Sequence[Copy] = ()
    """Block copies due before the step."""
    copied: int = 0
    """Tokens whose K/V is copied because of this call (a `Copy` counts its filled slots)."""


class Leap(NamedTuple):
    """The answer to `advance`: what `steps` equal calls of `grow` would have changed."""

    steps: int
    """Steps done; 0 if the very first would be refused, or takes time of its own (it maps pages: see `mappings`)."""
    when: Ints
    """For each time a row came to hold more: the step, 0-based, ascending."""
    who: Ints
    """... the row's index in the `rows` argument."""
    slots: Ints
    """... and the slots that row holds from then on."""
    held: Ints
    """int64[steps]: `Usage.held` after each step."""
    cached: Ints
    """int64[steps]: `Usage.cached` after each step."""
    copies: Sequence[Copy] = ()
    """Block copies due before the step; a leap that copies is one step long."""
    copied: int = 0
    """Tokens whose K/V is copied before the first step; `concatenates` says that each step copies all it had."""
    rounding: Ints | None = None
    """int64[steps]: `Usage.rounding` after each step; None if it stays as it is."""
    evicted: Ints | None = None
    """int64[steps]: cached blocks evicted by each step; None if none was."""


class Swap(NamedTuple):
    """A sequence moved between device and host."""

    row: int
    """Its row in the table of the side it is now on."""
    slots: int
    """Token slots it holds there."""
    moves: Sequence[Copy]
    """Block moves, device id and host id; blocks shared by several sequences move once."""


class Usage(NamedTuple):
    """How much of the pool is taken, in token slots.  `capacity - held - cached` is free."""

    held: int
    """In blocks that a running sequence holds, a shared block once."""
    cached: int = 0
    """In blocks that nobody holds, kept for reuse and evictable."""
    rounding: int = 0
    """Part of `held` that exists only because placement rounds up."""
    saved: int = 0
    """Filled slots that sharing avoids: sum over blocks of (references - 1) x filled."""
    dropped: int = 0
    """Tokens of running sequences that hold no slot any more (left of a sliding window)."""
    swapped: int = 0
    """On the host."""
    states: int = 0
    """In states of running sequences, which do not grow with tokens; a shared one once for each holder."""


class Measure(NamedTuple):
    """In what the pool of an allocator is counted."""

    block_size: int
    """Token slots a block."""
    slot_bytes: int = 0
    """Bytes of a slot; 0 where it is the K/V of one token over all layers."""
    token_slots: int = 1
    """Slots that one token takes."""
    multiple: int = 1
    """The pool is a whole number of so many blocks."""
    states: bool = False
    """Whether the states of recurrent layers lie in blocks too, so that no memory is set aside for them."""


class Portion(NamedTuple):
    """What a row of a `regular` allocator takes at a time, and what it leaves behind; in slots of the pool."""

    tokens: int
    """Tokens that a portion is the room for."""
    held: int
    """What a row holds more with each."""
    rounding: int = 0
    """Part of it that is rounding."""
    left_held: int = 0
    """What it holds less with each that its windows leave behind ..."""
    left_rounding: int = 0
    left_live: int = 0
    """... and how much of that was live."""


class Mappings(NamedTuple):
    """Calls to the driver, for allocators that map physical pages into virtual ranges; never decreasing."""

    mapped: int = 0
    """Pages mapped so far."""
    unmapped: int = 0
    """Pages unmapped so far."""
    mapped_ahead: int = 0
    """Of the mapped pages, those of tokens that were foreseen, so that the calls run while the step before computes."""
    unmapped_ahead: int = 0
    """Of the unmapped pages, those that had to make way for them."""

    def since(self, before: Mappings) -> Mappings:
        """Return the calls made since it was `before`."""
        return Mappings(*(now - then for now, then in zip(self, before, strict=True)))


NO_MAPPINGS = Mappings()


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Allocator(ABC):
    """A pool of `num_blocks` blocks of `block_size` token slots, and who holds them.

    `table` is the only record of who holds what that an executor needs: row `r` of
    `table.blocks` lists the physical ids of one sequence in logical order.
    """

    kind: ClassVar[str]
    """Name in workload files and reports."""
    options: ClassVar[Mapping[str, Option]] = MappingProxyType({"block_size": BLOCK_SIZE})
    """What a workload file may set; each is a keyword argument of the constructor."""
    recomputes: ClassVar[bool] = False
    """True if K/V does not survive a step, so that every step computes all known tokens."""
    concatenates: ClassVar[bool] = False
    """True if a sequence is tensors of its own, made anew and copied whole at every growth: its row lists no blocks."""
    free_preemption: ClassVar[bool] = False
    """True if taking a sequence's memory and giving it back costs nothing (the bound)."""
    scattered: ClassVar[bool] = False
    """True if a sequence's blocks may lie anywhere, so that attention must read through the block table."""
    shares: ClassVar[bool] = False
    """True if `fork` shares blocks and so takes no room; others take all the room of a group on admission."""

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
        """Token slots a block under these (resolved) options: the unit in which the pool must be counted."""
        return int(values["block_size"] or 0)

    @classmethod
    def measure(cls, values: Mapping[str, Value]) -> Measure:
        """Say in what the pool is counted under these (resolved) options."""
        return Measure(cls.slots_per_block(values))

    @property
    def oracle(self) -> bool:
        """True if `Ask.output` may be read; depends on the options for some classes."""
        return False

    @property
    def notice(self) -> int | None:
        """How many of its slots a row still has when it must next be named in `grow`.

        0 if only a row that runs out must be, 1 if one that becomes full must be too; None if every row must be,
        with every token.  Until then `table.length` lags behind.  `grow` with the length that a row has by now
        puts it right, as `fork` and `swap_out` want it.
        """
        return None

    @property
    def regular(self) -> bool:
        """Whether `append` may stand for `grow`.

        True if a row that runs out of slots gets one portion, of a block or some, and nothing else ever happens to
        a row that decodes, once it has grown after a fork or a swap, and while it is not `entangled`.
        """
        return False

    @property
    def portion(self) -> Portion:
        """What a row takes when it runs out of slots, if the allocator is `regular`."""
        size = self.block_size
        return Portion(size, size, size if self.rounds_up else 0, left_held=size, left_live=size)

    @property
    def leaves_behind(self) -> int | None:
        """Tokens `n` such that a row gives back its k-th portion when it grows from `n` and k portions; None for none.

        If the allocator is `regular`, `shift` then stands for `grow`.
        """
        return None

    @property
    def rounds_up(self) -> bool:
        """True if a row's slots are its tokens, and what it holds beyond them is rounding."""
        return False

    @property
    def entangled(self) -> AbstractSet[int]:
        """Rows of a `regular` allocator that must be named in `grow` when a block of theirs becomes full, too."""
        return NO_ROWS

    @property
    def settled(self) -> bool:
        """True if an `admit` that was refused stays refused until something is released (no cache, no moves)."""
        return True

    @property
    def token_slots(self) -> int:
        """Slots that a token takes: 1, or several where groups of layers are counted apart."""
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
        """Say why sequences that will use `final` slots each cannot run even alone, or None.  Changes nothing."""

    @abstractmethod
    def admit(self, ask: Ask) -> Grant | Refusal:
        """Open a row for a sequence and give it `ask.tokens` slots, or as many as policy reserves.

        All or nothing.  Blocks of `ask.hit` are shared, not taken.
        """

    @abstractmethod
    def grow(self, rows: Ints, lengths: Ints) -> Growth:
        """Make room for each row to be `lengths` tokens long, in the order given.

        Equal to one call a row: stops at the first row that cannot have it; that row and
        those after it are unchanged.  Blocks that become full are entered in the prefix
        cache.  A row may appear once.

        Args:
            rows: int64[n], open rows of `table`.
            lengths: int64[n], token slots each will use, not less than it uses now.

        """

    def advance(self, rows: Ints, lengths: Ints, steps: int) -> Leap:
        """Do up to `steps` times: every row grows by one token, in the order given.

        Exactly as many calls of `grow` would do, block ids included; stops before the
        first step in which a row would be refused or pages would be mapped.  An allocator
        may stop earlier, after at least one step.  This default does one.

        Args:
            rows: int64[n], open rows.
            lengths: int64[n], tokens each holds before the first step.
            steps: at least 1.

        """
        before, evictions = self.table.slots[rows], self.evictions()
        if not self.can_grow(rows, lengths + 1):
            none = np.zeros(0, np.int64)
            return Leap(0, none, none, none, none, none)
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

    def append(self, rows: Sequence[int]) -> Sequence[int]:
        """Give rows, in the order given, one more portion whose first slot is used: `grow` where that is all it does.

        Args:
            rows: open rows of an allocator that is `regular`, all of whose slots are used; a row that is named
                again gets another one, as if the one before had been used up meanwhile.  There must be `room`.

        Returns:
            How many cached blocks were evicted to take each block; nothing if none was.

        """
        raise AllocatorError(f"{self.kind} grows in more ways than by a block")

    def shift(self, rows: Sequence[int], lengths: Sequence[int]) -> int:
        """Do `append` where rows also leave blocks behind, as far as there is room.

        Args:
            rows: open rows of an allocator that is `regular` and `leaves_behind`, who take a block, or give back one
                that is their own, or both; those of a later step may follow.
            lengths: tokens that each comes to have, one more than before.

        Returns:
            how many were granted; those after them have not changed.

        """
        raise AllocatorError(f"{self.kind} leaves nothing behind")

    def calls(self, rows: Sequence[int]) -> Mappings | None:
        """Count the pages that `append` with the same rows would map and unmap, or None if that is not certain.

        Changes nothing.
        """
        return NO_MAPPINGS

    def note(self, rows: Ints, lengths: Ints) -> None:
        """Learn how long rows have become within the slots they have, where `append` has stood for `grow`."""
        self.table.length[rows] = lengths

    @property
    def room(self) -> int:
        """Rows that can certainly grow by a token beyond their slots now, one after the other."""
        return 0

    def demand(self, rows: Ints, lengths: Ints) -> Ints:
        """Count the free blocks that `grow` with the same arguments takes for each row, at most.  Changes nothing."""
        size = self.block_size
        more: Ints = -(-lengths // size) - -(-self.table.slots[rows] // size)
        return more.clip(min=0)

    def fork(self, row: int, output: int | None = None, content: Content | None = None) -> Grant | Refusal:
        """Open a second row that holds the same tokens as `row`.

        Sharing allocators share every block until one of the two writes; others take new
        room and say in `Grant.copied` how many tokens must be copied.

        Args:
            row: an open row.
            output: as `Ask.output`.
            content: the tokens of the new row, equal to those of `row` so far; without it
                nothing that it writes enters the prefix cache.

        """
        raise AllocatorError(f"{self.kind} cannot fork")

    @abstractmethod
    def release(self, row: int) -> None:
        """Close a row and give back what only it held."""

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

    def mappings(self) -> Mappings:
        """Count the physical pages mapped and unmapped since the beginning; what a step adds takes time."""
        return NO_MAPPINGS

    def evictions(self) -> int:
        """Count the cached blocks evicted since the beginning, because their room was needed."""
        return 0

    def cached_blocks(self) -> Ints:
        """Physical ids of the blocks that nobody holds and that are kept for reuse, in any order."""
        return np.zeros(0, np.int64)

    def padding(self) -> tuple[Ints, Ints]:
        """Rows, and the blocks each holds beyond its table only because placement rounds up, in any order."""
        return np.zeros(0, np.int64), np.zeros(0, np.int64)

    def extents(self, rows: Ints) -> Ints | None:
        """Count the blocks that each of `rows` holds, `padding` included, if their ids follow one another; or None."""
        return None

    def largest_hole(self) -> int:
        """Token slots in the longest run of free blocks that one request could be given."""
        return self.free

    def stranded(self, need: int) -> int:
        """Token slots that are free but in holes shorter than `need` blocks (external fragmentation)."""
        return 0

    @abstractmethod
    def check(self) -> None:
        """Recompute every invariant from the ground up; raise `CorruptionError` at the first that fails."""
