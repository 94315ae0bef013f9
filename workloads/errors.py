"""The one error that bad input raises: lines for people, each saying where, what, and what would be right."""

from __future__ import annotations


class WorkloadError(Exception):
    """A workload file, a trace or a data file cannot be used; `str` is one line for each fault."""

    def __init__(self, *lines: str) -> None:
        """Keep the lines; at least one."""
        super().__init__("\n".join(lines))
        self.lines = lines


class NoArrivalError(WorkloadError):
    """No request happens to arrive in the time given; of a part of a mix that is no fault."""


def lines_of(error: Exception) -> tuple[str, ...]:
    """Return what an error says to the user: a line for each fault, which may quote whatever the user wrote."""
    return error.lines if isinstance(error, WorkloadError) else (str(error),)


def key_of(fault: str) -> str:
    """Return the dotted key that a fault names first: `model` of `model: no such model`."""
    return fault.split(maxsplit=1)[0].rstrip(":")


def in_a_line(text: str) -> str:
    """Write a message in one line, whatever it quotes: line breaks and what no terminal shows by their escapes."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def first_line(error: Exception) -> str:
    """Return what another library's error says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
