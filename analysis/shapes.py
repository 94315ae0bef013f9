"""What a JSON document looks like, as plain data, and the first place where one looks otherwise.

A shape is written as the document itself would be:

* a `Kind`: `TEXT`, `NUMBER` and so on;
* `[shape]`: a list of such values; `[shape, 1]`: of at least so many;
* `{"key": shape, "may_be_missing?": shape}`: a mapping that has these keys, and any others; `{...: shape}`: with any
  names, but values that are all alike;
* `(shape, shape)`: one of these, where `None` stands for null.

The shape of a document stands beside what writes or reads it.

pydantic, which reads workload files, is not used here.  Most keys are names of metrics and ledger shares, and some
values those that another document lists, so its models would have to be made when the program runs.  Importing it and
making the model of one entry of a summary takes a few tenths of a second, which `compare` and `report` do without;
looking at an entry takes a millisecond.  And of a union it reports each alternative that does not fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from workloads.values import shown


@dataclass(frozen=True)
class Kind:
    """Values of one kind: how they are called, and which they are."""

    name: str
    holds: Callable[[Any], bool]


Shape: TypeAlias = Kind | Mapping[Any, Any] | list[Any] | tuple[Any, ...]


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


LARGEST = 1 << 63
"""Numbers beyond this are none that a run could have."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def _is_whole(value: object, least: int = -LARGEST) -> bool:
    return isinstance(value, int) and _is_number(value) and value >= least


ANY = Kind("a value", lambda _: True)
TEXT = Kind("a text", lambda value: isinstance(value, str))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
NUMBER = Kind("a number", _is_number)
WHOLE = Kind("a whole number", _is_whole)
COUNT = Kind("a whole number from 0", lambda value: _is_whole(value, 0))
POSITIVE = Kind("a number above 0", lambda value: _is_number(value) and value > 0)
SIZE = Kind("a whole number from 1", lambda value: _is_whole(value, 1))
MAYBE = (NUMBER, None)
"""A number, or null where there is none."""
ENDS = Kind("the two ends of an interval", lambda value: not fault(value, [MAYBE]) and len(value) == 2)
TIME = Kind("a date and time", lambda value: isinstance(value, str) and _is_time(value))
FOLDER = Kind(
    "the name of a folder in it",
    lambda value: isinstance(value, str) and re.fullmatch(r"[^./\\\0][^/\\\0]*(/repeat-\d+)?", value) is not None,
)
"""A folder directly in that of the document, or that of a replication in such a one: never one elsewhere."""


def one_of(words: Iterable[object]) -> Kind:
    """Return the kind of some words."""
    known = [str(word) for word in words]
    return Kind(f"one of {', '.join(known)}", lambda value: isinstance(value, str) and value in known)


def fault(value: object, shape: Shape, at: str = "") -> str:
    """Say in a line where and how a document first differs from its shape; nothing if it does not.

    Args:
        value: the document, as `json` reads it.
        shape: what it looks like.
        at: where it is part of a larger one: `runs.0.metrics`.

    """
    return next(_faults(value, shape, at), "")


def _faults(value: object, shape: Shape, at: str) -> Iterator[str]:
    """Yield what `fault` says, of every difference."""
    where = f"{at}: " if at else ""
    if isinstance(shape, Kind):
        if not shape.holds(value):
            yield f"{where}{shown(value)} is not {shape.name}"
    elif isinstance(shape, tuple):
        if value is not None or None not in shape:
            ways = [fault(value, one, at) for one in shape if one is not None]
            yield from ways[:1] if all(ways) else ()
    elif isinstance(shape, list):
        yield from _faults_of_list(value, shape, at)
    elif isinstance(value, dict):
        yield from _faults_of_mapping(value, shape, at)
    else:
        yield f"{where}{shown(value)} is not a mapping"


def _faults_of_list(value: object, shape: list[Any], at: str) -> Iterator[str]:
    where = f"{at}: " if at else ""
    if isinstance(value, list) and len(value) >= sum(shape[1:]):
        for place, one in enumerate(value):
            yield from _faults(one, shape[0], _inside(at, place))
    else:
        yield f"{where}{shown(value)} is not a list{' of at least one' if shape[1:] else ''}"


def _faults_of_mapping(value: Mapping[str, Any], shape: Mapping[Any, Any], at: str) -> Iterator[str]:
    for key, one in shape.items():
        name = str(key).removesuffix("?")
        if key is ...:
            for each in value:
                yield from _faults(value[each], one, _inside(at, each))
        elif name in value:
            yield from _faults(value[name], one, _inside(at, name))
        elif key == name:
            yield f"lacks {name!r}{f' in {at}' if at else ''}"


def _inside(at: str, name: object) -> str:
    return f"{at}.{name}" if at else str(name)
