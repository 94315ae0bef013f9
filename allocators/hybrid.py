"""Paged allocation for models whose layers differ: a block table for each group of layers, over one pool.

Each group does what `allocators.paged` would do for its layers alone.  An attention group takes blocks as its
sequences grow, and gives back those that its window has passed; a recurrent group has one state per sequence.
`allocators.groups` defines the pieces that groups take and how a page is cut into them, `allocators.pieces`
keeps track of who holds them, `allocators.grouprows` defines how a row lists them, `allocators.groupturns`
lets rows grow, and `allocators.grouphits` finds what rows can begin with.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np

from allocators.answers import Ask, Grant, Measure, Reason, Refusal
from allocators.compiled import mypyc_attr
from allocators.errors import AllocatorError
from allocators.groupaudit import audit
from allocators.grouphits import GroupHits
from allocators.groups import PAGINGS, Cut, cut, parse
from allocators.options import BLOCK_SIZE, HOST_BLOCKS, Option, Value, resolve

LARGE = 4
"""Tokens per block from which it pays to pass only rows that run out of slots to `grow`; in smaller ones most do."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class HybridAllocator(GroupHits):
    """A pool of pages from which every group of layers takes what it needs."""

    kind: ClassVar[str] = "hybrid"
    options: ClassVar[Mapping[str, Option]] = MappingProxyType(
        {
            "block_size": BLOCK_SIZE._replace(doc="tokens per block of an attention group, at least"),
            "paging": Option(
                str,
                "even",
                "uniform: pad all groups to the largest page; even: divide them first (vLLM); common-multiple (Jenga)",
                choices=PAGINGS,
            ),
            "prefix_cache": Option(bool, False, "keep full blocks, and states, for sequences that begin alike"),
            "checkpoint": Option(int, 512, "tokens between states kept for the prefix cache", minimum=1),
            "host_blocks": HOST_BLOCKS,
            "groups": Option(
                str, "full 2x2048, sliding 2x2048/1024", "layers x bytes / window of each group", fact="kv_groups"
            ),
        }
    )
    shares: ClassVar[bool] = True
    scattered: ClassVar[bool] = True

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        max_model_len: int,
        max_rows: int = 256,
        *,
        paging: str = "even",
        prefix_cache: bool = False,
        checkpoint: int = 512,
        host_blocks: int = 0,
        groups: str = "full 2x2048, sliding 2x2048/1024",
    ) -> None:
        """Make an empty pool.

        Args:
            num_blocks: physical blocks, a multiple of the blocks of a page.
            block_size: least tokens per block of an attention group; blocks of the pool have `Cut.block_slots` slots.
            max_model_len: length of the longest sequence, in tokens.
            max_rows: sequences expected at once.
            paging: how pages are cut, one of `allocators.groups.PAGINGS`.
            prefix_cache: whether full blocks, and states, are kept for sequences that begin alike.
            checkpoint: tokens between saved states, rounded up to whole blocks.
            host_blocks: blocks on the host for sequences that are swapped out, rounded down to whole pages.
            groups: the model's groups of layers, as `allocators.groups.parse` reads them.

        Raises:
            AllocatorError: the pool is not a whole number of pages.

        """
        made = _cut({"groups": groups, "block_size": block_size, "paging": paging})
        super().__init__(num_blocks, made, max_model_len, max_rows, host_blocks)
        self.prefix_cache = prefix_cache
        self.checkpoint = -(-checkpoint // made.tokens) * made.tokens

    @property
    def settled(self) -> bool:
        """See `Allocator.settled`.

        False where pages have several pieces: as other rows grow, a lack of blocks may turn into a lack of pages.
        """
        return not self.prefix_cache and not self.windows and all(piece.pieces == 1 for piece in self.pieces)

    @property
    def notice(self) -> int | None:
        """See `Allocator.notice`."""
        if self.regular:
            return int(bool(self.windows) or self.prefix_cache)
        return None if self.cut.tokens < LARGE or self.windows or self.states else int(self.prefix_cache)

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
        """See `Allocator.from_options`; here, `block_size` is an option like others."""
        values: dict[str, Any] = resolve(cls.kind, cls.options, options, facts)  # of the options' types
        _cut(values)
        return cls(num_blocks, max_model_len=max_model_len, max_rows=max_rows, **values)

    @classmethod
    def slots_per_block(cls, values: Mapping[str, Value]) -> int:
        """See `Allocator.slots_per_block`."""
        return _cut(values).block_slots

    @classmethod
    def measure(cls, values: Mapping[str, Value]) -> Measure:
        """See `Allocator.measure`.  Slots are those of `allocators.groups.Cut`."""
        made = _cut(values)
        return Measure(made.block_slots, made.slot_bytes, made.token_slots, made.page_blocks, states=True)

    def check(self) -> None:
        """See `Allocator.check`."""
        audit(self)

    # -- admission -------------------------------------------------------------------------

    def never(self, ask: Ask, final: int) -> Refusal | None:
        """See `Allocator.never`.  Refuses what exceeds `max_model_len` or the pages of the pool."""
        longest = max(ask.tokens, ask.whole)
        if max(longest, final) > self.max_model_len:
            return self.too_long(max(longest, final))
        most = self.most(ask.tokens, final, ask.samples)
        needs = [
            max(need, self.places_for(longest)) if group in self.attention else need for group, need in enumerate(most)
        ]
        pages = sum(-(-need // piece.pieces) for need, piece in zip(needs, self.pieces, strict=True))
        need = max(pages * self.cut.page_blocks, self.pool.blocks_of(needs) + ask.spare)
        return Refusal(Reason.NEVER, need, need - self.num_blocks) if need > self.num_blocks else None

    def admit(self, ask: Ask) -> Grant | Refusal:
        """See `Allocator.admit`.  States are copied from their checkpoints."""
        hit, tokens = ask.hit, self.cut.tokens
        places = hit.tokens // tokens
        if not len(hit.blocks) == places * self.stride or not places * tokens == hit.tokens < ask.tokens:
            raise AllocatorError(f"{ask.tokens} token slots are not more than the {hit.tokens} of the prefix hit")
        if hit.blocks and not self.prefix_cache:
            raise AllocatorError("there is no prefix cache to hit")
        if max(ask.tokens, ask.whole) > self.max_model_len:
            return self.too_long(max(ask.tokens, ask.whole))
        found, states = self.of_hit(hit, ask.content) if places else ([], [])
        hits = [cells[cells > 0] for cells in found] if places else []
        needs = self._needs(self.places_for(max(ask.tokens, ask.whole)) - places)
        revived = sum(
            int(np.count_nonzero(self.pool.references[cells] == 0)) * piece.blocks
            for cells, piece in zip(hits, self.pieces, strict=False)
            if len(cells)
        )
        taking = self.pool.blocks_of(needs) + revived
        if not self.pool.fits(needs, hits) or taking + ask.spare > self.pool.blocks_free:
            return self._short_of(taking, ask.spare)
        if places:
            self.take_part(ask.content, places, hits, states)
        taken = self.pool.take(self._needs(self.places_for(ask.tokens) - places))
        row = self.table.open()
        for group in self.states:
            self.write(row, self.first_column[group], taken[group], group)
        for group in self.attention:
            pieces = taken[group]
            if places:
                pieces = np.concatenate([found[group], pieces])
                self.left += int(np.count_nonzero(found[group] == 0)) * self.pieces[group].full
            self.write(row, self.first_column[group], pieces, group)
        self._set_length(row, ask.tokens)
        if self.prefix_cache:
            self.know(row, ask.content)
            self.enter_row(row, places, ask.tokens // tokens)
            self._save(self.pool, ask.content, hit.tokens, ask.tokens)
        return Grant(row, int(self.table.slots[row]))

    def _needs(self, places: int) -> list[int]:
        """By group: pieces that a new row of so many blocks takes, its states included."""
        return [1] * len(self.states) + [places] * len(self.attention)

    def reset(self) -> Refusal | None:
        """Forget every cached prefix.  Refused while anything is held."""
        if held := self.pool.blocks_held:
            return Refusal(Reason.BLOCKS, self.num_blocks, held)
        self.pool.forget()
        return None

    def stranded(self, need: int) -> int:
        """See `Allocator.stranded`: what is free in pages that belong to some group."""
        return self.pool.blocks_blank * self.block_size


def _cut(values: Mapping[str, Value]) -> Cut:
    """Cut pages as the (resolved) options say.  Raises ValueError if the groups cannot be parsed."""
    try:
        groups = parse(str(values["groups"]))
    except ValueError as error:
        raise ValueError(f"hybrid.groups: {error}") from None
    return cut(groups, int(values["block_size"] or 0), str(values["paging"]))
