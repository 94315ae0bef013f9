"""Traces that many runs replay, each read once.

A search runs one workload at a dozen rates, and every run replays the same trace: what the file holds is kept as it
was read, and each run picks and paces its own requests out of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypeAlias

from workloads.errors import WorkloadError
from workloads.source import parts_of
from workloads.trace import Trace

if TYPE_CHECKING:
    from workloads.requests import Requests
    from workloads.source import Generated, Mix

How: TypeAlias = tuple[tuple[str, object], ...]
"""How a trace is read: settings of its block by name."""
OTHER = {"rate_scale", "count", "one_in", "arrivals", "spread", "name", "slo"}
"""Settings of a `trace` block that say nothing of that: they pick and pace requests, or judge what becomes of them."""


class Traces:
    """What has been read for the latest workload; whoever is sent this begins with nothing."""

    def __init__(self) -> None:
        """Begin with nothing read."""
        self._read: dict[How, tuple[Requests, str]] = {}

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        """Leave behind what was read: a job that is sent to another process stays small."""
        return type(self), ()

    def recorded(self, trace: Trace) -> tuple[Requests, str]:
        """Return all usable requests of a trace at the recorded pace, and in words the format that it has.

        Raises:
            WorkloadError: the file cannot be read, is of no known format, has bad rows, or holds no request.

        """
        how = _how(trace)
        if how not in self._read:
            self._read[how] = _read(trace)
        return self._read[how]

    def keep(self, source: Generated | Trace | Mix) -> None:
        """Forget what these requests do not replay, so that one of many traces that are compared is in memory."""
        used = {_how(part) for part in parts_of(source) if isinstance(part, Trace)}
        self._read = {how: read for how, read in self._read.items() if how in used}


def _how(trace: Trace) -> How:
    return tuple((name, value) for name, value in trace if name not in OTHER)


def _read(trace: Trace) -> tuple[Requests, str]:
    from workloads.traces import find, rows  # noqa: PLC0415  (start-up time of what is drawn)
    from workloads.traces.rows import recorded  # noqa: PLC0415  (start-up time of what is drawn)

    if trace.format != "auto":
        try:
            find(trace.format)
        except WorkloadError as error:  # of the file that names the format, not of the trace
            raise WorkloadError(f"requests.format: {error}") from error
    raw, form = rows(trace)
    return recorded(raw, trace), f"{form.name} ({form.about})"
