"""The block map as a raster: a row a physical block, a column a snapshot.

`blocks.parquet` lists runs of blocks alike.  Here they become planes of small integers
(who owns the block, how many sequences hold it, how much of it is empty), which the page
colours as the reader likes.  Columns keep the true instants of the snapshots: nothing is
resampled in time.  Where a pool has more blocks than rows, one block in so many is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.metrics import Columns
from analysis.page.pack import Packed, pack

FREE, CACHED, FIRST_OWNER = 0, 1, 2
ROWS = 4096
AT_ONCE = 1 << 21
"""Cells drawn in one go, which bounds memory."""


@dataclass(frozen=True)
class BlockMap:
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
    first = np.flatnonzero(np.diff(times, prepend=-1.0))
    snapshots = len(first)
    stride = max(1, -(-num_blocks // ROWS), -(-num_blocks * min(snapshots, 400) // cells))
    rows = -(-num_blocks // stride)
    skip = max(1, -(-snapshots * rows // cells))
    instants, first, end = times[first][::skip], first[::skip], np.append(first[1:], len(times))[::skip]
    owners, place = _owners(np.asarray(blocks["request_id"]))
    codes = np.where(place >= 0, place + FIRST_OWNER, CACHED).astype(np.uint32)
    shape = (rows, len(instants))
    owner, references, empty = np.zeros(shape, np.uint32), np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for column, part in _parts(first, end, rows):
        block, count, slack = (np.asarray(blocks[name], np.int32)[part] for name in ("block", "count", "slack"))
        low, high = -(-(block - 1) // stride), (block + count - 2) // stride  # rows whose block is in the run
        drawn = np.maximum(high - low + 1, 0)
        which = np.repeat(np.arange(len(block), dtype=np.int32), drawn)
        nth = np.arange(len(which), dtype=np.int32) - (np.cumsum(drawn, dtype=np.int32) - drawn)[which]
        where = (low * shape[1] + column)[which] + nth * shape[1]
        owner.reshape(-1)[where] = codes[part][which]
        holders = np.minimum(np.asarray(blocks["references"])[part], 255).astype(np.uint8)
        references.reshape(-1)[where] = holders[which]
        partly = np.flatnonzero((slack > 0)[which])
        run, nth = which[partly], nth[partly]
        filled = (count * block_size - slack - (low * stride - block + 1) * block_size)[run] - nth * (
            stride * block_size
        )
        empty.reshape(-1)[where[partly]] = 255 - np.clip(filled, 0, block_size) * 255 // block_size
    return BlockMap(instants, owners, owner, references, empty, stride, snapshots)


def _parts(
    first: npt.NDArray[np.int64], end: npt.NDArray[np.int64], rows: int
) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]]:
    """Yield some snapshots at a time: the column that each of their runs is in, and where the runs are."""
    size = max(1, AT_ONCE // rows)
    for begin in range(0, len(first), size):
        lengths = end[begin : begin + size] - first[begin : begin + size]
        column = np.repeat(np.arange(begin, begin + len(lengths), dtype=np.int32), lengths)
        place = np.arange(len(column)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        yield column, first[column] + place


def blocks_held(blocks: Columns) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Request ids and the most blocks each was seen to hold at a snapshot."""
    (owners, place), counts = _owners(np.asarray(blocks["request_id"])), np.asarray(blocks["count"])
    most = np.zeros(len(owners), np.int64)
    first = np.flatnonzero(np.diff(np.asarray(blocks["time_s"], np.float64), prepend=-1.0))
    for part in np.split(np.arange(len(place)), first[1:]):
        owned = part[place[part] >= 0]
        held = np.bincount(place[owned], weights=counts[owned], minlength=len(owners))
        np.maximum(most, held.astype(np.int64), out=most)
    return owners, most


def _owners(ids: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids that are at least 0, ascending, each once; and the place in that list of each of `ids`, else -1."""
    place = np.full(int(ids.max(initial=-1)) + 3, -1)  # the last two cells stand for the ids -2 and -1
    place[ids] = 0
    place[-2:] = -1
    owners = np.flatnonzero(place == 0)
    place[owners] = np.arange(len(owners))
    return owners, place[ids]
