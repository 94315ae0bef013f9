"""What the paged backends share: K/V goes to slots of a store, then the queries attend through it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

import torch

from sim.decode.paging import Paging

if TYPE_CHECKING:
    from sim.decode.batch import Batch
    from sim.decode.lanes import Lanes


class Cache(Protocol):
    """K/V of some layers in blocks of `block_size` tokens."""

    block_size: int

    def layer(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a layer, each [blocks, block_size, kv_heads, head_dim], as views."""

    def write(self, layer: int, slots: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Store K and V, [tokens, kv_heads, head_dim] each, in `slots` (block id x block_size + offset)."""


class PagedBackend(ABC):
    """Keeps the K/V of layers in a `Cache` and attends over its blocks."""

    name: str
    capturable = False
    """Whether `read` after `plan_lanes` can be part of a CUDA graph."""

    def __init__(self, store: Cache, paging: Paging | None = None) -> None:
        """Attend over `store`, whose blocks are read as `paging` says; each as a page if it is not given."""
        self.store = store
        self.paging = paging or Paging(store.block_size, store.block_size, store.block_size)
        self.slots = torch.zeros(0, dtype=torch.int64)
        """int64[t]: where this step's K/V goes, block id x block_size + offset."""

    @property
    def planning(self) -> str:
        """How padded steps are planned, in words."""
        return "nothing is planned"

    def pages(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a layer, each [pages, page size, kv_heads, head_dim], as views of the store."""
        keys, values = self.store.layer(layer)
        return self.paging.view(keys), self.paging.view(values)

    @abstractmethod
    def plan(self, batch: Batch) -> None:
        """Prepare for a step; called once, before any layer attends."""

    @abstractmethod
    def plan_lanes(self, lanes: Lanes, slots: torch.Tensor) -> None:
        """Prepare for a padded step whose K/V goes to `slots`, int64[shape.width] on the device."""

    @abstractmethod
    def read(self, layer: int, query: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        """Attend once K/V of the step is in the store; arguments and result as in `AttentionBackend.attend`."""

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
        self.store.write(layer, self.slots, key, value)
        return self.read(layer, query, scale, window)
