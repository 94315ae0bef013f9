"""The functions of `sim.decode.elementwise`, each as one Triton kernel.

A decode step of a few tokens is limited by the number of kernels as much as by the bytes they
move: a layer has four of these besides its matrix products and its attention.  All compute in
fp32.  Triton reads the source of a kernel, annotations included, so the kernels have none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from sim.decode.elementwise import Angles, HeadNorms

TILE = 1024
"""Elements a program of `silu_mul` computes."""
HEADS = 8
"""Heads a program of `rotate_and_store` computes."""


@triton.jit
def _add_rms_norm(
    x,
    residual,
    weight,
    normed,
    total,
    width,
    eps,
    block: tl.constexpr,
    add: tl.constexpr,
):
    """One program a token."""
    start = tl.program_id(0).to(tl.int64) * width
    column = tl.arange(0, block)
    inside = column < width
    value = tl.load(x + start + column, mask=inside, other=0.0)
    if add:
        value = value.to(tl.float32) + tl.load(residual + start + column, mask=inside, other=0.0).to(tl.float32)
        value = value.to(total.dtype.element_ty)
        tl.store(total + start + column, value, mask=inside)
    wide = value.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, axis=0) / width + eps)
    scaled = (wide * scale).to(normed.dtype.element_ty).to(tl.float32)
    gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + start + column, (scaled * gain).to(normed.dtype.element_ty), mask=inside)


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `elementwise.add_rms_norm`."""
    tokens, width = x.shape
    add = residual is not None
    normed, total = torch.empty_like(x), torch.empty_like(x) if add else x
    before = residual if residual is not None else x
    block = triton.next_power_of_2(width)
    _add_rms_norm[(tokens,)](x, before, weight, normed, total, width, eps, block=block, add=add, num_warps=8)
    return normed, total


@triton.jit
def _silu_mul(gate_up, out, width, block: tl.constexpr) -> None:
    """A token and a tile of columns a program."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    inside = column < width
    gate = tl.load(gate_up + token * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + token * 2 * width + width + column, mask=inside, other=0.0).to(tl.float32)
    opened = (gate * tl.sigmoid(gate)).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + token * width + column, (opened * up).to(out.dtype.element_ty), mask=inside)


def silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """See `elementwise.silu_mul`."""
    tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty((tokens, width))
    _silu_mul[(tokens, triton.cdiv(width, TILE))](gate_up, out, width, block=TILE)
    return out


@triton.jit
def _rotate_and_store(
    qkv,
    cos,
    sin,
    query_norm,
    key_norm,
    eps,
    slots,
    query,
    keys,
    values,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    half: tl.constexpr,
    block: tl.constexpr,
    group: tl.constexpr,
    norm: tl.constexpr,
):
    """A token and some heads a program: queries, keys and values stand side by side; both halves of each head."""
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * group + tl.arange(0, group)[:, None]
    column = tl.arange(0, block)[None, :]
    inside = (head < heads + 2 * kv_heads) & (column < half)
    source = (token * (heads + 2 * kv_heads) + head) * (2 * half) + column
    first = tl.load(qkv + source, mask=inside, other=0.0)
    second = tl.load(qkv + source + half, mask=inside, other=0.0)
    kind = query.dtype.element_ty
    is_query = head < heads
    is_value = head >= heads + kv_heads
    turned, other = first.to(tl.float32), second.to(tl.float32)
    if norm:
        scale = tl.rsqrt((tl.sum(turned * turned, axis=1) + tl.sum(other * other, axis=1)) / (2 * half) + eps)[:, None]
        is_key = (head >= heads) & (head < heads + kv_heads) & (column < half)
        asked = is_query & (column < half)
        gain = tl.load(query_norm + column + 0 * head, mask=asked, other=0.0).to(tl.float32)
        gain += tl.load(key_norm + column + 0 * head, mask=is_key, other=0.0).to(tl.float32)
        more = tl.load(query_norm + half + column + 0 * head, mask=asked, other=0.0).to(tl.float32)
        more += tl.load(key_norm + half + column + 0 * head, mask=is_key, other=0.0).to(tl.float32)
        turned = ((turned * scale).to(kind).to(tl.float32) * gain).to(kind).to(tl.float32)
        other = ((other * scale).to(kind).to(tl.float32) * more).to(kind).to(tl.float32)
    near = tl.load(cos + token * half + column, mask=column < half, other=0.0)
    far = tl.load(sin + token * half + column, mask=column < half, other=0.0)
    left, right = (turned * near - other * far).to(kind), (other * near + turned * far).to(kind)
    place = (token * heads + head) * (2 * half) + column
    tl.store(query + place, left, mask=inside & is_query)
    tl.store(query + place + half, right, mask=inside & is_query)
    slot = tl.load(slots + token)
    place = (slot * kv_heads + head - heads) * (2 * half) + column
    of_key = inside & (head >= heads) & (head < heads + kv_heads)
    tl.store(keys + place, left, mask=of_key)
    tl.store(keys + place + half, right, mask=of_key)
    place = (slot * kv_heads + head - heads - kv_heads) * (2 * half) + column
    tl.store(values + place, first, mask=inside & is_value)
    tl.store(values + place + half, second, mask=inside & is_value)


def rotate_and_store(
    qkv: torch.Tensor,
    angles: Angles,
    heads: int,
    norms: HeadNorms | None,
    cache: tuple[torch.Tensor, torch.Tensor],
    slots: torch.Tensor,
) -> torch.Tensor:
    """See `elementwise.rotate_and_store`; the cache must be contiguous."""
    keys, values = cache
    kv_heads, head_dim = keys.shape[-2:]
    query = qkv.new_empty((len(qkv), heads, head_dim))
    weights = (norms.query, norms.key, norms.eps) if norms is not None else (qkv, qkv, 0.0)
    _rotate_and_store[(len(qkv), triton.cdiv(heads + 2 * kv_heads, HEADS))](
        qkv,
        *angles,
        *weights,
        slots,
        query,
        keys,
        values,
        heads=heads,
        kv_heads=kv_heads,
        half=head_dim // 2,
        block=triton.next_power_of_2(head_dim // 2),
        group=HEADS,
        norm=norms is not None,
        num_warps=4,
    )
    return query
