"""Plug-ins: classes that other packages declare as entry points, in one group for each type of plug-in.

    [project.entry-points."kvsim.allocators"]
    slab = "my_package:SlabAllocator"

The entry point's name is the name in workload files, and must equal the class's `kind`.  Nothing is imported
before it is named; a plug-in that cannot be used is reported in one line.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ALLOCATORS = "kvsim.allocators"
SCHEDULERS = "kvsim.schedulers"
Found = TypeVar("Found")


class PluginError(Exception):
    """A plug-in cannot be used; the message says which and why."""


def declared(group: str) -> dict[str, list[EntryPoint]]:
    """Return the entry points of a group by name; the same one seen twice on the path counts once."""
    from importlib.metadata import entry_points  # noqa: PLC0415  (start-up time of runs without plug-ins)

    found: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=group), key=lambda point: (point.name, point.value)):
        same = found.setdefault(point.name, [])
        if all(point.value != other.value for other in same):
            same.append(point)
    return found


def imported(points: list[EntryPoint], sort: str, parent: type[Found], built_in: Collection[str]) -> type[Found]:
    """Import a plug-in.

    Args:
        points: those that declare its name.
        sort: what it is, in a word.
        parent: what it must be a subclass of.
        built_in: names that it may not take.

    Raises:
        PluginError: it cannot be used.

    """
    point, where = points[0], described(points, sort)
    if point.name in built_in:
        raise PluginError(f"{where}: the name belongs to a built-in {sort}")
    if len(points) > 1:
        raise PluginError(f"{where}: {points[1].value} takes the same name")
    try:
        cls = point.load()
    except Exception as error:  # importing a stranger's code can fail in any way
        raise PluginError(f"{where}: cannot be imported: {type(error).__name__}: {_first_line(error)}") from error
    if not (isinstance(cls, type) and parent in cls.__mro__):
        raise PluginError(f"{where}: is not a subclass of {parent.__module__}.{parent.__qualname__}")
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise PluginError(f"{where}: lacks {', '.join(missing)}")
    if getattr(cls, "kind", None) != point.name:
        raise PluginError(f"{where}: its kind is {getattr(cls, 'kind', 'not set')!r}, not {point.name!r}")
    return cls


def described(points: list[EntryPoint], sort: str) -> str:
    """Name a plug-in in messages."""
    return f"{sort} plug-in {points[0].name} = {points[0].value}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no message"])[0]
