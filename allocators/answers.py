"""The arguments and results of an allocator's methods: plain immutable values.

A *grant* says what a sequence got; a *refusal* says why it got nothing and how much was missing.  `Usage` counts the
contents of the pool in token slots, `Mappings` the pages that a driver has mapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from allocators.content import Content
from allocators.table import Ints


class Reason(StrEnum):
    """Why an allocator refuses a request."""

    BLOCKS = "too few free blocks"
    HOLE = "no hole is large enough"
    ROWS = "no free row"
    HOST = "too little room on the host"
    NEVER = "larger than the whole pool"
    LENGTH = "longer than max_model_len"


class Refusal(NamedTuple):
    """The answer if a request cannot be granted; the allocator is as it was before the call."""

    reason: Reason
    need: int
    """Blocks needed; for a contiguous allocator, the length of the hole needed."""
    shortfall: int
    """Blocks missing: how many more must become free before the same call can succeed."""


class Hit(NamedTuple):
    """A prefix found in the cache; valid until the allocator next changes."""

    tokens: int = 0
    blocks: tuple[int, ...] = ()
    """Physical ids in logical order; 0 for blocks that a sliding window has already passed."""


MISS = Hit()


class Ask(NamedTuple):
    """What a sequence asks for when it is admitted."""

    content: Content
    """The identity of its tokens, for the prefix cache; says nothing of its length."""
    prompt: int
    """Prompt tokens."""
    tokens: int
    """Token slots to take now, those of the hit included."""
    hit: Hit = MISS
    """The result of `lookup`, if the allocator has not changed since."""
    whole: int = 0
    """Token slots for which there must be room now, even if fewer are taken (all of a prompt that comes in chunks)."""
    spare: int = 0
    """Blocks that must still be free afterwards (the watermark)."""
    output: int | None = None
    """True output length in tokens; set only for allocators whose `oracle` is true."""
    samples: int = 1
    """Sequences that will start with these tokens and continue independently.  `never` answers for all of them; `admit`
    opens one row, and the others fork from it, or are admitted one by one if forks do not share.  Where what is taken
    for one row cannot be given back without a trace, as mapped pages cannot, `admit` is refused unless all have room.
    """


class Grant(NamedTuple):
    """Memory granted to one sequence."""

    row: int
    """Its row in `Allocator.table`."""
    slots: int
    """Token slots it may use before it must grow, without those that exist only because placement rounds up."""
    copied: int = 0
    """Tokens whose K/V must be copied as a consequence."""


class Copy(NamedTuple):
    """A block whose K/V must be copied before the step runs: copy-on-write, or a swap to or from the host."""

    source: int
    """Physical id of the block to read, on the side where it lies (device or host)."""
    target: int
    """Physical id of the block to write."""


class Growth(NamedTuple):
    """The result of `grow`: the first `granted` rows got what they asked for."""

    granted: int
    refusal: Refusal | None = None
    """Why the next row did not, if there is one."""
    copies: Sequence[Copy] = ()
    """Blocks to copy before the step."""
    copied: int = 0
    """Tokens whose K/V is copied because of this call (a `Copy` counts its filled slots)."""


class Leap(NamedTuple):
    """The result of `advance`: what `steps` calls of `grow` would have changed.

    `when`, `who` and `slots` have one entry for each time that a row got more slots; none if the allocator `rounds_up`,
    as then every row gets one slot in every step, and all that is held beyond them is rounding.
    """

    steps: int
    """Steps done; 0 if the first would be refused, or would map pages and so take extra time (see `mappings`)."""
    when: Ints
    """The step, from 0; ascending."""
    who: Ints
    """The row's index in the `rows` argument."""
    slots: Ints
    """The slots that the row holds from then on."""
    held: Ints
    """int64[steps]: `Usage.held` after each step."""
    cached: Ints
    """int64[steps]: `Usage.cached` after each step."""
    copies: Sequence[Copy] = ()
    """Blocks to copy before the step; a leap that copies blocks is one step long."""
    copied: int = 0
    """Tokens whose K/V is copied before the first step; with `concatenates`, every step copies all its tokens."""
    rounding: Ints | None = None
    """int64[steps]: `Usage.rounding` after each step; None if it does not change, or `rounds_up`."""
    evicted: Ints | None = None
    """int64[steps]: cached blocks evicted in each step; None if there are none."""

    @classmethod
    def unlisted(cls, held: Ints, cached: Ints, copied: int = 0) -> Leap:
        """Return a leap that lists no row."""
        nothing = np.zeros(0, np.int64)
        return cls(len(held), nothing, nothing, nothing, held, cached, (), copied)

    @classmethod
    def none(cls) -> Leap:
        """Return a leap of no steps."""
        return cls.unlisted(np.zeros(0, np.int64), np.zeros(0, np.int64))


