"""Adaptors: allocators that wrap another allocator (an idea from RAPIDS rmm).

Each observes or restricts some calls and forwards everything else, so they can be stacked:

    allocator = CheckingAdaptor(LimitingAdaptor(create("paged", ...), blocks=512))

Kind, traits and table are those of the wrapped allocator.  Its promises of regular growth
(`allocators.regular`) are not forwarded, so that an engine calls `grow` for every token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np

from allocators.answers import Ask, Grant, Growth, Hit, Leap, Mappings, Refusal, Swap, Usage
from allocators.base import Allocator
from allocators.content import Content
from allocators.errors import AllocatorError, CorruptionError
from allocators.table import Ints

P = ParamSpec("P")
R = TypeVar("R")

TRAITS = (
    "kind",
    "recomputes",
    "concatenates",
    "free_preemption",
    "scattered",
    "shares",
    "num_blocks",
    "block_size",
    "max_model_len",
    "table",
    "columns",
)


class Inner:
    """A property that an adaptor takes from the allocator that it wraps."""

    def __set_name__(self, owner: type[Adaptor], name: str) -> None:
        """Learn which property it is."""
        self._name = name

    def __get__(self, adaptor: Adaptor, owner: type[Adaptor]) -> Any:
        """Ask the allocator inside."""
        return getattr(adaptor.inner, self._name)


class Adaptor(Allocator):
    """Forwards every call.  Subclasses override single methods, or `around`, through which all changes go."""

    oracle: Any = Inner()
    settled: Any = Inner()
    rounds_up: Any = Inner()
    swaps: Any = Inner()
    token_slots: Any = Inner()
    page_bytes: Any = Inner()

    def __init__(self, inner: Allocator) -> None:
        """Wrap `inner`, which should no longer be used directly."""
        self.inner = inner
        for trait in TRAITS:
            setattr(self, trait, getattr(inner, trait))

    def around(self, verb: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """Call a method that may change the allocator; `verb` is the method of the wrapped one."""
        return verb(*arguments, **named)

    def lookup(self, content: Content, tokens: int) -> Hit:
        """See `Allocator.lookup`."""
        return self.inner.lookup(content, tokens)

    def never(self, ask: Ask, final: int) -> Refusal | None:
        """See `Allocator.never`."""
        return self.inner.never(ask, final)

    def admit(self, ask: Ask) -> Grant | Refusal:
        """See `Allocator.admit`."""
        return self.around(self.inner.admit, ask)

    def grow(self, rows: Ints, lengths: Ints) -> Growth:
        """See `Allocator.grow`."""
        return self.around(self.inner.grow, rows, lengths)

    def advance(self, rows: Ints, lengths: Ints, steps: int) -> Leap:
        """See `Allocator.advance`."""
        return self.around(self.inner.advance, rows, lengths, steps)

    def can_grow(self, rows: Ints, lengths: Ints) -> bool:
        """See `Allocator.can_grow`."""
        return self.inner.can_grow(rows, lengths)

    def demand(self, rows: Ints, lengths: Ints) -> Ints:
        """See `Allocator.demand`."""
        return self.inner.demand(rows, lengths)

    def fork(self, row: int, output: int | None = None, content: Content | None = None) -> Grant | Refusal:
        """See `Allocator.fork`."""
        return self.around(self.inner.fork, row, output, content)

    def release(self, row: int) -> None:
        """See `Allocator.release`."""
        return self.around(self.inner.release, row)

    def swap_out(self, row: int) -> Swap | Refusal:
        """See `Allocator.swap_out`."""
        return self.around(self.inner.swap_out, row)

    def swap_in(self, row: int, spare: int = 0) -> Swap | Refusal:
        """See `Allocator.swap_in`."""
        return self.around(self.inner.swap_in, row, spare)

    def swap_out_group(self, rows: Sequence[int]) -> list[Swap] | Refusal:
        """See `Allocator.swap_out_group`."""
        return self.around(self.inner.swap_out_group, rows)

    def swap_in_group(self, rows: Sequence[int], spare: int = 0) -> list[Swap] | Refusal:
        """See `Allocator.swap_in_group`."""
        return self.around(self.inner.swap_in_group, rows, spare)

    def usage(self) -> Usage:
        """See `Allocator.usage`."""
        return self.inner.usage()

    def repeated(self, aside: Sequence[int] = ()) -> int:
        """See `Allocator.repeated`."""
        return self.inner.repeated(aside)

    def mappings(self) -> Mappings:
        """See `Allocator.mappings`."""
        return self.inner.mappings()

    def evictions(self) -> int:
        """See `Allocator.evictions`."""
        return self.inner.evictions()

    def cached_blocks(self) -> Ints:
        """See `Allocator.cached_blocks`."""
        return self.inner.cached_blocks()

    def extents(self, rows: Ints) -> Ints | None:
        """See `Allocator.extents`."""
        return self.inner.extents(rows)

    def padding(self) -> tuple[Ints, Ints]:
        """See `Allocator.padding`."""
        return self.inner.padding()

    def largest_hole(self) -> int:
        """See `Allocator.largest_hole`."""
        return self.inner.largest_hole()

    def stranded(self, need: int) -> int:
        """See `Allocator.stranded`."""
        return self.inner.stranded(need)

    def check(self) -> None:
        """See `Allocator.check`."""
        self.inner.check()


class Event(NamedTuple):
    """One call, as recorded by `RecordingAdaptor`."""

    time: float
    """The time of the call, in the unit of the clock."""
    verb: str
    """Name of the method."""
    arguments: tuple[Any, ...]
    """Its arguments; copies of arrays."""
    answer: Any
    """What was returned, or the `AllocatorError` that was raised."""
    usage: Usage
    """How the pool was used afterwards."""


class RecordingAdaptor(Adaptor):
    """Records every call that may change the allocator."""

    def __init__(self, inner: Allocator, clock: Callable[[], float], sink: Callable[[Event], None]) -> None:
        """Wrap `inner`.

        Args:
            inner: the allocator that does the work.
            clock: returns the time; allocators have no clock of their own.
            sink: called with each event; `list.append`, for example.

        """
        super().__init__(inner)
        self._clock = clock
        self._sink = sink

    def around(self, verb: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """Call the method and record what happened, errors included."""
        time = self._clock()
        given = tuple(argument.copy() if isinstance(argument, np.ndarray) else argument for argument in arguments)
        try:
            answer = verb(*arguments, **named)
        except AllocatorError as error:
            self._sink(Event(time, verb.__name__, given, error, self.inner.usage()))
            raise
        self._sink(Event(time, verb.__name__, given, answer, self.inner.usage()))
        return answer


class CheckingAdaptor(Adaptor):
    """Checks every invariant after each call, and that calls which are refused or raise have changed nothing."""

    def around(self, verb: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """Call the method, then check.  Raises CorruptionError."""
        before = self._state()
        try:
            answer = verb(*arguments, **named)
        except AllocatorError:
            self.inner.check()
            self._demand_same(before, f"{verb.__name__} raised an error")
            raise
        self.inner.check()
        if isinstance(answer, Refusal):
            self._demand_same(before, f"{verb.__name__} was refused")
        return answer

    def _state(self) -> tuple[list[int], bytes, bytes, bytes, Usage]:
        table = self.inner.table
        rows = table.rows()
        arrays = (table.blocks, table.length, table.slots)
        held, lengths, slots = (array[rows].tobytes() for array in arrays)
        return rows, held, lengths, slots, self.inner.usage()

    def _demand_same(self, before: object, what: str) -> None:
        if self._state() != before:
            raise CorruptionError(f"{self.kind}: {what}, yet the allocator has changed")
