"""Recorded workloads: one file a format, told apart by content.

read(Trace(trace="AzureLLMInferenceTrace_conv.csv.gz"), rng)  ->  Requests
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from allocators.options import meant
from workloads.errors import WorkloadError
from workloads.traces.base import Format, Options
from workloads.traces.files import TraceFile
from workloads.traces.naming import Chosen
from workloads.traces.plain import CSV, JSONL, PARQUET
from workloads.traces.rows import Rows, requests_of
from workloads.values import written

if TYPE_CHECKING:
    import numpy as np

    from workloads.requests import Requests
    from workloads.trace import Trace

FORMATS = {
    "parquet": "plain:PARQUET",
    "azure": "azure:FORMAT",
    "burstgpt": "burstgpt:FORMAT",
    "vidur": "vidur:FORMAT",
    "vidur-lengths": "vidur:LENGTHS",
    "splitwise": "splitwise:FORMAT",
    "turns": "conversations:TURNS",
    "sharegpt": "conversations:SHAREGPT",
    "weka": "weka:FORMAT",
    "bailian": "hashed:BAILIAN",
    "ragpulse": "ragpulse:FORMAT",
    "aiperf-text": "aiperf:FORMAT",
    "aiperf": "hashed:AIPERF",
    "mooncake": "hashed:MOONCAKE",
    "guidellm": "hashed:GUIDELLM",
    "vllm-dataset": "vllm:DATASET",
    "vllm-result": "vllm:RESULT",
    "csv": "plain:CSV",
    "jsonl": "plain:JSONL",
}
"""Where each is, imported when it is named or tried; in that order: the more particular before the more general."""


def detect(file: TraceFile) -> Format:
    """Tell a file's format from its content.

    Raises:
        WorkloadError: it cannot be read, or is of no known format.

    """
    if file.data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise WorkloadError(f"{file.name}: UTF-16 text; save it as UTF-8")
    if not file.data.strip():
        raise WorkloadError(f"{file.name}: the file is empty")
    for form in map(find, FORMATS):
        if form.matches(file):
            return form
    if CSV.resembles(file):
        return CSV  # which says what it lacks
    names = ", ".join(FORMATS)
    begins = file.head.lstrip().split("\n", 1)[0][:80]
    told = "it is not text" if "\ufffd" in begins else f"it begins {written(begins)}"
    needs = (
        "Your own JSON needs a record a line, with numbers called"
        if begins.startswith(("{", "["))
        else "Your own CSV needs a line of names first:"
    )
    raise WorkloadError(
        f"{file.name}: of no known format ({names}); {told}. {needs} arrival_s, prompt_tokens, output_tokens; or "
        "arrival_column, prompt_column and output_column say what they are called"
    )


def own(file: TraceFile) -> Format:
    """Tell which kind of table it is, if it is one of your own, whatever its columns are called."""
    return PARQUET if PARQUET.matches(file) else JSONL if file.first else CSV


def find(name: str) -> Format:
    """Return a format by name.

    Raises:
        WorkloadError: there is none of that name.

    """
    if name not in FORMATS:
        raise WorkloadError(f"unknown trace format {name}{meant(name, FORMATS)}; known: {', '.join(FORMATS)}")
    module, _, attribute = FORMATS[name].partition(":")
    form: Format = getattr(import_module(f"workloads.traces.{module}"), attribute)
    return form


def rows(trace: Trace) -> tuple[Rows, Format]:
    """Read a trace's rows as they stand, and say in which format.

    Raises:
        WorkloadError: the file cannot be read, is of no known format, or lacks what its requests are picked by.

    """
    file = TraceFile(trace.trace)
    columns = Chosen(trace.arrival_column, trace.prompt_column, trace.output_column)
    tell = own if any(columns) else detect
    form = tell(file) if trace.format == "auto" else find(trace.format)
    if any(columns) and form not in (CSV, JSONL, PARQUET):
        raise WorkloadError(f"{trace.trace}: read as {form.name}, whose columns have their names: leave out those here")
    if trace.only_model is not None and form.name != "burstgpt":
        raise WorkloadError(f"{trace.trace}: read as {form.name}, which names no models: leave out only_model")
    options = Options(trace.block_size, trace.only_model, trace.tokenizer, trace.turns, columns)
    return form.read(file, options), form


def read(trace: Trace, spread: np.random.Generator) -> Requests:
    """Read the requests that a `trace` block asks for.

    Args:
        trace: the block.
        spread: draws where arrivals fall inside the ticks of a coarse clock.

    Raises:
        WorkloadError: the file cannot be read, has bad rows, or holds no request.

    """
    return requests_of(rows(trace)[0], trace, spread)
