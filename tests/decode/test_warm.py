"""Steps that warm a model up leave nothing behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sim.decode.device import resolve
from sim.decode.model import load
from sim.decode.runtime import longest_step
from sim.decode.store import KVStore
from sim.decode.torch_backend import TorchBackend
from sim.decode.warm import TILE, null_batch, untried, warm_up
from sim.models.geometry import resolve_model
from sim.setup import prepare
from workloads.schema import Workload

CPU = resolve("cpu")


def test_only_the_null_block_is_written_to() -> None:
    geometry = resolve_model("tiny-llama")
    decoder = load("tiny-llama", geometry, CPU, seed=0)
    store = KVStore(geometry, 6, 4, torch.float32, CPU)
    store.blocks[:] = 7.0
    before = store.blocks.clone()
    backend = TorchBackend(store)
    warm_up(decoder, backend, 3, 64, 0)
    batch = null_batch(np.array([8, 0]), np.array([1, 40]), 3, torch.zeros(42, dtype=torch.int64))
    with torch.inference_mode():
        logits = decoder.logits(batch, backend)
    assert logits.shape == (2, geometry.vocab)
    assert batch.contexts.tolist() == [9, 40]
    assert bool((store.blocks == before)[:, :, 1:].all())
    assert not bool((store.blocks == before)[:, :, 0].all())


@pytest.mark.parametrize(
    ("scheduler", "kind", "most"),
    [("vllm-v1", "paged", 300), ("vllm-v0", "growing", 300), ("orca", "paged", 2000), ("vllm-v1", "no-cache", 2000)],
)
def test_what_a_step_computes_at_most(scheduler: str, kind: str, most: int) -> None:
    workload = Workload.model_validate(
        {
            "name": "longest",
            "model": "tiny-llama",
            "device": {"name": "h100-80gb", "kv_memory_gib": 0.1},
            "engine": {"scheduler": scheduler, "max_num_batched_tokens": 300, "max_model_len": 1000},
            "requests": {
                "count": 1,
                "arrivals": {"kind": "batch"},
                "lengths": {"kind": "fixed", "prompt": 1, "output": 1},
            },
            "allocators": [{"kind": kind}],
        }
    )
    case = prepare(workload).cases[0]
    assert longest_step(case, case.allocator()) == most


def test_every_number_of_tiles_that_no_graph_holds_is_tried_once_and_the_longest_each_time() -> None:
    first = untried(1024, 4096, set())
    assert {-(-(count + 1) // TILE) for count in first} >= {-(-tokens // TILE) for tokens in range(1089, 4097)}
    assert min(first) > 1024
    assert max(first) == 4096
    assert untried(1024, 4096, set(first)) == [4096]
    assert untried(0, 4096, set(first)) == [*range(TILE, 1025, TILE), 4096]
    assert untried(4096, 4096, set()) == []
    assert untried(0, TILE + 1, set()) == [TILE, 2 * TILE], "the last tile is not full"
