"""Regular growth: how an engine may let rows grow a portion at a time, without asking for every token.

In most steps nothing happens to most rows, as they already own their next slot.  An allocator may declare which
rows need not be named in `grow`, and until when (`notice`).  One that is *regular* promises more: the only thing that
ever happens to a row is that it takes a portion of fixed size, so an engine can work out when, and `append` does it.
Both only save time and never change a decision; an allocator that promises nothing (the defaults below) is asked for
every token.
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
    """What an allocator promises about how its rows grow, and the verbs that keep the promise."""

    kind: ClassVar[str]
    block_size: int
    table: BlockTable

    @property
    def notice(self) -> int | None:
        """How many free slots a row has left when it must next be named in `grow`.

        0 if only a row that runs out of slots must be named, 1 if one that becomes full must be too; None if every
        row must be named for every token.  Until a row is named, its `table.length` lags behind; `grow` with its
        present length brings it up to date, which `fork` and `swap_out` require.
        """
        return None

    @property
    def regular(self) -> bool:
        """Whether `append` may be called instead of `grow`.

        True if a row that runs out of slots gets one portion of one or more blocks, and nothing else ever happens to
        a decoding row (once it has grown after a fork or a swap, and while it is not `entangled`).
        """
        return False

    @property
    def portion(self) -> Portion:
        """What a row takes when it runs out of slots, if the allocator is `regular`."""
        size = self.block_size
        return Portion(size, size, size if self.rounds_up else 0)

    @property
    def leaves_behind(self) -> int | None:
        """Tokens `n` such that a row gives back its k-th portion when it grows beyond `n` plus k portions, or None.

        If the allocator is `regular`, `shift` is then called instead of `grow`.
        """
        return None

    @property
    def names_full(self) -> bool:
        """Whether every row must be named when it fills a portion, too, since a prefix cache hears of each.

        If the allocator is `regular`, `shift` is then called instead of `grow`, for rows that are `entangled` as well.
        """
        return False

    @property
    def rounds_up(self) -> bool:
        """True if a row's slots are exactly its tokens, and whatever it holds beyond them counts as rounding."""
        return False

    @property
    def entangled(self) -> AbstractSet[int]:
        """Rows of a `regular` allocator that must also be named in `grow` when one of their blocks becomes full."""
        return NO_ROWS

    def append(self, rows: Sequence[int]) -> Sequence[int]:
        """Give each row, in order, one more portion and use its first slot: `grow`, where it does nothing else.

        Args:
            rows: open rows of an allocator that is `regular`, with all their slots in use; a row named again gets
                another portion, as if the one before had been used up meanwhile.  There must be `room`.

        Returns:
            How many cached blocks were evicted to take each block; nothing if none was.

        """
        raise AllocatorError(f"{self.kind} grows in more ways than by a block")

    def shift(self, rows: Sequence[int], lengths: Sequence[int]) -> Shift:
        """Do `append` for rows that also leave portions behind, or fill one, as far as there is certainly room.

        Args:
            rows: open rows of an allocator that is `regular` and `leaves_behind` or `names_full`, each of which may
                take a portion, leave one, or fill one; rows of later steps may follow.  Without a prefix cache they
                share none of those that they leave; with one, their tokens are known if they leave any.
            lengths: tokens that each row will have, one more than before.

        """
        raise AllocatorError(f"{self.kind} grows in more ways than by a block")

    def calls(self, rows: Sequence[int]) -> Mappings | None:
        """Count the pages that `append` with the same rows would map and unmap, or None if that is not certain.

        Changes nothing.
        """
        return NO_MAPPINGS

    def note(self, rows: Ints, lengths: Ints) -> None:
        """Note how long rows have become within their slots, after `append` was called instead of `grow`.

        Args:
            rows: int64[n], open rows.
            lengths: int64[n], tokens of each.

        """
        self.table.length[rows] = lengths

    @property
    def room(self) -> int:
        """How many rows can certainly grow by a token beyond their slots now, one after the other."""
        return 0
