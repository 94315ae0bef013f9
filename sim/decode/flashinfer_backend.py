"""Paged attention by FlashInfer's kernels, which read K/V where the block table says.

A step of single tokens goes through the decode wrapper, any other through the prefill
wrapper; both attend on tensor cores with the kernel FlashInfer calls `fa2`, which one build
a head size serves.  It computes in fp16 and bf16.  A padded step of decodes has a decode wrapper
for each size, whose buffers stay where they are, so that a CUDA graph may hold its kernel;
that wrapper is planned anew, once, before each replay.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from sim.decode.device import moved
from sim.decode.paged import PagedBackend
from sim.errors import UserError

if TYPE_CHECKING:
    from sim.decode.batch import Batch
    from sim.decode.lanes import Lanes
    from sim.decode.store import KVStore
    from sim.models.geometry import Geometry

WORKSPACE_BYTES = 128 << 20
"""For partial results of split sequences, as FlashInfer recommends; what a padded step needs may be more."""
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


def workspace_bytes(geometry: Geometry, lanes: int) -> int:
    """Bytes for partial results of a padded step: one for each tile of queries that there may be.

    FlashInfer splits every sequence of a step that a CUDA graph may hold, and makes room for as many
    tiles as could come (`PrefillPlan` in flashinfer/attention/scheduler.cuh, 0.5.3).
    """
    group = geometry.heads // geometry.kv_heads
    tile = next(size for size in (16, 64, 128) if group <= size or size == 128)
    tiles = max(-(-lanes * group // tile) + lanes, 512 // geometry.kv_heads)
    return max(WORKSPACE_BYTES, geometry.heads * tiles * tile * (geometry.head_dim + 1) * 4 + (1 << 20))


def build(head_dim: int, window: int | None) -> None:
    """Have FlashInfer build its bf16 kernel for keys of `head_dim`, where it has not been built yet; takes a minute."""
    from flashinfer import BatchPrefillWithPagedKVCacheWrapper  # noqa: PLC0415  an extra, and slow to import

    workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device="cuda")
    one, two = (torch.tensor(values, dtype=torch.int32) for values in ([1], [0, 1]))
    wrapper = BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD", backend="fa2")
    left = -1 if window is None else window - 1
    wrapper.plan(two, two, one, one, 1, 1, head_dim, 16, causal=True, window_left=left, q_data_type=torch.bfloat16)


class Which(NamedTuple):
    """Names a wrapper: it holds one plan, for layers that attend alike."""

    lanes: int
    """Lanes of a padded step of decodes, or PREFILL or SINGLES."""
    window: int | None
    scale: float


PREFILL, SINGLES = -1, 0


class FlashInferBackend(PagedBackend):
    """Keeps K/V in a `KVStore` and attends with FlashInfer."""

    name = "flashinfer"
    capturable = True

    def __init__(self, store: KVStore, geometry: Geometry, lanes: int = 0, lane_blocks: int = 0) -> None:
        """Attend over `store`.

        Args:
            store: the K/V.
            geometry: of the model.
            lanes: most lanes of a padded step, 0 if there are none.
            lane_blocks: most blocks of a lane.

        Raises:
            UserError: FlashInfer cannot be used.

        """
        super().__init__(store)
        device = store.blocks.device
        if why := obstacle(geometry, device):
            raise UserError(f"--backend flashinfer: {why}; use --backend torch")
        from flashinfer import (  # noqa: PLC0415  an extra, and slow to import
            BatchDecodeWithPagedKVCacheWrapper,
            BatchPrefillWithPagedKVCacheWrapper,
        )

        self._geometry = geometry
        workspace = torch.zeros(workspace_bytes(geometry, lanes), dtype=torch.uint8, device=device)
        self._make_decode = partial(BatchDecodeWithPagedKVCacheWrapper, workspace, "NHD", use_tensor_cores=True)
        self._make_prefill = partial(BatchPrefillWithPagedKVCacheWrapper, workspace, "NHD", backend="fa2")
        self._wrappers: dict[Which, Any] = {}
        self._planned: set[Which] = set()
        self._kind = SINGLES
        self._queries = self._offsets = self._pages = self._last = torch.zeros(0, dtype=torch.int32)
        self._lane_offsets, self._lane_pages, self._lane_last = (
            torch.zeros(length, dtype=torch.int32, device=device) for length in (lanes + 1, lanes * lane_blocks, lanes)
        )
        self._copied: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]  # PyTorch's own is not annotated

    def plan(self, batch: Batch) -> None:
        """List the pages of every sequence, one after the other."""
        size, contexts = self.store.block_size, batch.contexts
        counts = -(-contexts // size)
        offsets = np.concatenate([[0], counts.cumsum()])
        owner = np.repeat(np.arange(len(counts)), counts)
        columns = np.arange(offsets[-1]) - offsets[:-1][owner]
        cells = moved(np.stack([batch.rows[owner], columns]), batch.table.device)
        self._pages = batch.table[cells[0], cells[1]]
        self.slots = batch.slots
        self._kind = SINGLES if (batch.counts == 1).all() else PREFILL
        self._queries = _int32(batch.offsets)
        self._offsets = _int32(offsets)
        self._last = _int32((contexts - 1) % size + 1)
        self._planned.clear()

    def plan_lanes(self, lanes: Lanes, slots: torch.Tensor) -> None:
        """See `PagedBackend.plan_lanes`; plans every wrapper that steps of this size have used so far."""
        self._copied.synchronize()  # a plan is copied from pinned memory, which the next one writes to
        offsets, blocks, last = (torch.from_numpy(part).pin_memory() for part in lanes.pages)
        self._lane_pages[: len(blocks)].copy_(blocks, non_blocking=True)
        self._offsets, self._pages, self._last = offsets, self._lane_pages[: len(blocks)], last
        self.slots, self._kind = slots, lanes.size
        self._planned.clear()
        for which in [which for which in self._wrappers if which.lanes == lanes.size]:
            self._wrapper(which)
        self._copied.record()

    def read(self, layer: int, query: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        """See `PagedBackend.read`."""
        wrapper = self._wrapper(Which(self._kind, window, scale))
        output: torch.Tensor = wrapper.run(query.contiguous(), self.store.layer(layer))  # so will the output be
        return output

    def _wrapper(self, which: Which) -> Any:
        """Return a wrapper planned for this step."""
        if which not in self._wrappers:
            self._wrappers[which] = self._make(which.lanes)
        wrapper = self._wrappers[which]
        if which not in self._planned:
            self._planned.add(which)
            geometry, kind = self._geometry, self.store.blocks.dtype
            queries = (self._queries,) if which.lanes == PREFILL else ()
            wrapper.plan(
                *queries,
                self._offsets,
                self._pages,
                self._last,
                geometry.heads,
                geometry.kv_heads,
                geometry.head_dim,
                self.store.block_size,
                window_left=-1 if which.window is None else which.window - 1,
                sm_scale=which.scale,
                q_data_type=kind,
                kv_data_type=kind,
                **({"causal": True} if which.lanes == PREFILL else {}),
            )
        return wrapper

    def _make(self, lanes: int) -> Any:
        if lanes == PREFILL:
            return self._make_prefill()
        if lanes == SINGLES:
            return self._make_decode()
        return self._make_decode(
            use_cuda_graph=True,
            paged_kv_indptr_buffer=self._lane_offsets[: lanes + 1],
            paged_kv_indices_buffer=self._lane_pages,
            paged_kv_last_page_len_buffer=self._lane_last[:lanes],
        )


def _int32(values: np.ndarray[tuple[int], np.dtype[np.int64]]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int32)).pin_memory()
