"""Leaps of allocators whose rows hold exactly their tokens: every row's slots change in every step."""

from __future__ import annotations

import numpy as np

from allocators.answers import Leap
from allocators.table import Ints

CELLS = 1 << 16
"""Most changes, rows times steps, that one leap lists."""


def most_steps(lengths: Ints, longest: int) -> int:
    """Steps that rows of these lengths can do before one is longer than `longest`, or a leap is too long to list."""
    return int(min(longest - lengths.max(initial=0), max(1, CELLS // max(len(lengths), 1))))


def lockstep(lengths: Ints, steps: int, held: Ints, rounding: Ints, copied: int = 0) -> Leap:
    """List a leap in which every row has one slot more after each step.

    Args:
        lengths: int64[n], tokens before the first step.
        steps: how many were done.
        held: int64[steps], as in `Leap`.
        rounding: int64[steps], as in `Leap`.
        copied: tokens copied before the first step.

    """
    count = len(lengths)
    when = np.repeat(np.arange(steps), count)
    who = np.arange(steps * count) % count
    slots = (lengths + np.arange(1, steps + 1)[:, None]).ravel()
    return Leap(steps, when, who, slots, held, np.zeros(steps, np.int64), (), copied, rounding)
