"""The `requests` block of a workload file that replays a recorded trace; `workloads.traces` reads what it names."""

from __future__ import annotations

from typing import Literal

from workloads.arrivals import Arrivals
from workloads.spec import Count, DataPath, Positive, Spec


class Trace(Spec):
    """Requests replayed from a recorded trace."""

    trace: DataPath
    """The file; gzip'd or not."""
    format: str = "auto"
    """Name of the format (`sim list traces`), or auto to tell it from the content."""
    rate_scale: Positive = 1.0
    """Arrival rate as a multiple of the recorded one: every gap is divided by it."""
    count: Count | None = None
    """Only the first so many requests."""
    arrivals: Arrivals | None = None
    """Arrival times instead of the recorded ones, in the same order; needed to pace a file without times."""
    spread: bool = True
    """Whether arrivals are spread evenly at random inside the ticks of a coarse clock (Mooncake: 3 s)."""
    on_bad_rows: Literal["error", "skip"] = "error"
    """Whether rows that make no sense are an error or are left out with a note."""
    block_size: Count | None = None
    """Tokens that one block hash names, where it is not the format's usual number."""
    only_model: str | None = None
    """Only requests of this model (BurstGPT)."""
    turns: Literal["first", "all"] = "first"
    """Of conversations without times: first exchanges by vLLM's filter, or every answer with its history."""
    tokenizer: DataPath | None = None
    """A Hugging Face tokenizer.json to count the tokens of text; an estimate of 4 bytes a token without."""
