"""The arguments and results of an allocator: plain immutable values.

A *grant* says what a sequence got, a *refusal* why it got nothing and how much was lacking.  `Usage` counts the
contents of the pool in token slots, `Mappings` the calls to a driver in pages.
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
    """A refusal.  The allocator is as it was before the call."""

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
    """Token slots to take now, including the hit."""
    hit: Hit = MISS
    """What `lookup` just answered."""
    whole: int = 0
    """Token slots that must fit now even though only `tokens` are taken."""
    spare: int = 0
    """Blocks that must still be free afterwards (the watermark)."""
    output: int | None = None
    """True output length in tokens; set only for allocators whose `oracle` is true."""
    samples: int = 1
    """Sequences that will hold these tokens at once and continue independently: `never` and `admit` answer for all
    of them, but `admit` opens one row, and is asked again for the others unless they share."""


class Grant(NamedTuple):
    """Memory granted to one sequence."""

    row: int
    """Its row in `Allocator.table`."""
    slots: int
    """Token slots it may use before it must ask again, not counting placement rounding."""
    copied: int = 0
    """Tokens whose K/V must be copied because of this grant."""


class Copy(NamedTuple):
    """K/V of one whole block to be copied before the step runs (copy-on-write, or a move)."""

    source: int
    """Physical id of the block that is read; where it crosses to or from the host, an id on its own side."""
    target: int
    """... of the block that is written."""


class Growth(NamedTuple):
    """The answer to `grow`: the first `granted` rows got what they asked for, in order."""

    granted: int
    refusal: Refusal | None = None
    """Why row number `granted` got nothing, if not all were granted."""
    copies: Sequence[Copy] = ()
    """Block copies due before the step."""
    copied: int = 0
    """Tokens whose K/V is copied because of this call (a `Copy` counts its filled slots)."""


class Leap(NamedTuple):
    """The answer to `advance`: what `steps` equal calls of `grow` would have changed."""

    steps: int
    """Steps done; 0 if the very first would be refused, or takes time of its own (it maps pages: see `mappings`)."""
    when: Ints
    """For each time that a row got more slots: the step, from 0, ascending."""
    who: Ints
    """... the row's index in the `rows` argument."""
    slots: Ints
    """... and the slots that the row holds from then on."""
    held: Ints
    """int64[steps]: `Usage.held` after each step."""
    cached: Ints
    """int64[steps]: `Usage.cached` after each step."""
    copies: Sequence[Copy] = ()
    """Block copies due before the step; a leap that copies is one step long."""
    copied: int = 0
    """Tokens whose K/V is copied before the first step; with `concatenates`, each step copies all its tokens."""
    rounding: Ints | None = None
    """int64[steps]: `Usage.rounding` after each step; None if it stays as it is."""
    evicted: Ints | None = None
    """int64[steps]: cached blocks evicted by each step; None if none was."""

    @classmethod
    def none(cls) -> Leap:
        """Return a leap of no steps."""
        nothing = np.zeros(0, np.int64)
        return cls(0, nothing, nothing, nothing, nothing, nothing)


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
    """In blocks that running sequences hold, counting a shared block once."""
    cached: int = 0
    """In blocks without a holder, kept for reuse and evictable."""
    rounding: int = 0
    """Part of `held` that exists only because placement rounds up."""
    saved: int = 0
    """Filled slots saved by sharing: the sum over blocks of (references - 1) x filled."""
    dropped: int = 0
    """Tokens of running sequences that no longer have a slot (left behind by a sliding window)."""
    swapped: int = 0
    """In blocks on the host."""
    states: int = 0
    """In states of running sequences, which do not grow with tokens; a shared state counts once per holder."""


class Measure(NamedTuple):
    """The unit in which an allocator's pool is counted."""

    block_size: int
    """Token slots per block."""
    slot_bytes: int = 0
    """Bytes of a slot; 0 where it is the K/V of one token over all layers."""
    token_slots: int = 1
    """Slots that one token takes."""
    multiple: int = 1
    """The pool is a whole multiple of this number of blocks."""
    states: bool = False
    """Whether the states of recurrent layers lie in blocks too, so that no memory is set aside for them."""


class Portion(NamedTuple):
    """What a row of a `regular` allocator takes at a time; in slots of the pool."""

    tokens: int
    """Tokens for which a portion has room."""
    held: int
    """Slots that a row holds more with each portion."""
    rounding: int = 0
    """Part of it that is rounding."""


class Shift(NamedTuple):
    """What `Allocator.shift` has done."""

    granted: int
    """Rows that have got their slot; those after them are unchanged."""
    left: Sequence[int] = ()
    """What they left behind, as flat fours: place among the rows (ascending), and slots that are held less, that are
    live less, and that sharing saves less.  In a prefix cache, what is held no more is cached."""
    evicted: Sequence[int] = ()
    """How many cached blocks were evicted to take each block; nothing if none was."""


class Mappings(NamedTuple):
    """Calls to the driver, for allocators that map physical pages into virtual ranges; never decreasing."""

    mapped: int = 0
    """Pages mapped so far."""
    unmapped: int = 0
    """Pages unmapped so far."""
    mapped_ahead: int = 0
    """The part of `mapped` for tokens that were foreseen, so that the calls run while the step before computes."""
    unmapped_ahead: int = 0
    """The part of `unmapped` that had to make way for these."""

    def since(self, before: Mappings) -> Mappings:
        """Return the calls made since it was `before`."""
        return Mappings(*(now - then for now, then in zip(self, before, strict=True)))


NO_MAPPINGS = Mappings()
