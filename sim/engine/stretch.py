"""Stretches: how many steps at once change the use of the pool.

Most steps of a leap change nothing, and the others usually change one number, that of slots held.  So changes are
listed one by one.  There are about as many of them as blocks are taken, and telemetry keeps them all until it writes
rows, so each is packed into a single integer.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from allocators.answers import Copy
    from allocators.table import Ints

LONGEST: Final = 1 << 12
"""Most steps in a stretch, which bounds its arrays."""
HELD: Final = 0
CACHED: Final = 1
ROUNDING: Final = 2
INTERNAL: Final = 3
EVICTED: Final = 4
LIVE: Final = 5
SAVED: Final = 6
Change: TypeAlias = tuple[int, int, int, int, int, int, int]
"""By how much one or more steps change the token slots that are held, cached, rounding and internal; blocks evicted;
and changes of the token slots that are live, beyond one for each sequence and step, and that sharing saves."""


def packed(step: int, field: int, more: int) -> int:
    """Pack the change of one field of `Change` in one step (from 0) into an integer."""
    return more << 15 | step << 3 | field


def evenly(steps: int, field: int, more: int) -> range:
    """Return the `packed` changes of one field by the same amount in each of some steps."""
    first = packed(0, field, more)
    return range(first, first + (steps << 3), 1 << 3)


def unpacked(change: int) -> tuple[int, int, int]:
    """Return the step, the field and the amount of a `packed` change."""
    return change >> 3 & LONGEST - 1, change & 7, change >> 15


def unpacked_all(changes: Ints) -> tuple[Ints, Ints, Ints]:
    """Return the steps, fields and amounts of `packed` changes."""
    return changes >> 3 & LONGEST - 1, changes & 7, changes >> 15


def noted(step: int, change: Change) -> list[int]:
    """Return the changes of a step, `packed` one by one."""
    return [packed(step, field, more) for field, more in enumerate(change) if more]


class Stretch(NamedTuple):
    """A number of steps for which memory has been found."""

    steps: int
    changes: Several[int]
    """The changes of single steps, `packed`; several changes of one field in one step add up."""
    total: Change
    """Their sum."""
    copies: Several[Copy] = ()
    copied: int = 0
    calls: Several[int] = ()
    """Pages mapped, as four numbers for each step that needs any: the step (from 0), how many, and of the nanoseconds
    that this takes those hidden by the step before and those for which the step waits."""


NO_CHANGE: Change = (0, 0, 0, 0, 0, 0, 0)
NO_STRETCH = Stretch(0, (), NO_CHANGE)
