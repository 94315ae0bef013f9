"""What every reader makes, and how it becomes `Requests`.

A reader turns one format's columns into `Rows`: seconds and tokens as floats, nothing
dropped.  What is common to all formats happens once, here: bad rows are reported with
their line numbers, requests without a token are left out, arrivals are sorted, start at 0,
are spread where the clock was coarse, and are scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from workloads.errors import WorkloadError
from workloads.requests import LATEST_S, LONGEST, Floats, Ints, Prefixes, Requests
from workloads.traces.files import MOST_FAULTS
from workloads.traces.repeated import repeated

if TYPE_CHECKING:
    from workloads.trace import Trace

Fault: TypeAlias = tuple[int, str]
"""Line number (1-based) and what is wrong there."""

SHOWN = 5
"""Bad rows that a message lists one by one."""
COARSE_S = 0.1
"""A clock that ticks more slowly than this, seconds, is spread."""


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
    """int64[n]: the row whose end releases this one, or -1; empty when all are -1."""
    delay_s: Floats = field(default_factory=lambda: np.zeros(0))
    """float64[n], seconds from that end to the arrival; empty when `after` is."""
    notes: Sequence[str] = ()
    """What the reader left out or assumed."""

    def __len__(self) -> int:
        """How many rows were parsed."""
        return len(self.arrival_s)

    def without(self, rows: Ints, faults: Sequence[Fault]) -> Rows:
        """Return these rows without some that turned out to be bad; links to those are cut."""
        keep = np.setdiff1d(np.arange(len(self)), rows)
        after, delay = _links(self, keep)
        return Rows(
            self.arrival_s[keep],
            self.prompt_tokens[keep],
            self.output_tokens[keep],
            lambda some: self.lines(keep[some]),
            [*self.faults, *faults],
            None if self.prefixes is None else self.prefixes.take(keep),
            after,
            delay,
            self.notes,
        )


def requests_of(rows: Rows, trace: Trace, spread: np.random.Generator, repeat: int = 0) -> Requests:
    """Check rows and make requests of them, as the `trace` block asks; see `recorded` and `replayed`."""
    return replayed(recorded(rows, trace), trace, spread, repeat)


def recorded(rows: Rows, trace: Trace) -> Requests:
    """Check rows and make requests of all that are usable, at the recorded pace.

    Args:
        rows: what a reader made of `trace.trace`.
        trace: the block; it says what becomes of bad rows.

    Raises:
        WorkloadError: there are bad rows (unless they may be skipped), or nothing is left.

    """
    name, notes = trace.trace, list(rows.notes)
    bad, found = _check(rows, name)
    if faults := [*rows.faults, *found]:
        report = fault_lines(name, faults, len(rows) + len(rows.faults))
        if trace.on_bad_rows == "error":
            others = len({line for line, _ in faults}) < len(rows) + len(rows.faults)
            raise WorkloadError(report[0] + "; on_bad_rows: skip leaves such rows out" * others, *report[1:])
        notes += [f"left out: {line}" for line in report]
    broken = ~bad & ((rows.prompt_tokens % 1 != 0) | (rows.output_tokens % 1 != 0))
    if broken.any():
        notes.append(f"{_rows(int(broken.sum()))} with fractions of tokens rounded")
    empty = ~bad & ((np.rint(rows.prompt_tokens) < 1) | (np.rint(rows.output_tokens) < 1))
    if empty.any():
        notes.append(f"{_rows(int(empty.sum()))} without a prompt or output token left out")
    keep = np.flatnonzero(~bad & ~empty)
    if len(keep) == 0:
        raise WorkloadError(f"{name}: no request in it: {_rows(len(rows))}, none usable")
    arrival = rows.arrival_s[keep]
    if (np.diff(arrival) < 0).any():
        notes.append("rows were not in order of arrival: sorted")
        keep = keep[np.argsort(arrival, kind="stable")]
        arrival = rows.arrival_s[keep]
    if rows.prefixes is None and (twice := repeated(arrival, rows.prompt_tokens[keep], rows.output_tokens[keep])):
        notes.append(f"{_rows(twice)} with the time and the lengths of another: listed twice? All are replayed")
    after, delay = _links(rows, keep)
    return Requests(
        arrival_s=arrival - arrival[0],
        prompt_tokens=np.rint(rows.prompt_tokens[keep]).astype(np.int64),
        output_tokens=np.rint(rows.output_tokens[keep]).astype(np.int64),
        prefixes=None if rows.prefixes is None else rows.prefixes.take(keep),
        after=after,
        delay_s=delay,
        notes=tuple(notes),
    )


def replayed(whole: Requests, trace: Trace, spread: np.random.Generator, repeat: int = 0) -> Requests:
    """Pick and pace the requests that one replication of a `trace` block replays.

    Args:
        whole: all that the trace has recorded.
        trace: the block.
        spread: draws where arrivals fall inside the ticks of a coarse clock.
        repeat: number of the replication: of `one_in` engines that take turns it has the requests of another one.

    Raises:
        WorkloadError: nothing is left.

    """
    notes = list(whole.notes)
    if trace.count is not None and trace.count > len(whole):
        notes.append(f"{trace.count:,} requests are asked for, the trace has {len(whole):,}")
    keep = np.arange(len(whole))[: trace.count]
    arrival = whole.arrival_s[keep]
    if trace.spread and (tick := coarse_clock(arrival)):
        arrival = spread_ticks(arrival, tick, spread)
        notes.append(f"times are whole ticks of {tick:g} s: arrivals are spread evenly at random inside each")
    mine = _share(whole, keep, trace, repeat)
    keep, arrival = keep[mine], arrival[mine]
    after, delay = _links(whole, keep)
    return Requests(
        arrival_s=arrival / trace.rate_scale,
        prompt_tokens=whole.prompt_tokens[keep],
        output_tokens=whole.output_tokens[keep],
        prefixes=None if whole.prefixes is None else whole.prefixes.take(keep),
        after=after,
        delay_s=delay,
        notes=tuple(notes),
    )


def _links(made: Rows | Requests, keep: Ints) -> tuple[Ints, Floats]:
    """Lead links to the new places; one that leads to what is left out, or to what comes later, is cut."""
    if len(made.after) == 0:
        return made.after, made.delay_s
    place = np.full(len(made), -1)
    place[keep] = np.arange(len(keep))
    after = np.where(made.after[keep] < 0, -1, place[made.after[keep]])
    after[after >= np.arange(len(keep))] = -1
    return after, np.where(after < 0, 0.0, made.delay_s[keep])


def _share(whole: Requests, keep: Ints, trace: Trace, repeat: int) -> Ints:
    """Return the places in `keep` of one of every so many conversations; a request on its own is one, too."""
    one_in = trace.one_in
    after = _links(whole, keep)[0] if one_in > 1 else keep[:0]
    first = np.arange(len(keep))
    for request in np.flatnonzero(after >= 0).tolist():
        first[request] = first[after[request]]
    mine = np.flatnonzero(np.unique(first, return_inverse=True)[1] % one_in == repeat % one_in)
    if len(mine) == 0:
        raise WorkloadError(f"{trace.trace}: one_in {one_in:,} leaves no request for replication {repeat + 1:,}")
    return mine


def coarse_clock(arrival: Floats) -> float:
    """Return the tick of the clock if most arrivals share theirs with another, in seconds; else 0.

    Mooncake's traces, for one, count in steps of 3 s, about ten requests a step.

    Args:
        arrival: float64[n], ascending.

    """
    gaps = np.diff(arrival)
    steps = gaps[gaps > 0]
    if len(steps) < 2 or len(steps) > 0.5 * len(gaps):
        return 0.0
    tick = float(np.median(steps))
    # Empty ticks make some steps longer: multiples, give or take the rounding.
    regular = np.abs(steps / tick - np.rint(steps / tick)) < 0.01
    return tick if tick >= COARSE_S and regular.mean() > 0.9 else 0.0


def spread_ticks(arrival: Floats, tick: float, rng: np.random.Generator) -> Floats:
    """Spread arrivals evenly at random over their ticks, as Poisson arrivals would lie; order is kept.

    Args:
        arrival: float64[n], ascending.
        tick: seconds.
        rng: draws one number an arrival.

    """
    starts = np.flatnonzero(np.diff(arrival, prepend=-1.0))
    group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(arrival))))
    room = np.minimum(np.diff(arrival[starts], append=np.inf), tick)
    inside = rng.random(len(arrival)) * room[group]
    return np.sort(arrival + inside)


def fault_lines(name: str, faults: Sequence[Fault], total: int) -> list[str]:
    """Write faults as lines: how many rows, then the first few, each with its line number."""
    faults = sorted(faults)
    bad = len({line for line, _ in faults})
    lines = [f"{name}: {bad:,} of {_rows(total)} {'is' if bad == 1 else 'are'} bad"]
    lines += [f"{name}:{line}: {what}" for line, what in faults[:SHOWN]]
    if len(faults) > SHOWN:
        numbers = ", ".join(str(line) for line, _ in faults[SHOWN : SHOWN + 20])
        word = "line" if len(faults) == SHOWN + 1 else "lines"
        lines.append(f"{name}: and {word} {numbers}{', ...' if len(faults) > SHOWN + 20 else ''}")
    return lines


def _rows(count: int) -> str:
    return f"{count:,} {'row' if count == 1 else 'rows'}"


def _middle(values: Floats) -> float:
    """Return the upper median of at least one value; `np.median` would first import masked arrays, for 10 ms."""
    half = len(values) // 2
    return float(np.partition(values, half)[half])


def _check(rows: Rows, name: str) -> tuple[npt.NDArray[np.bool_], list[Fault]]:
    """Mark the rows that make no sense, and name each one's first fault with its line."""
    columns = {
        "the arrival time": (rows.arrival_s, -np.inf),
        "prompt tokens": (rows.prompt_tokens, 0),
        "output tokens": (rows.output_tokens, 0),
    }
    bad = np.zeros(len(rows), bool)
    faults: list[Fault] = []
    for what, (values, least) in columns.items():
        finite = np.isfinite(values)
        verdicts = {
            "missing or not a finite number": ~finite,
            "negative": finite & (values < least),
            f"more than {LONGEST:,}": finite & (values > LONGEST) & np.isfinite(least),
        }
        if values is rows.arrival_s and finite.any():
            verdicts[f"more than {LATEST_S:.0e} s from most others"] = finite & (
                np.abs(values - _middle(values[finite])) > LATEST_S
            )
        for verdict, mask in verdicts.items():
            which = np.flatnonzero(mask & ~bad)
            bad |= mask
            if len(which) > MOST_FAULTS:
                raise WorkloadError(f"{name}: {len(which):,} of {_rows(len(rows))}: {what}: {verdict}")
            for line, row in zip(rows.lines(which) if len(which) else [], which.tolist(), strict=True):
                faults.append((line, f"{what}: {verdict}: {values[row]:g}"))
    return bad, faults
