"""What was observed of a run: the columns that its metrics are computed from, and what all of them need of these.

*Columns* are mappings from the column names of `analysis.rundir` to NumPy arrays, so that a run that has just finished
and one that is read back a year later are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from allocators.ledger import Ledger
from analysis.slo import Limits, of_all, of_part, parts_with_own

Column: TypeAlias = npt.NDArray[Any]
Columns: TypeAlias = Mapping[str, Column]
Floats: TypeAlias = npt.NDArray[np.float64]

SHARES = Ledger._fields[:7]
"""The shares of the ledger that sum to the capacity."""
HELD = ("live", "reserved", "internal", "rounding")
"""The shares that running sequences hold."""
CAUSES = ("memory", "seats", "budget", "order")
"""What may keep the head of the queue waiting."""
LEDGER_WORDS = {
    "live": "filled with K/V of a running sequence, a shared slot counted once",
    "reserved": "held for a running sequence, which will use them",
    "internal": "held, and never used (internal fragmentation)",
    "rounding": "held only because placement rounds up",
    "cached": "kept for reuse, evictable",
    "external": "free, but in holes too small for the next request (external fragmentation)",
    "free": "free and usable",
}
"""What the token slots of each share of the ledger are, in a few words."""


class Rows(Mapping[str, Column]):
    """Some rows of the columns of requests, taken when a column is asked for."""

    def __init__(self, columns: Columns, rows: npt.NDArray[np.bool_]) -> None:
        """Take the `rows` that are marked, of `columns`."""
        self._columns = columns
        self._rows = rows

    def __getitem__(self, name: str) -> Column:
        """Take the rows of one column; of `stall_s` the values in their lists."""
        rows = np.repeat(self._rows, self._columns["stall_count"]) if name == "stall_s" else self._rows
        return self._columns[name][rows]

    def __iter__(self) -> Iterator[str]:
        """Names of the columns."""
        return iter(self._columns)

    def __len__(self) -> int:
        """How many columns there are."""
        return len(self._columns)


@dataclass(frozen=True)
class Observed:
    """What the metrics of one run are computed from."""

    requests: Columns
    """Columns of requests.parquet.  The lists in `stall_s` are concatenated; `stall_count` has their lengths."""
    steps: Columns
    """Columns of steps.parquet."""
    capacity: int
    """Token slots in the pool."""
    slo: Limits = field(default_factory=dict)
    """Limits in seconds, by the name of a per-request metric (`analysis.slo`)."""
    price_per_hour: float | None = None
    """Price of all GPUs of the engine together, if known."""
    gap_tokens: str = "gap_tokens"
    """Name of the column that says how many of its requests' tokens came after the `gap_s` of their step."""

    @cached_property
    def finished(self) -> npt.NDArray[np.bool_]:
        """Which requests finished."""
        return np.asarray(self.requests["status"] == "finished", np.bool_)

    @cached_property
    def outputs(self) -> Floats:
        """Output tokens that each request produced per sample; NaN if none."""
        tokens = np.asarray(self.requests["generated_tokens"], np.float64)
        return np.where(tokens > 0, tokens, np.nan)

    @cached_property
    def durations(self) -> Floats:
        """Length of each step in seconds."""
        return np.asarray(self.steps["duration_s"], np.float64)

    @cached_property
    def duration_s(self) -> float:
        """Length of the run in seconds; the rows of steps cover all of it."""
        return float(self.durations.sum())

    @cached_property
    def held(self) -> Floats:
        """Slots that running sequences hold in each step."""
        held = np.zeros(len(self.durations))
        for name in HELD:
            held += self.steps[name]
        return held

    @cached_property
    def blocked(self) -> dict[str, npt.NDArray[np.bool_]]:
        """By cause: bool[steps], whether it kept the head of the queue waiting during each step."""
        causes = self.steps["blocked"]
        held = np.flatnonzero(causes)  # usually few, and comparing words takes long
        words, found = causes[held], {}
        for word in sorted(set(words.tolist())):
            found[str(word)] = which = np.zeros(len(causes), np.bool_)
            which[held[words == word]] = True
        return found

    def part(self, name: str) -> Observed:
        """The same run with the requests of one part of a mix only."""
        rows = np.asarray(self.requests["part"] == name, np.bool_)
        told = f"gap_tokens.{name}"
        return replace(self, requests=Rows(self.requests, rows), slo=of_part(self.slo, name), gap_tokens=told)

    @cached_property
    def limits(self) -> dict[str, float | Floats]:
        """Limits of the SLO by metric: one for all requests, or one for each where parts differ; infinite if none."""
        found: dict[str, float | Floats] = {
            name: limit for name, limit in of_all(self.slo).items() if limit is not None
        }
        for part in parts_with_own(self.slo):
            rows = np.asarray(self.requests["part"] == part, np.bool_)
            for name, limit in of_part(self.slo, part).items():
                found[name] = np.where(rows, np.inf if limit is None else limit, found.get(name, np.inf))
        return found

    def mean(self, values: Column) -> float:
        """Time-weighted mean of a column of steps; NaN for an empty run."""
        return weighted(values, self.durations) / self.duration_s if self.duration_s else np.nan

    def rate(self, count: float) -> float:
        """A count per second of the run; NaN for an empty run."""
        return float(count) / self.duration_s if self.duration_s else np.nan


def weighted(values: Column, weights: Floats) -> float:
    """Add up values times weights; a column of zeros that is kept as one number is not looked at."""
    nothing = len(values) > 0 and not any(values.strides) and not values[0]
    return 0.0 if nothing else float(np.dot(values, weights))


def common(one: Columns, other: Columns) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the rows of requests.parquet, in one run and in another, of the requests that came in both.

    In a closed loop that a horizon ends, how many come depends on how fast the first ones are answered.
    """
    _, mine, theirs = np.intersect1d(one["request_id"], other["request_id"], assume_unique=True, return_indices=True)
    return mine, theirs


def plain(columns: Mapping[str, Any]) -> dict[str, Column]:
    """Turn an engine's columns into arrays: `(codes, words)` into words, `(offsets, values)` into values and counts.

    Columns that are arrays already are not copied.
    """
    result: dict[str, Column] = {}
    for name, column in columns.items():
        if not isinstance(column, tuple):
            result[name] = np.asarray(column)
        elif name.endswith("_s"):
            result[name] = np.asarray(column[1])
            result[name.removesuffix("_s") + "_count"] = np.diff(column[0])
        else:
            result[name] = np.asarray(column[1], dtype=object)[np.asarray(column[0])]
    return result
