"""What every reader makes, and how it becomes `Requests`.

A reader turns one format's columns into `Rows`: seconds and tokens as floats, nothing
dropped.  What is common to all formats happens once, here: bad rows are reported with
their line numbers, requests without a token are left out, arrivals are sorted, start at 0
and are scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from workloads.errors import WorkloadError
from workloads.requests import Floats, Ints, Prefixes, Requests

if TYPE_CHECKING:
    from workloads.schema import Trace

Fault: TypeAlias = tuple[int, str]
"""Line number (1-based) and what is wrong there."""

SHOWN = 5
"""Bad rows that a message lists one by one."""
LONGEST = 1 << 31
"""Tokens; a length beyond this is a mistake."""


@dataclass(frozen=True)
class Rows:
    """The rows of a trace as its format has them, in file order."""

    arrival_s: Floats
    """float64[n], seconds from any origin; NaN where missing."""
    prompt_tokens: Floats
    """float64[n]; NaN where missing."""
    output_tokens: Floats
    """float64[n]; NaN where missing."""
    lines: Callable[[Ints], Sequence[int]]
    """Line numbers (1-based) of rows given by index."""
    faults: Sequence[Fault] = ()
    """Rows that could not even be parsed; they are in no column."""
    prefixes: Prefixes | None = None
    """What the prompts are made of, where the format says so."""
    after: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    notes: Sequence[str] = ()
    """What the reader left out or assumed."""

    def __len__(self) -> int:
        """How many rows were parsed."""
        return len(self.arrival_s)


def requests_of(rows: Rows, name: str, trace: Trace) -> Requests:
    """Check the rows of file `name` and make requests of them, as the `trace` block asks.

    Raises:
        WorkloadError: there are bad rows (unless they may be skipped), or nothing is left.

    """
    notes = list(rows.notes)
    faults = [*rows.faults, *_faults(rows)]
    if faults:
        report = fault_lines(name, faults, len(rows) + len(rows.faults))
        if trace.on_bad_rows == "error":
            raise WorkloadError(*report)
        notes += [f"left out: {line}" for line in report]
    bad = _bad(rows)
    empty = ~bad & ((rows.prompt_tokens < 0.5) | (rows.output_tokens < 0.5))
    if empty.any():
        notes.append(f"{_rows(int(empty.sum()))} without a prompt or output token left out")
    keep = np.flatnonzero(~bad & ~empty)
    if len(keep) == 0:
        raise WorkloadError(f"{name}: no request in it: {len(rows)} rows, none usable")
    arrival = rows.arrival_s[keep]
    if (np.diff(arrival) < 0).any():
        notes.append("rows were not in order of arrival: sorted")
        keep = keep[np.argsort(arrival, kind="stable")]
        arrival = rows.arrival_s[keep]
    if trace.count is not None:
        keep, arrival = keep[: trace.count], arrival[: trace.count]
    return Requests(
        arrival_s=(arrival - arrival[0]) / trace.rate_scale,
        prompt_tokens=np.rint(rows.prompt_tokens[keep]).astype(np.int64),
        output_tokens=np.rint(rows.output_tokens[keep]).astype(np.int64),
        prefixes=None if rows.prefixes is None else rows.prefixes.take(keep),
        notes=tuple(notes),
    )


def fault_lines(name: str, faults: Sequence[Fault], total: int) -> list[str]:
    """Write faults as lines: how many rows, then the first few, each with its line number."""
    faults = sorted(faults)
    bad = len({line for line, _ in faults})
    lines = [f"{name}: {bad:,} of {_rows(total)} {'is' if bad == 1 else 'are'} bad"]
    lines += [f"{name}:{line}: {what}" for line, what in faults[:SHOWN]]
    if len(faults) > SHOWN:
        numbers = ", ".join(str(line) for line, _ in faults[SHOWN : SHOWN + 20])
        lines.append(f"{name}: and lines {numbers}{', ...' if len(faults) > SHOWN + 20 else ''}")
    return lines


def _rows(count: int) -> str:
    return f"{count:,} {'row' if count == 1 else 'rows'}"


def _checks(rows: Rows) -> list[tuple[npt.NDArray[np.bool_], str, Floats]]:
    return [
        (~np.isfinite(rows.arrival_s), "the arrival time is missing or not a finite number", rows.arrival_s),
        (~np.isfinite(rows.prompt_tokens), "prompt tokens are missing or not a finite number", rows.prompt_tokens),
        (~np.isfinite(rows.output_tokens), "output tokens are missing or not a finite number", rows.output_tokens),
        (rows.prompt_tokens < 0, "prompt tokens are negative", rows.prompt_tokens),
        (rows.output_tokens < 0, "output tokens are negative", rows.output_tokens),
        (
            np.isfinite(rows.prompt_tokens) & (rows.prompt_tokens > LONGEST),
            "prompt tokens are absurd",
            rows.prompt_tokens,
        ),
        (
            np.isfinite(rows.output_tokens) & (rows.output_tokens > LONGEST),
            "output tokens are absurd",
            rows.output_tokens,
        ),
    ]


def _bad(rows: Rows) -> npt.NDArray[np.bool_]:
    """Mark the rows that make no sense."""
    bad: npt.NDArray[np.bool_] = np.logical_or.reduce([mask for mask, _, _ in _checks(rows)])
    return bad


def _faults(rows: Rows) -> list[Fault]:
    """Name each bad row's first fault, with its line number."""
    seen = np.zeros(len(rows), bool)
    faults: list[Fault] = []
    for mask, what, values in _checks(rows):
        which = np.flatnonzero(mask & ~seen)
        seen |= mask
        if len(which):
            lines = rows.lines(which)
            faults += [(line, f"{what}: {values[row]:g}") for line, row in zip(lines, which.tolist(), strict=True)]
    return faults
