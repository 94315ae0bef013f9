"""Stretches: what many steps at once change in the pool.

Most steps of a leap change nothing, and those that do mostly change one number: how many slots are held.  So changes
are listed one by one.  There are as many of them as blocks are taken, and telemetry keeps them all until it writes
rows; that is why each is a single integer.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Several
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from allocators.answers import Copy, Mappings
    from allocators.table import Ints

LONGEST = 1 << 12
"""Most steps in a stretch; bounds its arrays."""
HELD, CACHED, ROUNDING, INTERNAL, EVICTED, LIVE, SAVED = range(7)
Change: TypeAlias = tuple[int, int, int, int, int, int, int]
"""How one or more steps change the pool: more (or fewer) held, cached, rounding and internal token slots; blocks
evicted; and more live token slots, beyond one for each sequence, and more that sharing saves."""


def packed(step: int, field: int, more: int) -> int:
    """Return the change of one field of `Change` in one step (from 0) as a number."""
    return more << 15 | step << 3 | field


def unpacked(changes: Ints) -> tuple[Ints, Ints, Ints]:
    """Return the steps, the fields and the amounts of many changes that are `packed`."""
    return changes >> 3 & LONGEST - 1, changes & 7, changes >> 15


def noted(step: int, change: Change) -> list[int]:
    """Return all that a step changes, each `packed`."""
    return [packed(step, field, more) for field, more in enumerate(change) if more]


class Stretch(NamedTuple):
    """Steps for which memory has been found."""

    steps: int
    changes: Several[int]
    """The changes of single steps, each `packed`; several of one field in one step add up."""
    total: Change
    """The sum of them."""
    copies: Several[Copy] = ()
    copied: int = 0
    calls: Several[int] = ()
    """Pages mapped, as flat triples: the step (from 0), how many, and the nanoseconds hidden by the step before."""


Hides: TypeAlias = "Callable[[int, Mappings], int | None]"
"""How many nanoseconds of the calls due before a step of a leap are hidden by the step before; None if not all are."""
NO_CHANGE: Change = (0, 0, 0, 0, 0, 0, 0)
NO_STRETCH = Stretch(0, (), NO_CHANGE)
