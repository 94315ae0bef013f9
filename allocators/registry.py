"""The registry: every allocator that can be named in a workload file.

    kinds()                      kind -> class, plug-ins included
    find("paged")                one class
    measure("paged", {...})      token slots per block, before the pool is counted
    create("paged", num_blocks=4096, max_model_len=2048, block_size=16)

An allocator's `options` (see `allocators.options`) say what a workload file may set; a schema
builds its models from them.  A third party adds a kind under the entry-point group
`kvsim.allocators`, whose name is the kind and whose value is the class:

    [project.entry-points."kvsim.allocators"]
    slab = "my_package:SlabAllocator"

Modules are imported only when asked for.  A plug-in that is broken, or takes the name of a
built-in kind, is left out of `kinds()` with a one-line warning; naming it is an error.  Looking up
a built-in kind does not search for plug-ins: that takes as long as some whole runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

from allocators.answers import Measure
from allocators.base import Allocator
from allocators.errors import AllocatorError
from allocators.options import Option, Value, meant, resolve
from allocators.plugins import ALLOCATORS, PluginError, declared, described, imported

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

REQUIRED = ("admit", "can_grow", "check", "grow", "never", "release", "usage")
"""The verbs that `Allocator` leaves to its subclasses."""


class BuiltIn(Mapping[str, type[Allocator]]):
    """The kinds that come with this package; the module of one is imported when its class is asked for."""

    def __init__(self, places: Mapping[str, str]) -> None:
        """Find the class of each kind in `places`: module and name."""
        self._places = places

    def __getitem__(self, kind: str) -> type[Allocator]:
        """Return the class of a kind."""
        module, name = self._places[kind].split(":")
        found: type[Allocator] = getattr(import_module(f"allocators.{module}"), name)
        return found

    def __contains__(self, kind: object) -> bool:
        """Whether there is such a kind."""
        return kind in self._places

    def __iter__(self) -> Iterator[str]:
        """Go through the kinds."""
        return iter(self._places)

    def __len__(self) -> int:
        """How many kinds there are."""
        return len(self._places)


BUILT_IN = BuiltIn(
    MappingProxyType(
        {
            "no-cache": "nocache:NoCacheAllocator",
            "growing": "growing:GrowingAllocator",
            "preallocated": "preallocated:PreallocatedAllocator",
            "contiguous": "contiguous:ContiguousAllocator",
            "paged": "paged:PagedAllocator",
            "radix": "radixpaged:RadixAllocator",
            "virtual": "virtual:VirtualAllocator",
            "hybrid": "hybrid:HybridAllocator",
            "ideal": "ideal:IdealAllocator",
        }
    )
)


def names() -> list[str]:
    """Return every kind that is installed, built-in ones first; imports no plug-in."""
    return [*BUILT_IN, *(name for name in declared(ALLOCATORS) if name not in BUILT_IN)]


def kinds() -> dict[str, type[Allocator]]:
    """Return every kind that works, built-in ones first.  Imports all plug-ins; warns of broken ones."""
    found = dict(BUILT_IN)
    for name, points in declared(ALLOCATORS).items():
        try:
            found[name] = _load(points)
        except AllocatorError as error:
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)
    return found


def find(kind: str) -> type[Allocator]:
    """Return the class of a kind; imports it if a plug-in provides it.

    Raises:
        AllocatorError: there is no such kind, or its plug-in is broken.

    """
    if kind in BUILT_IN:
        return BUILT_IN[kind]
    if points := declared(ALLOCATORS).get(kind):
        return _load(points)
    raise AllocatorError(f"unknown allocator {kind}{meant(kind, names())}; known: {', '.join(names())}")


def measure(kind: str, options: Mapping[str, Value], facts: Mapping[str, Value] = MappingProxyType({})) -> Measure:
    """Say in what the pool is counted under these options.

    Raises:
        AllocatorError: there is no such kind, or its plug-in is broken.
        ValueError: an option is unknown or has a bad value.

    """
    cls = find(kind)
    return cls.measure(resolve(kind, cls.options, options, facts))


def create(
    kind: str,
    *,
    num_blocks: int,
    max_model_len: int,
    max_rows: int = 256,
    facts: Mapping[str, Value] = MappingProxyType({}),
    **options: Value,
) -> Allocator:
    """Make an empty pool of `num_blocks` blocks, each of `measure(kind, options, facts).block_size` token slots.

    Args:
        kind: as in `names()`.
        num_blocks: physical blocks, ids 1 to num_blocks.
        max_model_len: the longest sequence, in token slots.
        max_rows: sequences expected at once.
        facts: what is known of the model, for options that depend on it (see `Option.fact`).
        options: as declared in the class's `options`; `block_size` is one of them.

    Raises:
        AllocatorError: there is no such kind, its plug-in is broken, or the pool makes no sense.
        ValueError: an option is unknown or has a bad value.

    """
    return find(kind).from_options(
        num_blocks=num_blocks, max_model_len=max_model_len, max_rows=max_rows, facts=facts, **options
    )


def _load(points: list[EntryPoint]) -> type[Allocator]:
    """Import a plug-in and make sure that it can be used, or say in one line why not."""
    where = described(points, "allocator")
    try:
        cls = imported(points, "allocator", Allocator, BUILT_IN)  # type: ignore[type-abstract]  # never made
    except PluginError as error:
        raise AllocatorError(str(error)) from error.__cause__
    if lacking := [verb for verb in REQUIRED if getattr(cls, verb) is getattr(Allocator, verb)]:
        raise AllocatorError(f"{where}: lacks {', '.join(lacking)}")
    for name, option in cls.options.items():
        if not isinstance(option, Option):
            raise AllocatorError(f"{where}: option {name}: it is no Option")
        if fault := option.fault(option.default):
            raise AllocatorError(f"{where}: option {name}: its default {fault}")
    return cls
