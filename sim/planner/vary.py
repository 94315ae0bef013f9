"""`--vary key.key=values`: one place in a workload file, and the values to try there.

    requests.arrivals.rate=2,4,8         a list, each value in YAML
    engine.max_num_seqs=64..256+64       from, to, and the step: 64, 128, 192, 256
    allocators.paged.block_size=1..32*2  ... or the factor: 1, 2, 4, 8, 16, 32
    engine.max_num_seqs=1..4             a step of 1

An allocator is addressed by its label or its kind, a part of a mix by its name, as everywhere (`workloads.labels`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from analysis.planner.rows import last_words, said
from sim.errors import UserError
from workloads.document import Document
from workloads.errors import WorkloadError
from workloads.labels import places
from workloads.values import written

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workloads.document import Where
    from workloads.labels import Named

MOST = 10_000
"""Values of a range, and points of a grid; more is a mistake."""
NUMBER = r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
RANGE = re.compile(rf"\s*({NUMBER})\.\.({NUMBER})(?:([+*])({NUMBER}))?\s*")


@dataclass(frozen=True, eq=False)
class Axis:
    """One key of the workload file and the values it takes."""

    key: str
    """As the user wrote it: the name of the axis in tables and pages."""
    places: tuple[Where, ...]
    """Where it stands in the file; several if it names all allocators of a kind."""
    values: tuple[Any, ...]

    @property
    def document(self) -> dict[str, Any]:
        """As manifests have it."""
        return {"key": self.key, "values": list(self.values)}

    def put(self, document: Document, value: Any) -> None:
        """Set the key in a document."""
        for place in self.places:
            document.put(place, value, f"--vary {self.key}={written(value)}")


def axes(settings: Sequence[str], allocators: Sequence[Named], parts: Sequence[str] = ()) -> tuple[Axis, ...]:
    """Read `--vary` settings.

    Args:
        settings: as the user wrote them.
        allocators: those of the workload, in its order.
        parts: names of the parts of its mix, in its order.

    Raises:
        UserError: a setting is not `key=values`, is empty or too long, or names no allocator or part.

    """
    found: dict[str, Axis] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip()
        if not equals or not key or "" in key.split("."):
            raise UserError(f"--vary {setting}: write it as key.key=value,value")
        if key in found:
            raise UserError(f"--vary {setting}: {key} is varied already; give all its values at once")
        found[key] = Axis(key, _places(key, allocators, parts), values(text, f"--vary {setting}"))
    return tuple(found.values())


def values(text: str, source: str) -> tuple[Any, ...]:
    """Read a list of values or a range.

    Args:
        text: `2,4,8`, `1..4`, `64..256+64` or `1..32*2`.
        source: what messages begin with.

    Raises:
        UserError: it is neither, holds nothing, or names one value twice.

    """
    if given := RANGE.fullmatch(text):
        return _range(*given.groups(), source=source)
    try:
        found = Document(f"[{text}]", source).data
    except WorkloadError:
        found = None
    if not found or None in found:
        null = "; null, which takes a key out of the file, is no value" if "null" in text else ""
        raise UserError(f"{source}: give values as 2,4,8, or a range as 1..4, 64..256+64 or 1..32*2{null}")
    twice = next((value for place, value in enumerate(found) if value in found[:place]), None)
    if twice is not None:
        raise UserError(f"{source}: {written(twice)} is there twice")
    return tuple(found)


def _range(first: str, last: str, kind: str | None, step: str | None, *, source: str) -> tuple[Any, ...]:
    """Walk from the first to the last number, in decimals, so that 0.1 is 0.1 at every step."""
    at, end, by = Decimal(first), Decimal(last), Decimal(step or 1)
    grows = by > 1 and at > 0 if kind == "*" else by > 0
    if at > end or not grows:
        right = "a factor above 1, from above 0" if kind == "*" else "a step above 0"
        raise UserError(f"{source}: a range goes upwards, by {right}")
    whole = all(number == number.to_integral_value() for number in (at, by))
    found: list[Any] = []
    while at <= end:
        if len(found) == MOST:
            raise UserError(f"{source}: more than {MOST:,} values")
        found.append(int(at) if whole else float(at))
        at = at * by if kind == "*" else at + by
    return tuple(found)


def _places(key: str, allocators: Sequence[Named], parts: Sequence[str]) -> tuple[Where, ...]:
    """Find where a key stands; of an allocator one option is varied, not the whole."""
    try:
        found = places(key, allocators, f"--vary {key}", parts)
    except WorkloadError as error:
        raise UserError(str(error)) from None
    if any(len(place) < 3 for place in found if place[0] == "allocators"):
        raise UserError(f"--vary {key}: say which of its options, as in {key}.block_size")
    return found


def shown(settings: Mapping[str, Any]) -> str:
    """Write settings as `rate=4, block_size=16`, with the words that head the columns of tables."""
    words = last_words(list(settings))
    return ", ".join(f"{word}={said(value)}" for word, value in zip(words, settings.values(), strict=True))
