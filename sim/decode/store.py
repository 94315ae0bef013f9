"""The K/V of all layers: one preallocated tensor, addressed by physical block id.

Block 0 is the null block: it belongs to no sequence, is always readable, and pads block tables.
A second tensor, in host memory (pinned, so that the GPU copies it directly), holds swapped-out
blocks.  Sizes are exact: `pool_bytes` is what `sim.pool` counts.

The host does not wait for any move.  It launches them behind the step that the device runs, and ahead of the next one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from sim.costs.model import USUAL_BLOCK
from sim.decode.device import moved

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sim.models.geometry import Geometry

Pairs: TypeAlias = "Iterable[tuple[int, int]]"
"""(source, target) block ids."""


class BlockStore(ABC):
    """Blocks on the device and on the host, whatever lies in them."""

    num_blocks: int
    blocks: torch.Tensor
    """All of them, the null block included."""

    @property
    @abstractmethod
    def pool_bytes(self) -> int:
        """Bytes of the blocks that can be handed out."""

    @property
    @abstractmethod
    def block_bytes(self) -> int:
        """Bytes of one block over all layers."""

    @abstractmethod
    def copy(self, copies: Pairs) -> None:
        """Copy blocks on the device, all at once; of two copies to one block the later counts.

        That equals one copy after the other, because a copy-on-write target is never a source in the same step.
        """

    @abstractmethod
    def swap_out(self, moves: Pairs) -> None:
        """Copy device blocks to host blocks."""

    @abstractmethod
    def swap_in(self, moves: Pairs) -> None:
        """Copy host blocks to device blocks."""

    def ids(self, blocks: list[int]) -> torch.Tensor:
        """Put block ids on the device, where they index blocks; PyTorch waits until it has copied a list."""
        return moved(np.array(blocks), self.blocks.device)


class KVStore(BlockStore):
    """K/V blocks of tokens of all layers."""

    def __init__(
        self,
        geometry: Geometry,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
        host_blocks: int = 0,
    ) -> None:
        """Allocate all of it, zeroed: what is masked must still be finite."""
        self.block_size = block_size
        self.num_blocks = num_blocks
        shape = (block_size, geometry.kv_heads, geometry.head_dim)
        layers = geometry.layers
        whole = (layers, 2, num_blocks + 1, *shape)
        beyond = USUAL_BLOCK * geometry.kv_heads * geometry.head_dim  # a page of single slots may reach so far
        memory = torch.zeros(prod(whole) + beyond, dtype=dtype, device=device)
        self.blocks = memory[:-beyond].view(whole)
        """[layers, K and V, num_blocks + 1, block_size, kv_heads, head_dim]"""
        self.host = torch.zeros((host_blocks + 1, layers, 2, *shape), dtype=dtype, pin_memory=device.type == "cuda")
        """[host_blocks + 1, layers, K and V, block_size, kv_heads, head_dim]: a block is one consecutive piece."""

    @property
    def pool_bytes(self) -> int:
        """See `BlockStore.pool_bytes`."""
        return self.blocks[:, :, 1:].numel() * self.blocks.element_size()

    @property
    def block_bytes(self) -> int:
        """See `BlockStore.block_bytes`."""
        return self.blocks[:, :, :1].numel() * self.blocks.element_size()

    def layer(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a layer, each [num_blocks + 1, block_size, kv_heads, head_dim], as views."""
        return self.blocks[layer, 0], self.blocks[layer, 1]

    def write(self, layer: int, slots: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Store K and V, [tokens, kv_heads, head_dim] each, in `slots` (block id x block_size + offset)."""
        for cache, states in zip(self.layer(layer), (key, value), strict=True):
            cache.flatten(0, 1).index_copy_(0, slots, states)

    def copy(self, copies: Pairs) -> None:
        """See `BlockStore.copy`."""
        sources, targets = columns(copies)
        if sources:
            self.blocks[:, :, self.ids(targets)] = self.blocks[:, :, self.ids(sources)]

    def copy_slots(self, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Copy single slots on the device."""
        flat = self.blocks.flatten(2, 3)
        flat[:, :, targets] = flat[:, :, sources]

    def swap_out(self, moves: Pairs) -> None:
        """See `BlockStore.swap_out`."""
        sources, targets = columns(moves)
        if sources:
            gathered = self.blocks[:, :, self.ids(sources)].permute(2, 0, 1, 3, 4, 5).contiguous()
            for block, target in zip(gathered, targets, strict=True):
                self.host[target].copy_(block, non_blocking=True)

    def swap_in(self, moves: Pairs) -> None:
        """See `BlockStore.swap_in`."""
        sources, targets = columns(moves)
        if sources:
            layers, pair, _, *shape = self.blocks.shape
            arrived = self.blocks.new_empty((len(sources), layers, pair, *shape))
            for block, source in zip(arrived, sources, strict=True):
                block.copy_(self.host[source], non_blocking=True)
            self.blocks[:, :, self.ids(targets)] = arrived.permute(1, 2, 0, 3, 4, 5)


def columns(moves: Pairs) -> tuple[list[int], list[int]]:
    """Sources and targets; of several moves to one target only the last."""
    last = {target: source for source, target in moves}
    return list(last.values()), list(last.keys())
