"""Which parts of a mix the tokens of a step belong to: columns of steps.parquet that only mixes have."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence


class PartLog:
    """By part, how many of the `gap_tokens` of each step are its sequences'; those of a stretch are stored once."""

    def __init__(self, parts: Sequence[str]) -> None:
        """Start empty; without `parts` it stays so."""
        self._parts = parts
        self._counts = array("q")

    def add(self, counts: Sequence[int]) -> None:
        """Append the counts of one row, or of all rows of a stretch, one for each part."""
        self._counts.extend(counts)

    def flush(self, often: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.int64]]:
        """Return the columns, in which what was added last occurs as `often` as it has rows, and forget them."""
        if not self._parts:
            return {}
        counts = np.array(self._counts, np.int64).reshape(-1, len(self._parts))
        self._counts = array("q")
        columns = zip(self._parts, counts.T, strict=True)
        return {f"gap_tokens.{name}": np.repeat(column, often) for name, column in columns}
