"""The operations between the matrix products of a fused network: norms, rotary positions, the gate.

This version is plain PyTorch: it runs anywhere and defines what must be computed.
`sim.decode.kernels` offers the same functions as one kernel each, for a GPU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn.functional import silu


class HeadNorms(NamedTuple):
    """RMS norms of each query and each key, as Qwen3 has them."""

    query: torch.Tensor
    """[head_dim]: weights."""
    key: torch.Tensor
    """[head_dim]"""
    eps: float


class Angles(NamedTuple):
    """Rotary positions of t tokens."""

    cos: torch.Tensor
    """fp32[t, head_dim / 2]"""
    sin: torch.Tensor
    """fp32[t, head_dim / 2]"""


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Divide by the root mean square over the last axis, in fp32, and weigh."""
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the norm of the sum of `x` and `residual`, [t, hidden] each, and that sum."""
    total = x if residual is None else x + residual
    return rms_norm(total, weight, eps), total


def rotate(
    qkv: torch.Tensor, angles: Angles, heads: int, kv_heads: int, norms: HeadNorms | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Take queries, keys and values apart and give the first two their positions.

    Args:
        qkv: [t, (heads + 2 kv_heads) head_dim], of one fused product.
        angles: of the t tokens.
        heads: of queries.
        kv_heads: of keys, and of values.
        norms: applied before the positions.

    Returns:
        queries [t, heads, head_dim], keys and values [t, kv_heads, head_dim].

    """
    states = qkv.view(len(qkv), heads + 2 * kv_heads, -1)
    query, key, value = torch.split(states, [heads, kv_heads, kv_heads], dim=1)
    if norms is not None:
        query, key = rms_norm(query, norms.query, norms.eps), rms_norm(key, norms.key, norms.eps)
    return _turned(query, angles), _turned(key, angles), value


def _turned(x: torch.Tensor, angles: Angles) -> torch.Tensor:
    cos, sin = (part[:, None] for part in angles)
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


def rotate_and_store(
    qkv: torch.Tensor,
    angles: Angles,
    heads: int,
    norms: HeadNorms | None,
    cache: tuple[torch.Tensor, torch.Tensor],
    slots: torch.Tensor,
) -> torch.Tensor:
    """`rotate`, and put keys and values into a layer's cache; returns the queries.

    Args:
        qkv: as in `rotate`.
        angles: likewise.
        heads: likewise.
        norms: likewise.
        cache: keys and values of all blocks, [blocks, block_size, kv_heads, head_dim] each; changed in `slots`.
        slots: int64[t]: block id x block_size + offset.

    """
    query, *states = rotate(qkv, angles, heads, cache[0].shape[-2], norms)
    for blocks, new in zip(cache, states, strict=True):
        blocks.flatten(0, 1).index_copy_(0, slots, new)
    return query


def silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """Return silu(gate) * up of [t, 2 intermediate], the gate first."""
    gate, up = gate_up.chunk(2, dim=-1)
    return silu(gate) * up
