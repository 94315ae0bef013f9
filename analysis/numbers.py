"""How numbers are written in tables: short, in digits that mean something."""

from __future__ import annotations

import math
from collections.abc import Sequence

NOTHING = 1e-9
"""Per cent that rounding of sums may come to."""


def short(value: float, digits: int | None = None) -> str:
    """Write a number for a table: `digits` after the point, else three significant ones; a dash for none.

    Zeros at the end stay (1.50 below 1.42), but for a number that is whole and so a count.
    """
    if not math.isfinite(value):
        return "-"
    if digits is not None:
        return f"{value:,.{digits}f}"
    size = abs(float(f"{value:.3g}"))  # 99.96 is written with the digits of 100
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:#.3g}"


def percentage(value: float) -> str:
    """Write a share of requests or tokens in per cent: 100.0 are all of them and 0.0 none, whatever rounding says."""
    text = short(value, 1)
    if text == "100.0" and value < 100 - NOTHING:
        return ">99.9"
    return "<0.1" if text == "0.0" and value > NOTHING else text


def listed(words: Sequence[str]) -> str:
    """Write one, or several, words as a sentence does."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
