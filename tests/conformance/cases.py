"""The cases of the conformance suite: every registered allocator, with all settings that matter.

Cases are made from the declared options, so an allocator of a third party is tested as soon as it is
installed: with its defaults, with every other choice of each option that has choices, with a second
block size, and with its defaults inside the adaptor that limits it.  Adaptors that only observe have a
case or two.

An allocator need not implement `fork`, `swap_out` and `swap_in`.  If it does not, they must raise
`AllocatorError` and change nothing, which the suite checks instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from allocators import registry
from allocators.adaptors import Adaptor, CheckingAdaptor, RecordingAdaptor
from allocators.answers import Ask, Grant, Refusal
from allocators.base import Allocator
from allocators.compiled import is_a
from allocators.content import Segments
from allocators.grouprows import GroupRows
from allocators.limiting import LimitingAdaptor
from allocators.options import Value
from allocators.table import Ints

CONTEXT = 24
SLOTS = 96
FACTS = {"kv_tensors": 4, "tensor_token_bytes": 65536}
_names = count(1)


class Clock:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.time = 0

    def __call__(self) -> int:
        self.time += 1
        return self.time


ADAPTORS: dict[str, Callable[[Allocator], Adaptor]] = {
    "recording": lambda inner: RecordingAdaptor(inner, Clock(), [].append),
    "checking": CheckingAdaptor,
    "limiting": lambda inner: LimitingAdaptor(inner, inner.num_blocks - SPARE),
}
SPARE = 2
"""Blocks that a limiting adaptor withholds in these tests."""
PAGED: list[dict[str, Value]] = [
    {"block_size": 4, "host_blocks": 40},
    {"block_size": 4, "host_blocks": 40, "prefix_cache": True},
    {"block_size": 4, "sliding_window": 7},
    {"block_size": 4, "sliding_window": 7, "prefix_cache": True, "host_blocks": 40},
]
"""What paged allocators do beyond choices."""
HYBRID: list[dict[str, Value]] = [
    {"block_size": 4, "paging": paging, "groups": groups, "prefix_cache": cached, "checkpoint": 4, "host_blocks": host}
    for paging, groups, cached, host in (
        ("even", "full 2x8, sliding 4x8/7", False, 120),
        ("uniform", "full 1x8, sliding 3x8/7", True, 60),
        ("uniform", "full 2x8, sliding 2x8/6, state 2x24", True, 60),
        ("common-multiple", "full 1x8, sliding 3x8/7", True, 120),
        ("common-multiple", "full 2x8, sliding 2x8/6, state 2x24", True, 120),
    )
]
"""Models whose layers differ: by their windows, and with states."""


@dataclass(frozen=True)
class Case:
    """An allocator kind, its options, and the adaptor around it, if any."""

    kind: str
    options: dict[str, Value] = field(default_factory=dict)
    adaptor: str = ""

    def make(self, slots: int = SLOTS, context: int = CONTEXT, rows: int = 4) -> Allocator:
        """Make an empty pool of at least `slots` token slots, in whole blocks."""
        measure = registry.measure(self.kind, self.options, FACTS)
        page = measure.block_size * measure.multiple
        blocks = -(-slots * measure.token_slots // page) * measure.multiple
        blocks += SPARE * (self.adaptor == "limiting")
        allocator = registry.create(
            self.kind, num_blocks=blocks, max_model_len=context, max_rows=rows, facts=FACTS, **self.options
        )
        return ADAPTORS[self.adaptor](allocator) if self.adaptor else allocator

    def __str__(self) -> str:
        return "-".join(filter(None, [self.adaptor, self.kind, *map("=".join, _texts(self.options))]))


def _texts(options: dict[str, Value]) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in options.items()]


def cases() -> list[Case]:
    """List every case of every installed kind."""
    found = []
    for kind, cls in registry.kinds().items():
        found.append(Case(kind))
        for name, option in cls.options.items():
            others = option.choices or ((False, True) if option.type is bool else ())
            if name == "block_size" and not option.choices:
                others = (4,)
            found += [Case(kind, {name: value}) for value in others if value != option.default]
        found.append(Case(kind, adaptor="limiting"))
    found += [Case("paged", {"prefix_cache": True, "block_size": 4}, adaptor) for adaptor in ADAPTORS]
    found += [Case("contiguous", {"reserve": "pow2"}, adaptor) for adaptor in ADAPTORS]
    found += [Case("hybrid", options) for options in HYBRID]
    found += [Case("ideal", {"groups": options["groups"], "prefix_cache": True}) for options in HYBRID[::4]]
    return [*found, *(Case("paged", options) for options in PAGED)]


def ask(prompt: int, output: int = 4, *, tokens: int = 0, oracle: bool = True, **more: int) -> Ask:
    """Ask for `prompt` tokens that nobody else has."""
    name = next(_names)
    content = Segments([(2 * name, prompt)], tail=2 * name + 1)
    return Ask(content, prompt, tokens or prompt, output=output if oracle else None, **more)


def admitted(allocator: Allocator, prompt: int, output: int = 4, **more: int) -> int:
    """Admit a sequence that fits, and return its row."""
    answer = allocator.admit(ask(prompt, output, oracle=allocator.oracle, **more))
    assert isinstance(answer, Grant), (
        f"{answer}: these tests have pools of about {SLOTS} token slots for sequences of up to {CONTEXT}; "
        "an allocator's defaults must let several of them in"
    )
    return answer.row


def fill(allocator: Allocator, prompt: int, output: int = 4, most: int = 64) -> tuple[list[int], Refusal | None]:
    """Admit equal sequences until one is refused, or `most` are in."""
    rows: list[int] = []
    while len(rows) < most:
        answer = allocator.admit(ask(prompt, output, oracle=allocator.oracle))
        if isinstance(answer, Refusal):
            return rows, answer
        rows.append(answer.row)
    return rows, None


def ints(values: Iterable[int]) -> Ints:
    """Make an int64 array."""
    return np.array(list(values), np.int64)


def state(allocator: Allocator) -> tuple[object, ...]:
    """Everything that callers can see of an allocator."""
    table = allocator.table
    rows = table.rows()
    return (
        rows,
        [table.row(row).tolist() for row in rows],
        table.length[rows].tolist(),
        table.slots[rows].tolist(),
        allocator.usage(),
        allocator.largest_hole(),
        sorted(allocator.cached_blocks().tolist()),
    )


def supports(allocator: Allocator, verb: str) -> bool:
    """Whether an allocator has an optional verb."""
    while isinstance(allocator, Adaptor):
        allocator = allocator.inner
    return getattr(type(allocator), verb) is not getattr(Allocator, verb)


def withheld(allocator: Allocator) -> int:
    """Blocks that are free but cannot be had."""
    return SPARE if isinstance(allocator, LimitingAdaptor) else 0


def repeated(allocator: Allocator, rows: Iterable[int]) -> int:
    """Count the tokens that some rows share, once for each that has them but one, block by block."""
    while isinstance(allocator, Adaptor):
        allocator = allocator.inner
    size, whole = allocator.block_size, -1
    if is_a(allocator, GroupRows):  # of the groups that keep all tokens, one counts
        size = allocator.cut.tokens
        whole = next((g for g in allocator.attention if g not in allocator.windows), -1)
        if whole < 0:
            return 0
    elif getattr(allocator, "windowed", False):  # nothing does
        return 0
    tokens: dict[int, list[int]] = {}
    for row in rows:
        cells = allocator.cells_of(row)[whole] if is_a(allocator, GroupRows) else allocator.table.row(row)
        for place, block in enumerate(cells.tolist()):
            tokens.setdefault(block, []).append(min(int(allocator.table.length[row]) - place * size, size))
    assert all(len(set(each)) == 1 for each in tokens.values()), "a block is as full for one row as for the others"
    return sum(sum(each[1:]) for each in tokens.values())


def audit(allocator: Allocator) -> None:
    """Check what must be true of any allocator at any time, counting afresh from the table."""
    allocator.check()
    table, usage = allocator.table, allocator.usage()
    rows = table.rows()
    held: dict[int, int] = {}
    for row in rows:
        length, slots = int(table.length[row]), int(table.slots[row])
        ids = table.row(row).tolist()
        assert 1 <= length <= slots, f"row {row}: {length} tokens in {slots} slots"
        assert length <= allocator.max_model_len
        assert all(1 <= block <= allocator.num_blocks for block in ids if block), f"row {row} lists {ids}"
        assert len(set(ids) - {0}) == len(ids) - ids.count(0), f"row {row} lists a block twice: {ids}"
        assert (table.blocks[row, len(ids) :] == 0).all(), f"row {row}: entries beyond its blocks"
        if allocator.recomputes or allocator.concatenates:
            assert not ids, f"row {row} lists {ids}"
        else:
            filled = allocator.columns.filled(ints([length])[0], len(ids), allocator.block_size)
            assert filled.sum() >= length * allocator.token_slots, f"row {row}: {length} tokens in {len(ids)} blocks"
        for block in ids:
            held[block] = held.get(block, 0) + 1
    held.pop(0, None)
    if not allocator.shares:
        assert all(holders == 1 for holders in held.values()), "rows overlap, but nothing is shared"
    cached = set(allocator.cached_blocks().tolist())
    assert not cached & set(held), "a block is both held and cached"
    tokens = 0 if allocator.recomputes else int(table.length[rows].sum())
    live = tokens * allocator.token_slots + usage.states - usage.saved - usage.dropped
    assert usage.saved >= 0
    assert usage.dropped >= 0
    assert usage.rounding >= 0
    padded, padding = allocator.padding()
    extents = allocator.extents(np.array(rows := allocator.table.rows(), np.int64))
    for row, extent in zip(rows, () if extents is None else extents.tolist(), strict=extents is not None):
        first = int(allocator.table.blocks[row, 0])
        own = [*allocator.table.row(row).tolist(), *sorted(padding[padded == row].tolist())]
        assert own == list(range(first, first + extent))
    assert len(padding) * allocator.block_size <= usage.rounding
    assert not set(padding.tolist()) & set(held)
    assert 0 <= live <= usage.held - usage.rounding, f"{live} live slots of {usage}"
    assert len(held) * allocator.block_size <= usage.held, f"{len(held)} blocks are in use, {usage}"
    assert usage.cached == len(cached) * allocator.block_size
    assert allocator.free == allocator.capacity - usage.held - usage.cached >= 0
    assert 0 <= allocator.largest_hole() <= allocator.free + usage.cached
    for aside in ([], rows[::2], rows[1:], rows):
        assert allocator.repeated(aside) == repeated(allocator, [row for row in rows if row not in aside])
    if not rows:
        assert (usage.held, usage.rounding, usage.saved, usage.dropped) == (0, 0, 0, 0), usage
