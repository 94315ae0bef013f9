"""The leap: many steps at once, in each of which every sequence of a batch grows by one token.

A sequence takes a block in some step, and then again after every `block_size` further tokens, like
a clock that strikes once per period; in between, only its length changes.  So array arithmetic
yields all strikes within many steps, and with them the blocks taken, in exactly the order in which
single steps would take them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from allocators.answers import Leap
from allocators.base import Allocator
from allocators.table import Ints

if TYPE_CHECKING:
    from allocators.rows import SharingRows


class Strikes(NamedTuple):
    """Strikes of many clocks, sorted by step and then by clock."""

    steps: int
    """The list covers steps 0 to `steps` - 1."""
    when: Ints
    """Step of each strike."""
    who: Ints
    """Clock of each strike."""
    nth: Ints
    """Number of earlier strikes of the same clock."""


def spread(counts: Ints) -> tuple[Ints, Ints]:
    """Enumerate `counts[i]` items for each i: return i and the number within i, from 0, of each, as int64[sum]."""
    who = np.repeat(np.arange(len(counts)), counts)
    return who, np.arange(len(who)) - np.repeat(counts.cumsum() - counts, counts)


def strikes(first: Ints, period: int, steps: int, limit: int | None = None) -> Strikes:
    """List the strikes of clocks in steps 0 to `steps` - 1.

    Args:
        first: int64[n], step in which each clock first strikes.
        period: steps between two strikes of a clock.
        steps: steps to consider, at least 0.
        limit: most strikes to list; the list ends before the first step that would exceed it.

    """
    if limit is not None and len(first):
        # After the last first strike all clocks strike once per period, so the limit is reached by then at the latest.
        steps = min(steps, int(first.max()) + period * (limit // len(first) + 2))
    who, nth = spread(np.maximum(0, -((first - steps) // period)))
    when = first[who] + nth * period
    order = np.argsort(when, kind="stable")
    if limit is not None and len(order) > limit:
        steps = int(when[order[limit]])
        order = order[: np.searchsorted(when[order], steps)]
    return Strikes(steps, when[order], who[order], nth[order])


def leap(allocator: SharingRows, rows: Ints, lengths: Ints, steps: int) -> Leap:
    """Implement `Allocator.advance` for rows that do not share their last blocks, without a sliding window."""
    table, pool, size = allocator.table, allocator.pool, allocator.block_size
    steps = min(steps, allocator.max_model_len - int(lengths.max(initial=0)))
    taking = strikes(table.slots[rows] - lengths, size, steps, pool.free)
    steps = taking.steps
    if not steps:
        return Allocator.advance(allocator, rows, lengths, 1)
    filling = strikes(-(lengths + 1) % size, size, steps if allocator.entangled else 0)
    naming = allocator.name(rows[filling.who], lengths[filling.who] // size + filling.nth)
    first = allocator.order_matters(naming)
    if first is not None:
        until = (naming.columns[first] + 1) * size - int(table.length[naming.rows[first]]) - 1
        return leap(allocator, rows, lengths, until) if until else Allocator.advance(allocator, rows, lengths, 1)

    where = rows[taking.who]
    slots = table.slots[where] + (taking.nth + 1) * size
    taken_by = np.searchsorted(taking.when, np.arange(steps), "right")
    held, cached = pool.held + taken_by, pool.cached + np.zeros(steps, np.int64)
    taken, evicted = pool.take(len(where))
    lost = np.concatenate([[0], np.cumsum(evicted)])[taken_by] if evicted else np.zeros_like(held)
    cached -= lost

    table.blocks[where, table.count[where] + taking.nth] = taken
    table.count[rows] += np.bincount(taking.who, minlength=len(rows))
    table.slots[rows] = table.count[rows] * size
    table.length[rows] = lengths + steps
    allocator.enter(naming)
    return Leap(steps, taking.when, taking.who, slots, held * size, cached * size, evicted=np.diff(lost, prepend=0))
