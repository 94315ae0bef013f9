"""Build FlashInfer's attention kernel for one head size: `python -m tests.gpu.build_kernel HEAD_DIM WINDOW_LEFT`."""

from __future__ import annotations

import sys

import torch
from flashinfer import BatchPrefillWithPagedKVCacheWrapper


def main(head_dim: int, window_left: int) -> None:
    """Plan one step, which builds the kernel where it is missing."""
    workspace = torch.empty(1 << 27, dtype=torch.uint8, device="cuda")
    one, two = (torch.tensor(values, dtype=torch.int32) for values in ([1], [0, 1]))
    BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD", backend="fa2").plan(
        two, two, one, one, 1, 1, head_dim, 16, causal=True, window_left=window_left, q_data_type=torch.bfloat16
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
