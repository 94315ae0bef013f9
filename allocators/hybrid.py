"""Paged allocation for models whose layers differ: a block table for each group of layers, over one pool.

Each group does as `allocators.paged` would for its layers alone.  Attention takes blocks as its
sequences grow, and gives back those that its window has left behind; a recurrent group has one
state a sequence.  What the pieces of the groups are and how a page is cut into them is said
in `allocators.groups`, who holds them in `allocators.pieces`, how a row lists them in `allocators.grouprows`.

A *prefix hit* is the longest that all groups agree on: one with a window needs the last blocks
before its end only, a recurrent one the very state at its end.  Such states are kept, as
checkpoints, every `checkpoint` tokens that a sequence computes; they are taken from what is
free, and if nothing is, there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

import numpy as np

from allocators.answers import MISS, Ask, Copy, Grant, Growth, Hit, Measure, Reason, Refusal, Swap
from allocators.compiled import mypyc_attr
from allocators.errors import AllocatorError
from allocators.groupaudit import audit
from allocators.groupcycle import RegularGroups
from allocators.groups import PAGINGS, Cut, cut, parse
from allocators.groupswapping import swap_in, swap_out
from allocators.options import BLOCK_SIZE, Option, Value, resolve
from allocators.pieces import PiecePool
from allocators.regular import LARGE
from allocators.table import Ints

if TYPE_CHECKING:
    from allocators.content import Content


class Turn(NamedTuple):
    """What one row's growth has changed in the pool, to be written into its row."""

    copies: list[tuple[int, int, int, int]]
    """(group, column, source, target) of pieces that are written but shared."""
    new: list[Ints]
    """By group: pieces taken for further tokens."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class HybridAllocator(RegularGroups):
    """A pool of pages from which every group of layers takes what it needs."""

    kind: ClassVar[str] = "hybrid"
    options: ClassVar[Mapping[str, Option]] = MappingProxyType(
        {
            "block_size": BLOCK_SIZE._replace(doc="tokens a block of an attention group, at least"),
            "paging": Option(
                str,
                "even",
                "uniform: pad all groups to the largest page; even: divide them first (vLLM); common-multiple (Jenga)",
                choices=PAGINGS,
            ),
            "prefix_cache": Option(bool, False, "keep full blocks, and states, for sequences that begin alike"),
            "checkpoint": Option(int, 512, "tokens between states kept for the prefix cache", minimum=1),
            "host_blocks": Option(
                int, 0, "blocks on the host for sequences swapped out", minimum=0, fact="host_blocks"
            ),
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
            num_blocks: physical blocks, a multiple of those of a page.
            block_size: tokens a block of an attention group, at least; the pool's own blocks are `Cut.block_slots`.
            max_model_len: the longest sequence, in tokens.
            max_rows: sequences expected at once.
            paging: how pages are cut, one of `allocators.groups.PAGINGS`.
            prefix_cache: whether full blocks, and states, are kept for sequences that begin alike.
            checkpoint: tokens between kept states, rounded up to whole blocks.
            host_blocks: blocks on the host for sequences that are swapped out; what is no whole page of them is unused.
            groups: the model's, as `allocators.groups.parse` reads them.

        Raises:
            AllocatorError: the pool is no whole number of pages.

        """
        made = _cut({"groups": groups, "block_size": block_size, "paging": paging})
        super().__init__(num_blocks, made, max_model_len, max_rows, host_blocks)
        self.prefix_cache = prefix_cache
        self.checkpoint = -(-checkpoint // made.tokens) * made.tokens

    @property
    def settled(self) -> bool:
        """See `Allocator.settled`.  Growth of others may turn a lack of blocks into a lack of pages."""
        return not self.prefix_cache and not self.windows and all(piece.pieces == 1 for piece in self.pieces)

    @property
    def notice(self) -> int | None:
        """See `Allocator.notice`."""
        if self.regular:
            return int(bool(self.windows))
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
        """See `Allocator.from_options`; `block_size` is an option like others here."""
        values = resolve(cls.kind, cls.options, options, facts)
        _cut(values)
        return cls(num_blocks, max_model_len=max_model_len, max_rows=max_rows, **values)  # type: ignore[arg-type] # `resolve` has

    @classmethod
    def slots_per_block(cls, values: Mapping[str, Value]) -> int:
        """See `Allocator.slots_per_block`."""
        return _cut(values).block_slots

    @classmethod
    def measure(cls, values: Mapping[str, Value]) -> Measure:
        """See `Allocator.measure`: slots are the units of `allocators.groups.Cut`."""
        made = _cut(values)
        return Measure(made.block_slots, made.slot_bytes, made.token_slots, made.page_blocks, states=True)

    def swap_out_group(self, rows: Sequence[int]) -> list[Swap] | Refusal:
        """See `Allocator.swap_out_group`."""
        return swap_out(self, rows)

    def swap_in_group(self, rows: Sequence[int], spare: int = 0) -> list[Swap] | Refusal:
        """See `Allocator.swap_in_group`."""
        return swap_in(self, rows, spare)

    def check(self) -> None:
        """See `Allocator.check`."""
        audit(self)

    # -- admission -------------------------------------------------------------------------

    def lookup(self, content: Content, tokens: int) -> Hit:
        """See `Allocator.lookup`: the longest prefix that all groups agree on."""
        length = (tokens - 1) // self.cut.tokens
        if not self.prefix_cache or not length:
            return MISS
        keys = {group: self.keys(group, content, length) for group in range(len(self.pieces))}
        found: dict[int, list[int]] = {}
        agreed = -1
        while agreed != length:
            agreed = length
            for group in self.attention:
                found[group] = self._cached_prefix(group, keys[group][:length])
                length = len(found[group])
            while length and not self._has_states(keys, length):
                length -= 1
        if not length:
            return MISS
        if self._scattered_too_far(found):
            return MISS
        blocks = [
            cell and cell + block
            for place in range(length)
            for group in self.attention
            for cell in [found[group][place]]
            for block in range(self.pieces[group].blocks)
        ]
        return Hit(length * self.cut.tokens, tuple(blocks))

    def _cached_prefix(self, group: int, keys: list[int]) -> list[int]:
        window = self.windows.get(group)
        return self.pool.cache.window(keys, window.reach) if window else self.pool.cache.run(keys)

    def _has_states(self, keys: Mapping[int, list[int]], length: int) -> bool:
        """Whether every recurrent group has the state after `length` blocks."""
        return all(self.pool.cache.find(keys[group][length - 1]) for group in self.states)

    def _scattered_too_far(self, found: Mapping[int, list[int]]) -> bool:
        """Whether holding these pieces might keep a sequence from its last token in a pool of few pages.

        Alone in the pool it has room if its pieces fill pages one after the other; a hit may lie in many.
        """
        extra = 0
        for group, cells in found.items():
            held = np.array([cell for cell in cells if cell], np.int64)
            extra += len(np.unique(self.pool.page(held))) - -(-len(held) // self.pieces[group].pieces)
        return extra > 0 and extra + self._ample > len(self.pool.group) - 1

    def never(self, ask: Ask, final: int) -> Refusal | None:
        """See `Allocator.never`: the context bounds a sequence, then the pages."""
        longest = max(ask.tokens, ask.whole)
        if max(longest, final) > self.max_model_len:
            return self.too_long(max(longest, final))
        most = self.most(ask.tokens, final, ask.samples)
        needs = [
            max(need, self.places_for(longest)) if group in self.attention else need for group, need in enumerate(most)
        ]
        pages = sum(-(-need // piece.pieces) for need, piece in zip(needs, self.pieces, strict=True))
        need = max(pages * self.cut.page_blocks, self.blocks_of(needs) + ask.spare)
        return Refusal(Reason.NEVER, need, need - self.num_blocks) if need > self.num_blocks else None

    def admit(self, ask: Ask) -> Grant | Refusal:
        """See `Allocator.admit`.  What the hit does not cover is taken; a state is copied from its checkpoint."""
        hit, tokens = ask.hit, self.cut.tokens
        places = hit.tokens // tokens
        if not len(hit.blocks) == places * self.stride or not places * tokens == hit.tokens < ask.tokens:
            raise AllocatorError(f"{ask.tokens} token slots are not more than the {hit.tokens} of the prefix hit")
        if hit.blocks and not self.prefix_cache:
            raise AllocatorError("there is no prefix cache to hit")
        if max(ask.tokens, ask.whole) > self.max_model_len:
            return self.too_long(max(ask.tokens, ask.whole))
        found, states = self._of_hit(hit, ask.content)
        hits = [cells[cells > 0] for cells in found]
        more = self.places_for(max(ask.tokens, ask.whole)) - places
        needs = [*(1 for _ in self.states), *(more for _ in self.attention)]
        revived = sum(
            int(np.count_nonzero(self.pool.references[cells] == 0)) * piece.blocks
            for cells, piece in zip(hits, self.pieces, strict=True)
        )
        taking = self.blocks_of(needs) + revived
        if not self.pool.fits(needs, hits) or taking + ask.spare > self.pool.blocks_free:
            return self._short_of(taking, ask.spare)
        for group in self.attention:
            self.pool.share(group, hits[group])
        for group, state in zip(self.states, states, strict=False):
            self.pool.touch(group, state)
        more = self.places_for(ask.tokens) - places
        taken = self.pool.take([*(1 for _ in self.states), *(more for _ in self.attention)])
        row = self.table.open()
        for group in self.states:
            self.write(self.table, row, self.first_column[group], taken[group], group)
        for group in self.attention:
            self.write(self.table, row, self.first_column[group], np.concatenate([found[group], taken[group]]), group)
            self.left += int(np.count_nonzero(found[group] == 0)) * self.pieces[group].full
        self._set_length(row, ask.tokens)
        if self.prefix_cache:
            self.contents[row] = ask.content
            self._keep(self.pool, row, hit.tokens, ask.tokens, [cells[places:] for cells in self.cells_of(row)])
        return Grant(row, int(self.table.slots[row]))

    def _of_hit(self, hit: Hit, content: Content) -> tuple[list[Ints], list[int]]:
        """Split a hit into the groups' pieces, 0 where left behind, and the states' checkpoints; it must be fresh."""
        places = hit.tokens // self.cut.tokens
        cells = np.array(hit.blocks, np.int64).reshape(places, self.stride)
        found = [np.zeros(0, np.int64) for _ in self.states]
        states: list[int] = []
        for group in self.attention:
            column = cells[:, self.first_column[group] - self.columns.lead]
            keys = np.array(self.keys(group, content, places) if places else [], np.int64)
            if (self.pool.cache.key[column[column > 0]] != keys[column > 0]).any():
                raise AllocatorError("the prefix hit is stale: a block of it was taken since the look-up")
            found.append(column)
        for group in self.states if places else ():
            states.append(self.pool.cache.find(self.keys(group, content, places, places - 1)[0]))
            if not states[-1]:
                raise AllocatorError("the prefix hit is stale: its state was taken since the look-up")
        return found, states

    def reset(self) -> Refusal | None:
        """Forget every cached prefix.  Refused while anything is held."""
        if held := self.pool.blocks_held:
            return Refusal(Reason.BLOCKS, self.num_blocks, held)
        self.pool.forget()
        return None

    # -- growth ----------------------------------------------------------------------------

    def grow(self, rows: Ints, lengths: Ints) -> Growth:
        """See `Allocator.grow`.  Rows that need nothing are only counted; the others take their turns."""
        copies: list[Copy] = []
        copied = 0
        for index in self._due(rows, lengths).tolist():
            row, length = int(rows[index]), int(lengths[index])
            turn = self._turn(self.pool, row, length, self._leave_behind(self.pool, row, real=True))
            if isinstance(turn, Refusal):
                self.table.length[rows[:index]] = lengths[:index]
                return Growth(index, turn, copies, copied)
            copied += self._finish(row, length, turn, copies)
        self.table.length[rows] = lengths
        return Growth(len(rows), None, copies, copied)

    def can_grow(self, rows: Ints, lengths: Ints) -> bool:
        """See `Allocator.can_grow`.  Where it may be tight, the turns are tried on a copy of the pool's books."""
        due = self._due(rows, lengths)
        if len(due) and lengths.max() > self.max_model_len:
            return False
        most = (self._places_more(rows, lengths)[due] + 1).sum() * len(self.pieces) if len(due) else 0
        if most <= len(self.pool.queue):
            return True
        pool = self.pool.trial()
        return not any(
            isinstance(self._turn(pool, row, length, self._leave_behind(pool, row, real=False)), Refusal)
            for row, length in zip(rows[due].tolist(), lengths[due].tolist(), strict=True)
        )

    def demand(self, rows: Ints, lengths: Ints) -> Ints:
        """See `Allocator.demand`.  Counts copies too, but not what windows will leave behind."""
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
        """Return which rows take, copy, keep or leave anything by growing to `lengths`."""
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
        if self.contents:
            due |= lengths // tokens > now // tokens
        if self.forked:
            due |= np.isin(rows, list(self.forked)) & (lengths > now)
        for group, window in self.windows.items():
            behind = np.maximum(0, now - window.tokens + 1) // tokens
            column = self.first_column[group] + (behind - 1) * self.stride
            due |= (behind > 0) & (table.blocks[rows, column] != 0)
        return np.flatnonzero(due)

    def _leave_behind(self, pool: PiecePool, row: int, *, real: bool) -> int:
        """Let go of what windows have left behind, even if growth is then refused; returns the row's length."""
        length = int(self.table.length[row])
        for group, window in self.windows.items():
            behind = window.behind(length)
            start = self.first_column[group]
            cells = self.table.blocks[row, start : start + behind * self.stride : self.stride]
            left = cells[cells > 0].astype(np.int64)
            idle = pool.let_go(group, left[::-1])
            if real and len(left):
                self.host.part(idle)
                for block in range(self.pieces[group].blocks):
                    self.table.blocks[row, start + block : start + behind * self.stride : self.stride] = 0
                self.left += len(left) * self.pieces[group].full
        return length

    def _turn(self, pool: PiecePool, row: int, length: int, now: int) -> Turn | Refusal:
        """Take from `pool` what one row needs to grow; on refusal nothing is taken."""
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
            return self._short_of(self.blocks_of(needs), 0, pool)
        copies = []
        for group, column, source in copying:
            pool.let_go(group, np.array([source]))
            copies.append((group, column, source, int(taken[group][0])))
            taken[group] = taken[group][1:]
        first, last = now // self.cut.tokens, length // self.cut.tokens
        if row in self.contents and (last > first or self.states):
            cells = [
                np.concatenate([self.cells_from(row, group, first), more])[: last - first]
                if group in self.attention
                else more[:0]
                for group, more in enumerate(taken)
            ]
            for group, _, source, target in copies:  # a copied last block may be full by now
                if group in self.attention and len(cells[group]) and cells[group][0] == source:
                    cells[group][0] = target
            self._keep(pool, row, now, length, cells)
        return Turn(copies, taken)

    def _copying(self, pool: PiecePool, row: int, length: int) -> list[tuple[int, int, int]]:
        """List (group, column, piece) of what a row that grows must copy first: last blocks and states, if shared."""
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
        """Write a turn into its row; returns the tokens whose K/V is copied, at least in part."""
        now, held = int(self.table.length[row]), self._held_places(row)
        copied = 0
        for group, column, source, target in turn.copies:
            piece = self.pieces[group]
            self.write(self.table, row, column, np.array([target]), group)
            copies += [Copy(source + block, target + block) for block in range(piece.blocks)]
            copied += piece.slots * (now % self.cut.tokens if piece.tokens else 1)
        if length > now and row in self.forked:  # what it writes now is the twin of nothing any more
            written = range(len(self.pieces)) if now < held * self.cut.tokens else self.states
            cells = self.cells_of(row)
            self.host.part([int(cells[group][-1]) for group in written])
            self.forked.discard(row)
        for group in self.attention:
            if len(turn.new[group]):
                self.write(self.table, row, self.first_column[group] + held * self.stride, turn.new[group], group)
        self._set_length(row, length)
        return -(-copied // self.token_slots)

    def _keep(self, pool: PiecePool, row: int, now: int, length: int, cells: list[Ints]) -> None:
        """Enter the pieces in `cells` that have become full, and keep states where tokens pass a checkpoint."""
        content, tokens = self.contents[row], self.cut.tokens
        first, last = now // tokens, length // tokens
        for group in self.attention if last > first else ():
            pool.enter(self.keys(group, content, last, first), cells[group][: last - first])
        for end in range(now // self.checkpoint + 1, length // self.checkpoint + 1) if self.states else ():
            needs = [1 if group in self.states else 0 for group in range(len(self.pieces))]
            if not pool.fits(needs):
                return
            for group, state in enumerate(pool.take(needs)[: len(self.states)]):
                place = end * self.checkpoint // tokens
                pool.enter(self.keys(group, content, place, place - 1), state)
                pool.let_go(group, state)

    def stranded(self, need: int) -> int:
        """See `Allocator.stranded`: what is free in pages that other groups have."""
        return self.pool.blocks_blank * self.block_size

    def _short_of(self, need: int, spare: int, pool: PiecePool | None = None) -> Refusal:
        missing = need + spare - (pool or self.pool).blocks_free
        if need > self.num_blocks:
            return Refusal(Reason.NEVER, need, missing)
        return Refusal(Reason.BLOCKS if missing > 0 else Reason.HOLE, need, max(missing, 1))


def _cut(values: Mapping[str, Value]) -> Cut:
    """Cut pages as resolved options say.  Raises ValueError."""
    try:
        groups = parse(str(values["groups"]))
    except ValueError as error:
        raise ValueError(f"hybrid.groups: {error}") from None
    return cut(groups, int(values["block_size"] or 0), str(values["paging"]))
