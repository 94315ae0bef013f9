"""The block map as a raster: one row per physical block, one column per snapshot.

`blocks.parquet` lists runs of like blocks.  Here they become planes of small integers (who owns
the block, how many sequences hold it, how much of it is empty), which the page colours as the
reader chooses.  Columns keep the true instants of the snapshots: nothing is resampled in time.
Where a pool has more blocks than the raster has rows, only every n-th block is drawn.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.observed import Columns
from analysis.page.pack import Packed, pack

FREE, CACHED, FIRST_OWNER = 0, 1, 2
ROWS = 4096
Ints = npt.NDArray[np.signedinteger[Any]]
AT_ONCE = 1 << 16
"""Cells drawn in one go: the arrays for more would be fresh memory, whose first touch takes longer than drawing."""


class BlockMap(NamedTuple):
    """Planes [rows, instants], time running fastest."""

    instants: npt.NDArray[np.float64]
    owners: npt.NDArray[np.int64]
    """Request ids; plane value `FIRST_OWNER + i` means `owners[i]`."""
    owner: npt.NDArray[np.uint32]
    references: npt.NDArray[np.uint8]
    """Sequences that hold the block, at most 255; of an owned one none means padding that placement adds."""
    empty: npt.NDArray[np.uint8]
    """Empty part of the block, 0 (full) to 255 (empty)."""
    stride: int
    """One block in so many is drawn."""
    snapshots: int
    """Snapshots recorded; some may be left out."""

    def packed(self) -> dict[str, Packed | int]:
        """As JSON."""
        return {
            "instants": pack(self.instants),
            "owners": pack(self.owners),
            "owner": pack(self.owner),
            "references": pack(self.references),
            "empty": pack(self.empty),
            "rows": self.owner.shape[0],
            "stride": self.stride,
            "snapshots": self.snapshots,
        }


def block_map(blocks: Columns, num_blocks: int, block_size: int, cells: int) -> BlockMap | None:
    """Draw the raster with at most `cells` cells; None if nothing was recorded.

    Rows are thinned before instants: a time axis of at least 400 is kept.
    """
    times = np.asarray(blocks["time_s"], np.float64)
    if not len(times):
        return None
    first, lengths = _snapshots(times)
    snapshots = len(first)
    stride = max(1, -(-num_blocks // ROWS), -(-num_blocks * min(snapshots, 400) // cells))
    rows = -(-num_blocks // stride)
    skip = max(1, -(-snapshots * rows // cells))
    instants = times[first]
    if skip > 1:
        shown = np.arange(snapshots) % skip == 0
        blocks = {name: np.asarray(column)[np.repeat(shown, lengths)] for name, column in blocks.items()}
        instants, lengths = instants[shown], lengths[shown]
    owners, place = _owners(np.asarray(blocks["request_id"]))
    codes = (place + FIRST_OWNER).astype(np.uint32)  # CACHED where the place is -1
    holders = np.minimum(blocks["references"], 255).astype(np.uint8)
    block, count, slack = (np.asarray(blocks[name], np.int32) for name in ("block", "count", "slack"))
    shape = len(instants), rows
    owner, references, empty = np.zeros(shape, np.uint32), np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    until = np.append(0, lengths.cumsum())
    some = max(1, AT_ONCE // rows)
    for begin in range(0, len(instants), some):
        drawn = slice(begin, begin + some)
        part = slice(until[begin], until[min(begin + some, len(instants))])
        run, cell = _cells(block[part], count[part], lengths[drawn], rows, stride)
        owner[drawn].reshape(-1)[cell] = codes[part].take(run)
        references[drawn].reshape(-1)[cell] = holders[part].take(run)
        partly = (slack[part].take(run) > 0).nonzero()[0]
        run, cell = run[partly], cell[partly]
        filled = (count[part][run] - cell % rows * stride - 1 + block[part][run]) * block_size - slack[part][run]
        empty[drawn].reshape(-1)[cell] = 255 - np.clip(filled, 0, block_size) * 255 // block_size
    return BlockMap(instants, owners, owner.T, references.T, empty.T, stride, snapshots)


def _cells(block: Ints, count: Ints, lengths: Ints, rows: int, stride: int) -> tuple[Ints, Ints]:
    """List the cells to draw of some snapshots: the run that each is in, and where it is, snapshot by snapshot.

    Args:
        block: int32[runs], first block of each run.
        count: int32[runs], its blocks.
        lengths: int64[snapshots], runs of each snapshot.
        rows: rows to draw.
        stride: a row stands for one block in so many.

    """
    low, high = (block + (stride - 2)) // stride, (block + (count - 2)) // stride  # rows whose block is in the run
    drawn = (high >= low).nonzero()[0]
    each = np.diff(drawn.searchsorted(lengths.cumsum()), prepend=0)
    low = low.take(drawn)
    first, many = np.repeat(np.arange(len(lengths)) * rows, each) + low, high.take(drawn) - low + 1
    cell = np.repeat(first - many.cumsum() + many, many)
    cell += np.arange(len(cell))
    return np.repeat(drawn, many), cell


def blocks_held(blocks: Columns) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Request ids and the most blocks each was seen to hold at a snapshot."""
    (owners, place), counts = _owners(np.asarray(blocks["request_id"])), np.asarray(blocks["count"])
    most = np.zeros(len(owners) + 1)  # the first for blocks that no request owns
    for begin, length in zip(*_snapshots(np.asarray(blocks["time_s"], np.float64)), strict=True):
        part = slice(begin, begin + length)
        held = np.bincount(place[part] + 1, counts[part], len(most))
        np.maximum(most, held, out=most)
    return owners, most[1:].astype(np.int64)


def _snapshots(times: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where each snapshot begins in a table of them, and how many rows it has."""
    first = np.append(0, np.flatnonzero(times[1:] != times[:-1]) + 1)
    return first, np.diff(first, append=len(times))


def _owners(ids: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids that are at least 0, ascending, each once; and the place in that list of each of `ids`, else -1."""
    place = np.full(int(ids.max(initial=-1)) + 3, -1)  # the last two cells stand for the ids -2 and -1
    place[ids] = 0
    place[-2:] = -1
    owners = np.flatnonzero(place == 0)
    place[owners] = np.arange(len(owners))
    return owners, place[ids]
