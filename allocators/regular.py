"""Regular growth: what lets an engine skip most calls of `grow`.

In most steps nothing happens to most rows, because they already own their next slot.  An allocator may declare which
rows need not be passed to `grow`, and until when (`notice`).  A *regular* allocator promises more: the only thing that
ever happens to a row is that it takes a portion of fixed size, so an engine can compute when, and call `append` then.
Both only save time and never change a result.  The defaults below promise nothing: every row is passed for every token.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import ClassVar

from allocators.answers import NO_MAPPINGS, Mappings, Portion, Shift
from allocators.compiled import mypyc_attr
from allocators.errors import AllocatorError
from allocators.table import BlockTable, Ints

NO_ROWS: frozenset[int] = frozenset()


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class RegularGrowth(ABC):
    """What an allocator promises about how its rows grow, and the methods that rely on it."""

    kind: ClassVar[str]
    block_size: int
    table: BlockTable

    @property
    def notice(self) -> int | None:
        """How many free slots a row has left when it must next be passed to `grow`.

        0 if a row must be passed only when it runs out of slots; 1 if also when its last slot is filled; None if for
        every token.  Until then, its `table.length` lags behind.  `fork` and `swap_out` require it to be up to date:
        call `grow` with the row's present length first.
        """
        return None

    @property
    def regular(self) -> bool:
        """Whether `append` may be called instead of `grow`.

        True if a row that runs out of slots gets one portion, of one or more blocks, and nothing else ever happens to
        a decoding row.  (Exceptions are its first token after a fork or a swap, and rows that are `entangled`.)
        """
        return False

    @property
    def portion(self) -> Portion:
        """What a row takes when it runs out of slots; for `regular` allocators."""
        size = self.block_size
        return Portion(size, size, size if self.rounds_up else 0)

    @property
    def leaves_behind(self) -> int | None:
        """Tokens `n` such that a row gives back its k-th portion (from 1) when it grows beyond `n` plus k portions.

        None if rows keep all portions.  Where it is not None, an engine calls `shift` instead of `append`.
        """
        return None

    @property
    def rounds_up(self) -> bool:
        """True if a row's slots are exactly its tokens, and everything it holds beyond them counts as rounding."""
        return False

    @property
    def entangled(self) -> AbstractSet[int]:
        """Rows of a `regular` allocator that must also be passed to `grow` when one of their blocks becomes full.

        A prefix cache needs this for rows whose blocks other rows can share, or already do.
        """
        return NO_ROWS

    def append(self, rows: Sequence[int]) -> Sequence[int]:
        """Give each row, in order, one more portion, and use its first slot.

        This is what `grow` would do for a `regular` allocator.

        Args:
            rows: open rows with all their slots in use; a row that is listed again gets another portion, as if the
                one before had been used up by then.  There must be `room` for all.

        Returns:
            How many cached blocks were evicted for each block taken; empty if none was.

        """
        raise AllocatorError(f"{self.kind} grows in more ways than by a block")

    def append_in_turn(self, rows: Sequence[int], turns: int) -> Sequence[int]:
        """Do `append` for rows, none of which is listed twice, several times over."""
        return self.append(rows if turns == 1 else [*rows] * turns)

    def shift(self, rows: Sequence[int], lengths: Sequence[int]) -> Shift:
        """Let rows grow by a token that may make them take a portion or give one back.

        Stops at the first row for which there might be no room.

        Args:
            rows: open rows of a `regular` allocator that `leaves_behind` portions; rows of later steps may follow.
                Without a prefix cache, no portion that is given back may be shared; with one, the tokens of rows that
                give any back must be known.
            lengths: tokens that each row will have, one more than before.

        """
        raise AllocatorError(f"{self.kind} grows in more ways than by a block")

    def calls(self, rows: Sequence[int]) -> Mappings | None:
        """Return the pages that `append(rows)` would map and unmap, or None if unknown.  Changes nothing."""
        return NO_MAPPINGS

    def fill(self, rows: Sequence[int]) -> None:
        """Record that rows have filled their last slots, where `append` was called instead of `grow`."""
        length, slots = self.table.views.length, self.table.views.slots
        for row in rows:
            length[row] = slots[row]

    def note(self, rows: Ints, lengths: Ints) -> None:
        """Record how long rows have become within their slots, where `append` was called instead of `grow`.

        Args:
            rows: int64[n], open rows.
            lengths: int64[n], tokens of each.

        """
        self.table.length[rows] = lengths

    @property
    def room(self) -> int:
        """How many rows are certain to find room if, one after the other, they run out of slots now."""
        return 0
