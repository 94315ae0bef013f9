"""Named fields out of JSON lines, exact about every line that cannot be parsed.

Only the wanted fields are kept; a prompt's text, where a file has one, is dropped at once.
(pyarrow's JSON reader is several times faster, but some malformed lines crash it.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from workloads.errors import first_line
from workloads.requests import Ints
from workloads.traces.columns import instant, seconds
from workloads.values import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from workloads.traces.files import TraceFile
    from workloads.traces.rows import Fault

FieldKind: TypeAlias = Literal["number", "time", "text", "ids"]
"""`number` float64, NaN where missing; `time` float64 seconds after the first row's, of dates; `text` object array of
str, empty where missing; `ids` a ragged int64 list."""


Taken = TypeVar("Taken")


class BadRow(ValueError):  # noqa: N818 - a row is bad, the program is not in error
    """A row cannot be parsed; `str` says why in one line."""


class Ragged(NamedTuple):
    """A list of whole numbers for each row: row i has `values[offsets[i]:offsets[i + 1]]`."""

    values: Ints
    offsets: Ints


@dataclass(frozen=True)
class Records:
    """Fields by name, all of one length."""

    values: Mapping[str, npt.NDArray[Any]]
    lists: Mapping[str, Ragged]
    numbers: Ints
    """int64[n]: line of each row."""
    faults: Sequence[Fault]
    """Lines left out because they could not be parsed."""

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Return a field that is no list."""
        return self.values[name]

    def lines(self, rows: Ints) -> list[int]:
        """Return the line numbers (1-based) of rows."""
        return [int(number) for number in self.numbers[rows]]


def read_records(file: TraceFile, wanted: Mapping[str, FieldKind]) -> Records:
    """Read the wanted fields of a file of JSON lines; bad lines are in `Records.faults`.

    Raises:
        WorkloadError: the file cannot be read.

    """
    parsed: dict[str, list[Any]] = {name: [] for name in wanted}
    numbers: list[int] = []
    faults: list[Fault] = []
    for line, row in each(file, lambda record: _fields(record, wanted), faults):
        numbers.append(line)
        for column, value in zip(parsed.values(), row, strict=True):
            column.append(value)
    values: dict[str, npt.NDArray[Any]] = {}
    lists: dict[str, Ragged] = {}
    for name, kind in wanted.items():
        if kind == "ids":
            flat = np.fromiter(chain.from_iterable(parsed[name]), np.int64)
            lists[name] = Ragged(flat, np.cumsum([0, *map(len, parsed[name])], dtype=np.int64))
        elif kind == "time":
            values[name] = seconds(np.array(parsed[name], np.int64))
        else:
            values[name] = np.array(parsed[name], object if kind == "text" else np.float64)
    return Records(values, lists, np.array(numbers, np.int64), faults)


def each(file: TraceFile, take: Callable[[Any], Taken], faults: list[Fault]) -> Iterator[tuple[int, Taken]]:
    """Yield (line number, what `take` makes of its JSON) for every line; what is wrong with a bad one joins `faults`.

    Raises:
        WorkloadError: the file is bad through and through.

    """
    for line, text in json_lines(file):
        try:
            taken = take(parse(text))
        except BadRow as error:
            faults.append((line, str(error)))
            file.give_up(faults)
        else:
            yield line, taken


def json_lines(file: TraceFile) -> Iterator[tuple[int, bytes]]:
    """Yield (line number, content) of every line that is not blank."""
    for number, line in enumerate(BytesIO(file.data.removeprefix(b"\xef\xbb\xbf")), 1):
        if not line.isspace():
            yield number, line


def parse(text: bytes) -> Any:
    """Parse JSON.

    Raises:
        BadRow: it is none, in one line.

    """
    try:
        return json.loads(text)
    except RecursionError:
        raise BadRow("nested too deeply") from None
    except UnicodeDecodeError:
        raise BadRow("not UTF-8 text") from None
    except json.JSONDecodeError as error:
        whole = error.doc.rstrip()
        at = f"line {error.lineno}, column {error.colno}"
        if "\n" not in whole:  # the number of a single line is told by who reads it
            at = f"column {min(error.pos, len(whole)) + 1}"
        raise BadRow(f"not JSON: {error.msg} ({at})") from None
    except ValueError as error:
        raise BadRow(f"not JSON: {first_line(error)}") from None


def _fields(record: object, wanted: Mapping[str, FieldKind]) -> list[Any]:
    """Take the wanted fields out of one parsed line."""
    if not isinstance(record, dict):
        raise BadRow(f"not a JSON object: {shown(record)}")
    row: list[Any] = []
    for name, kind in wanted.items():
        value = record.get(name)
        if kind == "number":
            row.append(number(value, name))
        elif kind == "time":
            row.append(_date(value, name))
        elif kind == "text":
            row.append("" if value is None else str(value))
        else:
            row.append(ids(value, name))
    return row


def _date(value: object, name: str) -> int:
    """Return a date and time in nanoseconds since 1970.

    Raises:
        BadRow: it is none.

    """
    try:
        return instant(value)
    except ValueError as error:
        raise BadRow(f"{name}: {error}") from None


def number(value: object, name: str) -> float:
    """Return a number, also one written as text; NaN for null.

    Raises:
        BadRow: it is no number.

    """
    if value is None:
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BadRow(f"{name}: not a number: {shown(value)}")
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise BadRow(f"{name}: not a number: {shown(value)}") from None


def ids(value: object, name: str) -> list[int]:
    """Return a list of whole numbers of at most 64 bits; empty for null.

    Raises:
        BadRow: it is something else.

    """
    if value is None:
        return []
    if isinstance(value, list) and set(map(type, value)) <= {int} and _in_64_bits(value):  # a bool is of another type
        return value
    raise BadRow(f"{name}: not a list of whole numbers: {shown(value)}")


def _in_64_bits(some: Sequence[int]) -> bool:
    return not some or -(2**63) <= min(some) <= max(some) < 2**63
