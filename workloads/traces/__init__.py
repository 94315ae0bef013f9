"""Recorded workloads: one file a format, told apart by content.

read(Trace(trace="AzureLLMInferenceTrace_conv.csv.gz"), rng)  ->  Requests
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workloads.errors import WorkloadError, meant
from workloads.traces import (
    aiperf,
    azure,
    burstgpt,
    conversations,
    hashed,
    plain,
    ragpulse,
    splitwise,
    vidur,
    vllm,
    weka,
)
from workloads.traces.base import Format, Options
from workloads.traces.files import TraceFile
from workloads.traces.rows import Rows, requests_of

if TYPE_CHECKING:
    import numpy as np

    from workloads.requests import Requests
    from workloads.schema import Trace

FORMATS: tuple[Format, ...] = (
    plain.PARQUET,
    azure.FORMAT,
    burstgpt.FORMAT,
    vidur.FORMAT,
    vidur.LENGTHS,
    splitwise.FORMAT,
    conversations.TURNS,
    conversations.SHAREGPT,
    weka.FORMAT,
    hashed.BAILIAN,
    ragpulse.FORMAT,
    aiperf.FORMAT,
    hashed.AIPERF,
    hashed.MOONCAKE,
    hashed.GUIDELLM,
    vllm.DATASET,
    vllm.RESULT,
    plain.CSV,
)
"""In the order in which they are tried: the more particular before the more general."""


def detect(file: TraceFile) -> Format:
    """Tell a file's format from its content.

    Raises:
        WorkloadError: it cannot be read, or is of no known format.

    """
    if file.data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise WorkloadError(f"{file.name}: UTF-16 text; save it as UTF-8")
    if not file.data.strip():
        raise WorkloadError(f"{file.name}: the file is empty")
    for form in FORMATS:
        if form.matches(file):
            return form
    names = ", ".join(form.name for form in FORMATS)
    begins = file.head.lstrip().split("\n", 1)[0][:80]
    raise WorkloadError(
        f"{file.name}: of no known format ({names}); it begins {begins!r}. A CSV of one's own has a line of names "
        "first: arrival_s, prompt_tokens, output_tokens"
    )


def find(name: str) -> Format:
    """Return a format by name.

    Raises:
        WorkloadError: there is none of that name.

    """
    for form in FORMATS:
        if form.name == name:
            return form
    known = [form.name for form in FORMATS]
    raise WorkloadError(f"unknown trace format {name}{meant(name, known)}; known: {', '.join(known)}")


def rows(trace: Trace) -> tuple[Rows, Format]:
    """Read a trace's rows as they stand, and say in which format.

    Raises:
        WorkloadError: the file cannot be read or is of no known format.

    """
    file = TraceFile(trace.trace)
    form = detect(file) if trace.format == "auto" else find(trace.format)
    options = Options(trace.block_size, trace.only_model, trace.tokenizer, trace.turns)
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
