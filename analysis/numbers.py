"""How numbers are written in tables: short, in digits that mean something."""

from __future__ import annotations

import math


def short(value: float, digits: int | None = None) -> str:
    """Write a number for a table: three significant digits unless `digits` after the point; a dash for none."""
    if not math.isfinite(value):
        return "-"
    if digits is not None:
        return f"{value:.{digits}f}"
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.3g}"
