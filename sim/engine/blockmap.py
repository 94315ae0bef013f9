"""The block map: which request owns which block, sampled over time and stored as runs of equal blocks.

A simulation may last any time, so the number of snapshots is bounded: when there are too many, every second
one is dropped and the interval between them doubles.  Because many snapshots are dropped again, taking one
only copies the block tables; runs are computed when the snapshots are written, or before that where a large
cache would leave room for few tables: a hundred thousand blocks alike are one run.  Then few are kept, and as
it is known how long the run lasts at least, those that would be dropped later are not taken.  If a snapshot after every
step is wanted, they are written as they are taken.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from allocators.leap import spread
from allocators.table import Ints

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from allocators.base import Allocator
    from sim.engine.serving import Serving
    from sim.engine.telemetry import Sink

Runs = npt.NDArray[np.int32]
MOST_BLOCKS = 1_000_000
"""Blocks, or runs of them (20 bytes each), that the snapshots of one run list in all."""
FEW = 100
"""So many snapshots are kept as runs if the blocks that they list are too many."""
MOST_CONDENSED = 20_000_000
"""Blocks that the pools of these may have in all, or there are fewer: it takes 30 ns for each, and more are dropped."""
SHORTEST = 1_000_000
"""Nanoseconds between snapshots, at least."""
AT_ONCE = 1 << 16
"""Blocks listed after which snapshots are handed on, where all of them are wanted."""
TOGETHER = 1 << 16
"""Blocks, up to the last one listed, of the snapshots whose runs are computed in one go; of a single one any."""
NOBODY, CACHE = -2, -1
"""Owners of blocks that are free, and of those that are kept for reuse."""


class BlockLog:
    """Snapshots of who owns which block, as runs of blocks alike."""

    def __init__(self, sink: Sink, instants: int | None, span: int) -> None:
        """Stream to `sink`.

        Args:
            sink: takes the snapshots.
            instants: how many to keep, at most; None for one after every step.
            span: nanoseconds that the run lasts at least, as far as is known.

        """
        self._sink = sink
        self._instants = instants
        self._span = span
        self._interval = max(SHORTEST, span // (instants or 1))
        self._snapshots: list[tuple[int, Snapshot | Runs]] = []
        self._listed = 0
        """Blocks, or runs of them, that all snapshots list."""
        self.due: int | float = float("inf") if instants == 0 else 0
        """Next instant at which a snapshot is wanted; 0 for any."""

    def take(self, now: int, serving: Serving) -> None:
        """Take a snapshot of the block map."""
        snapshot = Snapshot(serving)
        self._snapshots.append((now, snapshot))
        self._listed += snapshot.size
        if self._instants is None:
            if self._listed > AT_ONCE:
                self.flush()
            return
        few = max(1, min(FEW, MOST_CONDENSED // serving.allocator.num_blocks))
        while len(self._snapshots) > self._instants or (
            self._listed > MOST_BLOCKS and (len(self._snapshots) > few or few * self._interval < self._span)
        ):
            self._halve()
        if self._listed > MOST_BLOCKS:
            self._keep(list(zip([then for then, _ in self._snapshots], self._runs(), strict=True)))
        while len(self._snapshots) > 1 and self._listed > MOST_BLOCKS:
            self._halve()
        self.due = now + self._interval

    def _halve(self) -> None:
        self._keep(self._snapshots[::2])
        self._interval *= 2

    def _keep(self, snapshots: list[tuple[int, Snapshot | Runs]]) -> None:
        self._snapshots = snapshots
        self._listed = sum(each.size if isinstance(each, Snapshot) else each.shape[1] for _, each in snapshots)

    def flush(self) -> None:
        """Hand the snapshots to the sink."""
        times, sizes = [now / 1e9 for now, _ in self._snapshots], []
        joined, end = np.empty((5, self._listed), np.int32), 0  # of which what no run needs is never touched
        for runs in self._runs():
            sizes.append(size := runs.shape[1])
            joined[:, end : end + size] = runs
            end += size
        columns: dict[str, object] = {"time_s": np.repeat(np.array(times, np.float64), sizes)}
        names = ("block", "count", "request_id", "references", "slack")
        columns |= {name: column[:end] for name, column in zip(names, joined, strict=True)}
        self._sink.write("blocks", columns)
        self._snapshots, self._listed = [], 0

    def _runs(self) -> Iterator[Runs]:
        """Yield the runs of each snapshot; those whose runs have been computed come first."""
        yield from (each for _, each in self._snapshots if not isinstance(each, Snapshot))
        some: list[Snapshot] = []
        begins = [0]
        for _, each in self._snapshots:
            if isinstance(each, Snapshot):
                cells = each.cells()
                if begins[-1] + cells > TOGETHER:
                    yield from _runs_of(some, begins)
                    some, begins = [], [0]
                some.append(each)
                begins.append(begins[-1] + cells)
        yield from _runs_of(some, begins)


class Snapshot:
    """What rows list at an instant, copied: the block map follows from it."""

    def __init__(self, serving: Serving) -> None:
        """Copy what is listed now."""
        self.allocator = allocator = serving.allocator
        self.rows, self.lengths, self.owners = rows, _, _ = _held(serving)
        self.counts = counts = allocator.table.count[rows]
        self.extents = allocator.extents(rows)
        """Blocks of the span that each row is; None if rows list blocks that lie anywhere."""
        cells = allocator.table.blocks
        if self.extents is not None:
            self.blocks, self.size = cells[rows, 0], 2 * len(rows)
            return
        self.blocks = _listed(cells, rows, counts)
        """int32: the first of each span, or those of one row after those of the other."""
        self.padded, self.padding = allocator.padding()
        self.cached = allocator.cached_blocks().astype(np.int32)
        self.size = len(self.blocks) + len(self.padding) + len(self.cached)
        """Blocks listed, of a span only where it begins and where its padding does."""

    def cells(self) -> int:
        """Return how many blocks there are up to the last one listed, the null block and one behind them included."""
        lists = [self.blocks] if self.extents is not None else [self.blocks, self.padding, self.cached]
        return 2 + max((int(each.max()) for each in lists if len(each)), default=0)

    def joined(self, begin: int) -> tuple[Ints | Runs, ...]:
        """Return the fields of `Joint` of this one alone, whose null block has the number `begin`."""
        owners = self.padding
        if len(owners):
            owners_of = np.full(int(self.padded.max()) + 1, NOBODY, np.int64)
            owners_of[self.rows] = self.owners
            owners = owners_of[self.padded]
        blocks, padding, cached = (each + begin for each in (self.blocks, self.padding, self.cached))
        return blocks, self.counts, self.lengths, self.owners, padding, owners, cached

    def of_spans(self, extents: Ints) -> Runs:
        """Do `_runs_of` where every row is one span of blocks, from row to row and not from block to block."""
        size, first, counts, owners = self.allocator.block_size, self.blocks, self.counts, self.owners
        more = extents - counts
        held = np.stack([first, counts, owners, np.ones_like(counts), np.maximum(counts * size - self.lengths, 0)])
        padding = np.stack([first + counts, more, owners, np.zeros_like(counts), more * size])
        runs = np.concatenate([held, padding], axis=1)
        runs = runs[:, runs[1] > 0]
        runs = runs[:, runs[0].argsort()]
        begin, count, owner, references, _ = runs
        joins = (begin[:-1] + count[:-1] == begin[1:]) & (owner[:-1] == owner[1:]) & (references[:-1] == references[1:])
        heads = np.flatnonzero(np.append(True, ~joins)[: runs.shape[1]])
        found = runs[:, heads]
        if len(heads):
            found[[1, 4]] = np.add.reduceat(runs[[1, 4]], heads, axis=1)
        return found.astype(np.int32)


class Joint(NamedTuple):
    """What several snapshots list, one after the other; the blocks of each are numbered on behind those before."""

    blocks: Runs
    """Those of one row after those of the other; `counts` of each row."""
    counts: Ints
    lengths: Ints
    owners: Ints
    padding: Ints
    """Blocks of the padding, and `padders`, who own them."""
    padders: Ints
    cached: Runs


def _runs_of(snapshots: Sequence[Snapshot], begins: Sequence[int]) -> list[Runs]:
    """Describe block maps of one allocator: int32[5, runs] of first block, blocks, owner, references, empty slots each.

    All are described at once, as NumPy takes longer to be called for a few blocks than to look at them.

    Args:
        snapshots: of the block maps.
        begins: the number that the null block of each is given meanwhile, and how many cells they have in all.

    """
    if not snapshots or snapshots[0].extents is not None:
        return [each.of_spans(each.extents) for each in snapshots if each.extents is not None]
    parts = [each.joined(begin) for each, begin in zip(snapshots, begins[:-1], strict=True)]
    joint = Joint(*(np.concatenate(lists) for lists in zip(*parts, strict=True)))
    allocator, total, nulls = snapshots[0].allocator, begins[-1], np.array(begins[:-1], np.int64)
    blocks, padding = joint.blocks, joint.padding

    owner = np.full(total, NOBODY, np.int32)  # the last cell of each has no owner, like the null block
    owner[joint.cached] = CACHE
    owner[blocks] = np.repeat(joint.owners.astype(np.int32), joint.counts)
    owner[padding] = joint.padders
    references = np.bincount(blocks, minlength=total)
    owner[nulls], references[nulls] = NOBODY, 0  # the null block stands where a window has left one behind
    changes, owned = (owner[1:] != owner[:-1]) | (references[1:] != references[:-1]), owner != NOBODY
    start = (changes & owned[1:]).nonzero()[0] + 1
    stop = (changes & owned[:-1]).nonzero()[0] + 1
    where, empty = _partly_empty(allocator, joint, shared=int(references.max()) > 1)
    held = owned[where]
    slack = np.zeros(len(start), np.int64)
    np.add.at(slack, start.searchsorted(where[held], "right") - 1, empty[held])
    np.add.at(slack, start.searchsorted(padding, "right") - 1, allocator.block_size)
    runs = np.empty((5, len(start)), np.int32)
    upto = start.searchsorted(np.array(begins, np.int64))
    runs[0], runs[1] = start - np.repeat(nulls, np.diff(upto)), stop - start
    runs[2], runs[3], runs[4] = owner.take(start), references.take(start), slack
    return [runs[:, first:last] for first, last in pairwise(upto.tolist())]


def _partly_empty(allocator: Allocator, joint: Joint, *, shared: bool) -> tuple[Ints, Ints]:
    """Find blocks of rows that are not full, each once, and their empty slots; some may be `shared` by rows."""
    columns, size = allocator.columns, allocator.block_size
    counts, lengths = joint.counts, joint.lengths
    first = np.zeros_like(counts)
    if columns.full:
        np.minimum(lengths // columns.place * columns.stride, counts, out=first)
    who, place = spread(counts - first)
    place += first[who]
    blocks = joint.blocks[(counts.cumsum() - counts)[who] + place]
    empty = size - columns.filled_at(place, lengths[who], size)
    if shared:  # all rows that share a block fill it equally, so the last one counts
        slots = np.zeros(int(joint.blocks.max()) + 1, np.int64)
        slots[blocks] = empty
        blocks = slots.nonzero()[0]
        empty = slots[blocks]
    partly = empty > 0
    return blocks[partly], empty[partly]


def _listed(cells: Runs, rows: Ints, counts: Ints) -> Runs:
    """Copy the blocks of rows, those of one after those of the other."""
    upto = counts.cumsum()
    place = np.repeat(rows * cells.shape[1] - upto + counts, counts)
    place += np.arange(len(place))
    return cells.reshape(-1).take(place)


def _held(serving: Serving) -> tuple[Ints, Ints, Ints]:
    """Rows of all running sequences, their lengths and owners; the lowest id comes last and so owns what is shared."""
    decoding = serving.decoding
    rows, tokens, owners = (decoding.column(which) for which in (decoding.ROW, decoding.LENGTH, decoding.REQUEST))
    apart = [(job, row) for job in (*serving.prefilling.values(), *serving.lingering) for row in job.rows]
    if apart:
        # Room of samples to come is empty: they fork when the first token is out.
        lengths = [job.computed if row == job.rows[0] or job.generated > 1 else 0 for job, row in apart]
        rows = np.append(rows, np.array([row for _, row in apart], np.int64))
        tokens = np.append(tokens, np.array(lengths, np.int64))
        owners = np.append(owners, np.array([job.index for job, _ in apart], np.int64))
    order = np.argsort(-owners, kind="stable")
    return rows[order], tokens[order], owners[order]
