"""The block map as a raster: a row a physical block, a column a snapshot.

`blocks.parquet` lists runs of blocks alike.  Here they become planes of small integers
(who owns the block, how many sequences hold it, how much of it is empty), which the page
colours as the reader likes.  Columns keep the true instants of the snapshots: nothing is
resampled in time.  Where a pool has more blocks than rows, one block in so many is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.metrics import Columns
from analysis.page.pack import Packed, pack

FREE, CACHED, FIRST_OWNER = 0, 1, 2
ROWS = 4096


@dataclass(frozen=True)
class BlockMap:
    """Planes [rows, instants], time running fastest."""

    instants: npt.NDArray[np.float64]
    owners: npt.NDArray[np.int64]
    """Request ids; plane value `FIRST_OWNER + i` means `owners[i]`."""
    owner: npt.NDArray[np.uint32]
    references: npt.NDArray[np.uint8]
    """Sequences that hold the block, at most 255."""
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
    instants, first = np.unique(times, return_index=True)
    snapshots = len(instants)
    stride = max(1, -(-num_blocks // ROWS), -(-num_blocks * min(snapshots, 400) // cells))
    rows = -(-num_blocks // stride)
    skip = max(1, -(-snapshots * rows // cells))
    ends = np.append(first[1:], len(times))[::skip]
    instants, first = instants[::skip], first[::skip]
    ids = np.asarray(blocks["request_id"], np.int64)
    owners = np.unique(ids[ids >= 0])
    code = np.where(ids >= 0, np.searchsorted(owners, ids) + FIRST_OWNER, CACHED).astype(np.uint32)
    shape = (len(instants), rows)
    owner, references, empty = np.zeros(shape, np.uint32), np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    columns = {name: np.asarray(blocks[name], np.int64) for name in ("block", "count", "references", "slack")}
    for column, (begin, end) in enumerate(zip(first, ends, strict=True)):
        runs = {name: values[begin:end] for name, values in columns.items()}
        which = np.repeat(np.arange(begin, end), runs["count"])
        offset = np.arange(len(which)) - np.repeat(np.cumsum(runs["count"]) - runs["count"], runs["count"])
        block = columns["block"][which] + offset - 1
        filled = (columns["count"] * block_size - columns["slack"])[which] - offset * block_size
        drawn = block % stride == 0
        place, which = block[drawn] // stride, which[drawn]
        owner[column, place] = code[which]
        references[column, place] = np.minimum(columns["references"][which], 255)
        empty[column, place] = 255 - np.clip(filled[drawn], 0, block_size) * 255 // block_size
    return BlockMap(instants, owners, owner.T, references.T, empty.T, stride, snapshots)


def blocks_held(blocks: Columns) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Request ids and the most blocks each was seen to hold at a snapshot."""
    ids, times = np.asarray(blocks["request_id"], np.int64), np.asarray(blocks["time_s"], np.float64)
    owned = ids >= 0
    if not owned.any():
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    instant = np.unique(times, return_inverse=True)[1][owned]
    ids, counts = ids[owned], np.asarray(blocks["count"], np.int64)[owned]
    order = np.lexsort((instant, ids))
    ids, instant, counts = ids[order], instant[order], counts[order]
    begin = np.flatnonzero((np.diff(ids, prepend=-1) != 0) | (np.diff(instant, prepend=-1) != 0))
    sums, of = np.add.reduceat(counts, begin), ids[begin]
    unique, first = np.unique(of, return_index=True)
    return unique, np.maximum.reduceat(sums, first)