class Swap(NamedTuple):
    """A sequence moved between device and host."""

    row: int
    """Its row in the table of the side it is now on."""
    slots: int
    """Token slots it holds there."""
    moves: Sequence[Copy]
    """Blocks to move between device and host; a block that several sequences share is moved once."""


class Usage(NamedTuple):
    """How much of the pool is taken, in token slots.  `capacity - held - cached` is free."""

    held: int
    """Slots of blocks that running sequences hold; a shared block counts once."""
    cached: int = 0
    """Slots of blocks that no sequence holds, kept for reuse and evictable."""
    rounding: int = 0
    """The part of `held` that exists only because placement rounds up."""
    saved: int = 0
    """Filled slots that sharing saves: the sum over blocks of (references - 1) x filled slots."""
    dropped: int = 0
    """Slots of tokens of running sequences that a sliding window has passed and that were given back."""
    swapped: int = 0
    """Slots of blocks on the host."""
    states: int = 0
    """Slots of recurrent states of running sequences; a shared state counts once per holder."""


class Measure(NamedTuple):
    """The unit in which an allocator's pool is counted."""

    block_size: int
    """Token slots per block."""
    slot_bytes: int = 0
    """Bytes of a slot; 0 where it is the K/V of one token over all layers."""
    token_slots: int = 1
    """Slots that one token takes."""
    multiple: int = 1
    """The number of blocks in the pool is a multiple of this."""
    states: bool = False
    """Whether the states of recurrent layers are kept in blocks too, so that no other memory is reserved for them."""


class Portion(NamedTuple):
    """What a row of a `regular` allocator takes when its slots are used up."""

    tokens: int
    """Tokens that fit in a portion."""
    held: int
    """Slots by which each portion increases `Usage.held`."""
    rounding: int = 0
    """Slots by which each portion increases `Usage.rounding`."""


class Shift(NamedTuple):
    """The result of `Allocator.shift`."""

    granted: int
    """Rows that got their slot; those after them are unchanged."""
    left: Sequence[int] = ()
    """What rows gave back because their windows have passed it, as a flat list of four numbers for each portion: index
    of the row (ascending), and by how many slots held, live and saved by sharing decrease."""
    evicted: Sequence[int] = ()
    """How many cached blocks were evicted for each block taken; empty if none was."""
    keeps: bool = False
    """Whether what was given back, and is not held any more, is cached."""


class Mappings(NamedTuple):
    """Pages that the driver has mapped into and unmapped from virtual ranges; the counts only increase."""

    mapped: int = 0
    """Pages mapped so far."""
    unmapped: int = 0
    """Pages unmapped so far."""
    mapped_ahead: int = 0
    """The part of `mapped` that was foreseen, so that it could be done while the step before ran."""
    unmapped_ahead: int = 0
    """The part of `unmapped` that made room for those."""

    def since(self, before: Mappings) -> Mappings:
        """Return the difference from an earlier count."""
        return Mappings(*(now - then for now, then in zip(self, before, strict=True)))


NO_MAPPINGS = Mappings()
