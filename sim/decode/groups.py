"""Real decode over a hybrid allocator: a block table for each group of layers, one pool for all.

The pool is a row of equal blocks.  A piece of a group, its layers' K and V of some tokens, occupies
consecutive blocks (`allocators.groups`), so every layer of a group is a strided view of the pool,
addressed by the first block of the piece.  Each group attends with the reference backend through its
own columns of the allocator's table, which are a view as well.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from sim.decode.device import moved
from sim.decode.store import BlockStore, Pairs, columns
from sim.decode.torch_backend import TorchBackend
from sim.errors import UserError

if TYPE_CHECKING:
    from allocators.grouprows import GroupRows
    from allocators.groups import Piece
    from sim.decode.batch import Batch
    from sim.models.geometry import Geometry


class PooledStore(BlockStore):
    """Blocks that any group may hold, on the device and on the host."""

    def __init__(
        self, num_blocks: int, block_bytes: int, dtype: torch.dtype, device: torch.device, host_blocks: int = 0
    ) -> None:
        """Allocate all of it, zeroed: what is masked must still be finite."""
        self.num_blocks = num_blocks
        elements = block_bytes // dtype.itemsize
        self.blocks = torch.zeros((num_blocks + 1, elements), dtype=dtype, device=device)
        """[num_blocks + 1, elements]"""
        self.host = torch.zeros((host_blocks + 1, elements), dtype=dtype, pin_memory=device.type == "cuda")

    @property
    def pool_bytes(self) -> int:
        """See `BlockStore.pool_bytes`."""
        return self.blocks[1:].nbytes

    @property
    def block_bytes(self) -> int:
        """See `BlockStore.block_bytes`."""
        return self.blocks[:1].nbytes

    def copy(self, copies: Pairs) -> None:
        """See `BlockStore.copy`."""
        sources, targets = columns(copies)
        if sources:
            self.blocks[self.ids(targets)] = self.blocks[self.ids(sources)]

    def swap_out(self, moves: Pairs) -> None:
        """See `BlockStore.swap_out`."""
        for source, target in zip(*columns(moves), strict=True):
            self.host[target].copy_(self.blocks[source], non_blocking=True)

    def swap_in(self, moves: Pairs) -> None:
        """See `BlockStore.swap_in`."""
        for source, target in zip(*columns(moves), strict=True):
            self.blocks[target].copy_(self.host[source], non_blocking=True)


class GroupCache:
    """K/V of one group's layers, as views of the pool."""

    def __init__(self, store: PooledStore, piece: Piece, geometry: Geometry) -> None:
        """View the pool as pieces of one group."""
        self.block_size = tokens = piece.tokens
        blocks = store.blocks
        heads, dim = geometry.kv_heads, geometry.head_dim
        shape = (len(blocks) - piece.blocks + 1, tokens, heads, dim)
        stride = (blocks.stride(0), heads * dim, dim, 1)
        part = tokens * heads * dim
        self._views = [
            (
                blocks.as_strided(shape, stride, 2 * layer * part),
                blocks.as_strided(shape, stride, (2 * layer + 1) * part),
            )
            for layer in range(piece.group.layers)
        ]

    def layer(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of one of the group's layers, each [blocks, tokens, kv_heads, head_dim], as views."""
        return self._views[layer]

    def write(self, layer: int, slots: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """See `Cache.write`; a slot is a piece's first block x its tokens + offset."""
        places = slots // self.block_size, slots % self.block_size
        for cache, states in zip(self.layer(layer), (key, value), strict=True):
            cache[places] = states


class GroupedBackend:
    """Attends for each group of layers through its own block table."""

    name = "torch"

    def __init__(self, store: PooledStore, allocator: GroupRows, geometry: Geometry) -> None:
        """Attend over `store`.

        Raises:
            UserError: a group keeps something else than K/V of attention.

        """
        if allocator.columns.lead:
            raise UserError("allocators: hybrid: recurrent layers cannot be decoded, only attention can")
        self._tables = [(allocator.first_column[group], allocator.stride) for group in allocator.attention]
        pieces = [allocator.pieces[group] for group in allocator.attention]
        self._backends = [TorchBackend(GroupCache(store, piece, geometry)) for piece in pieces]
        self._place = places_of(pieces, geometry)

    def plan(self, batch: Batch) -> None:
        """Hand every group its columns of the table, and the slots in it that new tokens go to."""
        owner = moved(np.repeat(batch.rows, batch.counts), batch.positions.device)
        for (first, stride), backend in zip(self._tables, self._backends, strict=True):
            table, size = batch.table[:, first::stride], backend.store.block_size
            blocks = table[owner, batch.positions // size].to(torch.int64)
            backend.plan(replace(batch, table=table, slots=blocks * size + batch.positions % size))

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        window: int | None,
    ) -> torch.Tensor:
        """See `AttentionBackend.attend`."""
        group, place = self._place[layer]
        return self._backends[group].attend(place, query, key, value, scale, window)


def places_of(pieces: list[Piece], geometry: Geometry) -> list[tuple[int, int]]:
    """Return (group, place within it) of every layer: layers that keep the same fill their groups in order."""
    found = []
    taken: Counter[int] = Counter()
    for layer in geometry.model.stack:
        window = getattr(layer.mixer, "window", None)
        group = next(
            index
            for index, piece in enumerate(pieces)
            if (piece.group.kind, piece.group.window) == (layer.mixer.kind, window)
            and taken[index] < piece.group.layers
        )
        found.append((group, taken[group]))
        taken[group] += 1
    return found
