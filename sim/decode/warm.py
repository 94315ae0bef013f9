"""Warming up: the first step differs from all others, as kernels are built and chosen and libraries initialise.

A few steps over the null block before the clock starts keep that out of the measured times: short
ones, and many long ones that run kernel by kernel because no CUDA graph is captured for that many tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sim.decode.batch import Members, Said, packed
from sim.decode.device import finish, moved
from sim.decode.executor import chosen

if TYPE_CHECKING:
    from collections.abc import Container

    from sim.decode.attention import AttentionBackend
    from sim.decode.batch import Batch
    from sim.decode.lanes import Ints
    from sim.decode.model import Decoder

PROMPT = 8
"""Tokens of the prefill; the null block takes them all, one upon the other."""
TILE = 64
"""Tokens by which prefills beyond those that graphs hold differ.  Libraries choose kernels by how many tiles of tokens
there are, and load them when first used: with an 8B on an H200 that made such steps 4 to 13 ms longer, once each."""


def warm_up(decoder: Decoder, backend: AttentionBackend, width: int, most: int, captured: int) -> None:
    """Run some steps as any other, but that all their K/V goes to the null block.

    Long ones are run once for a model; only the longest again, as memory may have been given back meanwhile.

    Args:
        decoder: the model.
        backend: attends.
        width: of the block table.
        most: new tokens of the longest step; 0 if long ones are not to be run.
        captured: prefill tokens up to which graphs hold steps; 0 if none does.

    """
    alone = [([0], [PROMPT]), ([PROMPT], [1]), ([PROMPT + 1], [1])]
    longer = untried(captured, most, decoder.tried) if decoder.device.type == "cuda" else []
    decoder.tried.update(longer)
    beside = [([PROMPT, 0, 0], [1, count // 2, count - count // 2]) for count in longer]
    tokens = torch.zeros(max([PROMPT, *longer]) + 2, dtype=torch.int64, device=decoder.device)
    with torch.inference_mode():
        for starts, counts in [*alone, *beside]:
            batch = null_batch(np.array(starts), np.array(counts), width, tokens)
            logits = decoder.logits(batch, backend)
            tokens[moved(batch.targets, tokens.device)] = chosen(logits, batch)
    finish(decoder.device)


def untried(captured: int, most: int, tried: Container[int]) -> list[int]:
    """Return the tokens of the long steps to run: one for each number of tiles not tried yet, and the last anyway."""
    longer = range(captured + TILE, most + TILE, TILE)
    return [count for count in longer if count not in tried or count == longer[-1]]


def null_batch(starts: Ints, counts: Ints, width: int, tokens: torch.Tensor) -> Batch:
    """Make a step of some sequences that hold nothing but the null block and all say the same.

    Args:
        starts: int64[s], tokens of each in the cache.
        counts: int64[s], new ones.
        width: of the block table.
        tokens: int64[n], more than the longest of them has.

    """
    none = np.zeros_like(starts)
    table = np.zeros((1, max(width, int((starts + counts).max()))), np.int32)
    return packed(table, 1, tokens, Members(none, none, starts, counts), Said(np.arange(len(starts)), none, none))
