"""Which chunks of prompts have their attention split among a GPU's multiprocessors, and merged afterwards.

FlashInfer computes attention in tiles: some queries of one K/V head, against a part of what they attend to.
Where a step has few tiles, it divides long contexts into parts, as small as the number of tiles that run at
once allows, and merges the partial results.  Merging takes long (with the 1B geometry on an H200 it adds 0.9 ms
to 2.3 ms of a step with 512 prompt tokens), and whether a chunk is split depends on the others in its step.
This is the rule of `PrefillBinarySearchKVChunkSize` and `PrefillSplitQOKVIndptr` in
FlashInfer 0.5.3 (`include/flashinfer/attention/scheduler.cuh`), for steps in CUDA graphs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sim.costs.shapes import CHUNKS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sim.devices import Device
    from sim.models.geometry import Geometry

PAGE = 16
"""Token slots of the pages that K/V is read in."""
LEAST_PAGES = 128 // PAGE
"""Pages of the smallest part."""
TILE, SMALL_TILE = 128, 64
"""Rows of a tile, each a query of one head; the small one where keys are long, or all rows of a step fit in it."""
LONG_KEY = 256
"""Elements of a key from which tiles are small."""
TILES_AT_ONCE = 2
"""On one multiprocessor."""


class Splitting(NamedTuple):
    """The rule for one model on one device."""

    group: int
    """Query heads per K/V head."""
    tiles: int
    """Tiles for each K/V head that contexts are split into, at most."""
    tile: int
    """Rows of a tile."""

    @classmethod
    def of(cls, geometry: Geometry, device: Device) -> Splitting:
        """Return the rule for a model, as split over GPUs, on one of those GPUs."""
        kv_heads = max(1, geometry.kv_heads)  # there are none without attention, and nothing is split
        return cls(
            geometry.heads // kv_heads,
            TILES_AT_ONCE * device.multiprocessors // kv_heads,
            TILE if geometry.head_dim < LONG_KEY else SMALL_TILE,
        )

    def merged(self, chunks: Iterable[tuple[int, int]]) -> int:
        """Return how many tokens of a step's chunks are merged from parts.

        Args:
            chunks: (tokens, tokens in the cache before them) of each.

        """
        sizes = [(tokens, -(-(start + tokens) // PAGE)) for tokens, start in chunks]
        longest = max((pages for _, pages in sizes), default=0)
        if longest <= LEAST_PAGES:
            return 0
        rows = (sum(tokens for tokens, _ in sizes) - CHUNKS + 1) * self.group
        tile = self.tile if rows > SMALL_TILE else SMALL_TILE
        tiles = [(-(-tokens * self.group // tile), pages) for tokens, pages in sizes]
        low, high = LEAST_PAGES, longest
        while low < high:
            part = (low + high) // 2
            if sum(count * -(-pages // part) for count, pages in tiles) > self.tiles:
                low = part + 1
            else:
                high = part
        return sum(tokens for tokens, pages in sizes if pages > low)
