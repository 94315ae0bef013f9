"""Steps that warm a model up leave nothing behind."""

from __future__ import annotations

import numpy as np
import torch

from sim.decode.device import resolve
from sim.decode.model import load
from sim.decode.store import KVStore
from sim.decode.torch_backend import TorchBackend
from sim.decode.warm import TILE, null_batch, untried, warm_up
from sim.models.geometry import resolve_model

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


def test_every_number_of_tiles_that_no_graph_holds_is_tried_once_and_the_longest_each_time() -> None:
    first = untried(1024, 4096, set())
    assert {-(-(count + 1) // TILE) for count in first} >= {-(-tokens // TILE) for tokens in range(1089, 4097)}
    assert min(first) > 1024
    assert max(first) == 4096
    assert untried(1024, 4096, set(first)) == [4096]
    assert untried(0, 4096, set(first)) == [*range(TILE, 1025, TILE), 4096]
    assert untried(4096, 4096, set()) == []
