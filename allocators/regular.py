"""Regular growth: what lets an engine grow rows by the portion, without asking for each of their tokens.

Nothing happens to most rows in most steps, as their next slot is theirs already.  An allocator may say which rows
need not be named in `grow`, and when (`notice`).  One that is *regular* promises more: all that ever happens to a row
is that it takes a portion of the same size, so that an engine knows when, and `append` does it.  Both are ways to be
faster, not to decide otherwise: an allocator that says nothing, as these defaults do, is asked for every token.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import ClassVar

from allocators.answers import NO_MAPPINGS, Mappings, Portion
from allocators.compiled import mypyc_attr
from allocators.errors import AllocatorError
from allocators.table import BlockTable, Ints

NO_ROWS: frozenset[int] = frozenset()


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class RegularGrowth(ABC):
    """What an allocator promises about how its rows grow, and the verbs that keep the promise."""

    kind: ClassVar[str]
    block_size: int
    table: BlockTable

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
        """Learn how long rows have become within the slots they have, where `append` has stood for `grow`.

        Args:
            rows: int64[n], open rows.
            lengths: int64[n], tokens of each.

        """
        self.table.length[rows] = lengths

    @property
    def room(self) -> int:
        """Rows that can certainly grow by a token beyond their slots now, one after the other."""
        return 0
