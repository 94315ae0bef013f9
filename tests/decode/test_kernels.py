"""The Triton kernels compute what their PyTorch counterparts do: on a GPU, or in Triton's interpreter without one."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
import torch

from sim.decode import elementwise
from sim.decode.elementwise import Angles, HeadNorms

if TYPE_CHECKING:
    from types import ModuleType

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
GPU = torch.cuda.is_available()
DTYPES = [torch.float32, torch.bfloat16] if GPU else [torch.float32]  # the interpreter cuts bf16 off
CLOSE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


@pytest.fixture
def kernels() -> ModuleType:
    return importlib.import_module("sim.decode.kernels")


def drawn(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    rng = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=rng).to(dtype).to("cuda" if GPU else "cpu")


def assert_close(one: torch.Tensor, other: torch.Tensor) -> None:
    assert one.dtype == other.dtype
    error = (one.float() - other.float()).norm() / other.float().norm()
    assert float(error) < CLOSE[one.dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [64, 96, 1000])
@pytest.mark.parametrize("added", [False, True])
def test_norms(kernels: ModuleType, dtype: torch.dtype, width: int, *, added: bool) -> None:
    x, weight = drawn(5, width, dtype=dtype), drawn(width, dtype=dtype)
    residual = drawn(width, 5, dtype=dtype).T.contiguous() if added else None
    for mine, yours in zip(
        kernels.add_rms_norm(x, residual, weight, 1e-5),
        elementwise.add_rms_norm(x, residual, weight, 1e-5),
        strict=True,
    ):
        assert_close(mine, yours)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [96, 1024, 1500])
def test_the_gate(kernels: ModuleType, dtype: torch.dtype, width: int) -> None:
    gate_up = drawn(3, 2 * width, dtype=dtype)
    assert_close(kernels.silu_mul(gate_up), elementwise.silu_mul(gate_up))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(8, 2, 8), (6, 3, 24), (4, 4, 64), (32, 8, 128)])
@pytest.mark.parametrize("normed", [False, True])
def test_positions_and_slots(
    kernels: ModuleType, dtype: torch.dtype, heads: int, kv_heads: int, dim: int, *, normed: bool
) -> None:
    tokens, blocks, size = 4, 5, 4
    qkv = drawn(tokens, (heads + 2 * kv_heads) * dim, dtype=dtype)
    angles = Angles(*drawn(2, tokens, dim // 2, dtype=torch.float32))
    norms = HeadNorms(*drawn(2, dim, dtype=dtype), 1e-6) if normed else None
    slots = torch.tensor([7, 0, 19, 4], device=qkv.device)
    found = []
    for functions in (kernels, elementwise):
        cache = (qkv.new_zeros(blocks, size, kv_heads, dim), qkv.new_zeros(blocks, size, kv_heads, dim))
        found.append([functions.rotate_and_store(qkv, angles, heads, norms, cache, slots), *cache])
    for mine, yours in zip(*found, strict=True):
        assert_close(mine, yours)
        assert torch.equal(mine.abs().sum(-1) == 0, yours.abs().sum(-1) == 0)
