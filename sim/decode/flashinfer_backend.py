"""Paged attention by FlashInfer's kernels, which read K/V where the block table says.

A step of single tokens goes through the decode wrapper, any other through the prefill
wrapper; both attend on tensor cores with the kernel FlashInfer calls `fa2`, which one build
a head size serves.  It computes in fp16 and bf16.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sim.errors import UserError

if TYPE_CHECKING:
    from sim.decode.batch import Batch
    from sim.decode.store import KVStore
    from sim.models.geometry import Geometry

WORKSPACE_BYTES = 128 << 20
"""For partial results of split sequences, as FlashInfer recommends."""
HEAD_DIMS = (64, 128, 256)
"""Lengths of a key for which the kernels exist."""


def obstacle(geometry: Geometry, device: torch.device) -> str | None:
    """Say in words why FlashInfer cannot attend for this model here, or None if it can."""
    if device.type != "cuda":
        return "flashinfer runs on cuda only"
    if find_spec("flashinfer") is None:
        return "flashinfer is not installed (pip install 'kvsim[gpu]')"
    if geometry.model.dtype not in {"fp16", "bf16"}:
        return f"flashinfer computes in fp16 or bf16, the model is {geometry.model.dtype}"
    if geometry.head_dim not in HEAD_DIMS:
        return f"flashinfer knows keys of {HEAD_DIMS}, those of {geometry.name} are {geometry.head_dim} long"
    return None


def build(head_dim: int, window: int | None) -> None:
    """Have FlashInfer build its bf16 kernel for keys of `head_dim`, where it has not been built yet; takes a minute."""
    from flashinfer import BatchPrefillWithPagedKVCacheWrapper  # noqa: PLC0415  an extra, and slow to import

    workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device="cuda")
    one, two = (torch.tensor(values, dtype=torch.int32) for values in ([1], [0, 1]))
    wrapper = BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD", backend="fa2")
    left = -1 if window is None else window - 1
    wrapper.plan(two, two, one, one, 1, 1, head_dim, 16, causal=True, window_left=left, q_data_type=torch.bfloat16)


class FlashInferBackend:
    """Keeps K/V in a `KVStore` and attends with FlashInfer."""

    name = "flashinfer"

    def __init__(self, store: KVStore, geometry: Geometry) -> None:
        """Attend over `store`.

        Raises:
            UserError: FlashInfer cannot be used.

        """
        device = store.blocks.device
        if why := obstacle(geometry, device):
            raise UserError(f"--backend flashinfer: {why}; use --backend torch")
        from flashinfer import (  # noqa: PLC0415  an extra, and slow to import
            BatchDecodeWithPagedKVCacheWrapper,
            BatchPrefillWithPagedKVCacheWrapper,
        )

        self._store = store
        self._geometry = geometry
        workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=device)
        self._make_decode = partial(BatchDecodeWithPagedKVCacheWrapper, workspace, "NHD", use_tensor_cores=True)
        self._make_prefill = partial(BatchPrefillWithPagedKVCacheWrapper, workspace, "NHD", backend="fa2")
        self._wrappers: dict[tuple[bool, int | None, float], Any] = {}
        """By whether they decode, window and scale: a wrapper holds one plan."""
        self._planned: set[tuple[bool, int | None, float]] = set()
        self._slots = torch.zeros(0, dtype=torch.int64)
        self._decodes = False
        self._offsets = self._page_offsets = self._pages = self._last_pages = torch.zeros(0, dtype=torch.int32)

    def plan(self, batch: Batch) -> None:
        """List the pages of every sequence, one after the other."""
        size, contexts = self._store.block_size, batch.contexts
        counts = -(-contexts // size)
        offsets = np.concatenate([[0], counts.cumsum()])
        owner = np.repeat(np.arange(len(counts)), counts)
        columns = np.arange(offsets[-1]) - offsets[:-1][owner]
        cells = torch.from_numpy(np.stack([batch.rows[owner], columns])).to(batch.table.device, non_blocking=True)
        self._pages = batch.table[cells[0], cells[1]]
        self._slots = batch.slots
        self._decodes = bool((batch.counts == 1).all())
        self._offsets = _int32(batch.offsets)
        self._page_offsets = _int32(offsets)
        self._last_pages = _int32((contexts - 1) % size + 1)
        self._planned.clear()

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
        self._store.write(layer, self._slots, key, value)
        output: torch.Tensor = self._wrapper(window, scale).run(query.contiguous(), self._store.layer(layer))
        return output

    def _wrapper(self, window: int | None, scale: float) -> Any:
        """Return a wrapper planned for this step; layers that attend alike share one."""
        which = (self._decodes, window, scale)
        if which not in self._wrappers:
            self._wrappers[which] = self._make_decode() if self._decodes else self._make_prefill()
        wrapper = self._wrappers[which]
        if which not in self._planned:
            self._planned.add(which)
            geometry, pages = self._geometry, (self._page_offsets, self._pages, self._last_pages)
            sizes = (geometry.heads, geometry.kv_heads, geometry.head_dim, self._store.block_size)
            common = {
                "window_left": -1 if window is None else window - 1,
                "sm_scale": scale,
                "q_data_type": self._store.blocks.dtype,
                "kv_data_type": self._store.blocks.dtype,
            }
            if self._decodes:
                wrapper.plan(*pages, *sizes, **common)
            else:
                wrapper.plan(self._offsets, *pages, *sizes, causal=True, **common)
        return wrapper


def _int32(values: np.ndarray[tuple[int], np.dtype[np.int64]]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int32))
