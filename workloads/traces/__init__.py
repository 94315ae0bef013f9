"""Recorded workloads: one file a format, told apart by content.

read("AzureLLMInferenceTrace_conv.csv.gz", Trace(...))  ->  Requests
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workloads.errors import WorkloadError, meant
from workloads.traces import azure, plain, vidur
from workloads.traces.base import Format
from workloads.traces.files import TraceFile
from workloads.traces.rows import Rows, requests_of

if TYPE_CHECKING:
    from workloads.requests import Requests
    from workloads.schema import Trace

FORMATS: tuple[Format, ...] = (azure.FORMAT, vidur.FORMAT, plain.FORMAT)
"""In the order in which they are tried."""


def detect(file: TraceFile) -> Format:
    """Tell a file's format from its content.

    Raises:
        WorkloadError: it is of no known format.

    """
    if file.data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise WorkloadError(f"{file.name}: UTF-16 text; save it as UTF-8")
    for form in FORMATS:
        if form.matches(file):
            return form
    names = ", ".join(form.name for form in FORMATS)
    begins = file.head.lstrip().split("\n", 1)[0][:80]
    raise WorkloadError(f"{file.name}: of no known format ({names}); it begins {begins!r}")


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


def rows(path: str, form: str = "auto") -> Rows:
    """Read a trace's rows as they stand.

    Raises:
        WorkloadError: the file cannot be read or is of no known format.

    """
    file = TraceFile(path)
    return (detect(file) if form == "auto" else find(form)).read(file)


def read(trace: Trace) -> Requests:
    """Read the requests that a `trace` block asks for.

    Raises:
        WorkloadError: the file cannot be read, has bad rows, or holds no request.

    """
    return requests_of(rows(trace.trace, trace.format), trace.trace, trace)
