"""The `requests` block of a workload file that replays a recorded trace; `workloads.traces` reads what it names."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from workloads.arrivals import Arrivals
from workloads.spec import Count, DataPath, Positive, Spec


class Trace(Spec):
    """Requests replayed from a recorded trace."""

    trace: DataPath
    """Path of the recorded trace, gzipped or not. Its first request arrives at 0, whatever the recorded time: traces in
    one mix start together.
    """
    format: str = "auto"
    """Name of the file's format (`sim list traces`), or `auto` to recognise it by its content."""
    arrival_column: str | None = None
    """Name of the column of arrival times, of a table of your own that calls it something uncommon."""
    prompt_column: str | None = None
    """Name of the column of prompt lengths, likewise."""
    output_column: str | None = None
    """Name of the column of output lengths, likewise."""
    rate_scale: Positive = 1.0
    """Arrival rate as a multiple of the recorded one: every gap between arrivals is divided by it. Not with `arrivals`,
    which have a rate of their own.
    """
    count: Count | None = None
    """Number of requests to replay, from the first on; all if not given."""
    one_in: Count = 1
    """Of these only the first of every so many: the share of one of so many engines that take turns. They share a
    burst, too, which `rate_scale` only slows down. Conversations stay whole. With `repeat`, the second replication has
    the second of every so many, and so on: intervals then tell how far engines differ.
    """
    arrivals: Arrivals | None = None
    """Generated arrival times instead of the recorded ones, in the same order; needed for a file without times."""
    spread: bool = True
    """Whether arrivals that a coarse clock recorded as simultaneous (Mooncake: every 3 s) are spread at random until
    its next tick.
    """
    on_bad_rows: Literal["error", "skip"] = "error"
    """What to do about rows that make no sense: `error` stops, `skip` leaves them out and says how many."""
    block_size: Count | None = None
    """Tokens that one block hash of the trace stands for, if not the format's usual number."""
    only_model: str | None = None
    """Name of a model: only its requests are replayed (for traces that name models, as BurstGPT does)."""
    turns: Literal["first", "all"] = "first"
    """Which requests of conversations without times are replayed: `first` exchanges that pass vLLM's filter, or `all`
    answers, each with its history.
    """
    tokenizer: DataPath | None = None
    """Path of a Hugging Face tokenizer.json that counts the tokens of text; without it 4 bytes are taken for a token.
    """

    @model_validator(mode="after")
    def _one_rate(self) -> Self:
        if self.arrivals is not None and self.rate_scale != 1:
            raise ValueError("rate_scale is of recorded times, and arrivals replace them: change the rate of arrivals")
        return self
