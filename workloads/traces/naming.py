"""Which columns of a table of requests hold arrival times, prompt lengths and output lengths.

Tables are exported by many tools, which call the same thing `prompt_tokens`, `Input Tokens` or `inputTokenCount`.
Common words are understood however they are spelled; others are named in the workload file.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from allocators.options import meant
from workloads.errors import WorkloadError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

UNITS = {"_ms": 1e-3, "_us": 1e-6, "_ns": 1e-9}
"""Seconds in the unit that a column of times ends in; without one it is seconds."""
TIMES = (
    "arrival_s", "arrival_time_s", "arrival_time", "arrival", "arrived_at", "timestamp_s", "timestamp", "time_s",
    "time", "request_time", "requested_at", "start_time", "started_at", "created_at",
)  # fmt: skip
ARRIVAL = (
    *TIMES,
    *(f"{word}{unit}" for word in ("arrival", "arrival_time", "timestamp", "time", "start_time") for unit in UNITS),
)
PROMPT = (
    "prompt_tokens", "input_tokens", "context_tokens", "prompt_token_count", "input_token_count", "num_prompt_tokens",
    "num_input_tokens", "prompt_length", "input_length", "prompt_len", "input_len", "prompt", "input",
)  # fmt: skip
OUTPUT = (
    "output_tokens", "completion_tokens", "generated_tokens", "output_token_count", "completion_token_count",
    "num_output_tokens", "num_completion_tokens", "output_length", "output_len", "completion", "output",
)  # fmt: skip
"""Names a column may have, in the order of preference."""
MOST_NAMED = 20
"""Columns of a file that a message names."""
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
"""Where a new word begins in `inputTokens`."""
APART = re.compile(r"[\W_]+")
"""What sets words apart."""


class Chosen(NamedTuple):
    """What the columns of a table are called: by the workload file, where it says so, or in the table."""

    arrival: str | None = None
    prompt: str | None = None
    output: str | None = None

    def within(self, header: Iterable[str], where: str) -> Chosen:
        """Find these columns in a header, and by their common names those that are not named.

        Args:
            header: names of all columns.
            where: file, and line if it has lines, for the message.

        Raises:
            WorkloadError: a column that is named is not there.

        """
        there = [*header]
        found = {}
        for which, known in zip(self._fields, (ARRIVAL, PROMPT, OUTPUT), strict=True):
            name = getattr(self, which)
            found[which] = pick(there, known) if name is None else pick(there, (name,))
            if name is not None and found[which] is None:
                raise WorkloadError(
                    f"{where}: no column {name}{meant(name, there)}, as {which}_column says; columns: {listed(there)}"
                )
        return Chosen(**found)


def pick(header: Iterable[str], names: Sequence[str]) -> str | None:
    """Return the first of the names that the header has: as it is there, or else in whatever case and spelling."""
    columns = [*header]
    found = {spelled(cell): cell for cell in reversed(columns)} | {cell: cell for cell in columns}
    return next((found[one] for name in names for one in (name, spelled(name)) if one in found), None)


def spelled(name: str) -> str:
    """Spell a name as ours are: `Input Tokens (k)` and `inputTokensK` are input_tokens_k."""
    return APART.sub("_", CAMEL.sub("_", name)).strip("_").lower()


def unit(column: str) -> float:
    """Return the seconds in the unit that the name of a column of times ends in."""
    return UNITS.get(spelled(column)[-3:], 1.0)


def listed(header: Sequence[str]) -> str:
    """Name the columns of a file, the first if there are many."""
    return ", ".join(header[:MOST_NAMED]) + (", ..." if len(header) > MOST_NAMED else "")


def timeless(header: Sequence[str]) -> str:
    """Say that no column is one of arrival times, what such columns are called, and which there are."""
    return (
        "no arrival times: all requests arrive at once unless arrivals are given; columns are "
        f"{listed(header)}; one of times is what arrival_column names, or called {', '.join(TIMES)}, arrival_ms, "
        "time_us and the like"
    )
