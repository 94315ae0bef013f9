"""The first step is not like the others: kernels are built and chosen, libraries wake up.

A few steps over the null block before the clock starts keep that out of the measured times: short
ones, and such as are launched kernel by kernel because no CUDA graph is captured for as many tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sim.decode.batch import Batch
from sim.decode.device import finish
from sim.shapes import MIXED_TOKENS

if TYPE_CHECKING:
    from sim.decode.attention import AttentionBackend
    from sim.decode.model import Decoder

PROMPT = 8
"""Tokens of the prefill; the null block takes them all, one upon the other."""
LONGER = tuple(MIXED_TOKENS[-1] * share // 4 for share in (5, 6, 8))
"""Tokens of prefills that no graph is captured for: others begin with other kernels."""


def warm_up(decoder: Decoder, backend: AttentionBackend, width: int, longest: int) -> None:
    """Run prefills and two decodes whose K/V goes to the null block.

    Args:
        decoder: the model.
        backend: attends.
        width: of the block table.
        longest: tokens of the longest sequence.

    """
    longer = [count for count in LONGER if count <= longest and decoder.device.type == "cuda"]
    with torch.inference_mode():
        for start, count in ((0, PROMPT), (PROMPT, 1), (PROMPT + 1, 1), *((0, count) for count in longer)):
            decoder.logits(null_batch(decoder.device, start, count, width), backend)
    finish(decoder.device)


def null_batch(device: torch.device, start: int, count: int, width: int) -> Batch:
    """Make a step of one sequence, `start` tokens long, that holds nothing but the null block."""
    positions = torch.arange(start, start + count, device=device)
    return Batch(
        rows=np.zeros(1, np.int64),
        names=np.full(1, -1, np.int64),
        starts=np.array([start]),
        counts=np.array([count]),
        offsets=np.array([0, count]),
        forks=(),
        picks=np.zeros(0, np.int64),
        ranks=np.zeros(0, np.int64),
        targets=np.zeros(0, np.int64),
        ids=torch.zeros_like(positions),
        positions=positions,
        keep=torch.zeros(1, dtype=torch.int64, device=device),
        table=torch.zeros((1, max(width, start + count)), dtype=torch.int32, device=device),
        slots=torch.zeros(count, dtype=torch.int64, device=device),
    )
