"""The Llama family with fused products: one for queries, keys and values, one for gate and up.

The network is built from a transformers model and shares its weights: the fused matrix takes the
place of the model's own, which become views of it, so nothing is held twice and the model remains
the reference.  Between the products are the functions of `sim.decode.elementwise`, or on a GPU
their kernels.  Nothing here waits for the device, so a CUDA graph can hold all of it.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.functional import embedding, linear

from sim.decode import elementwise
from sim.decode.elementwise import Angles, HeadNorms
from sim.decode.paged import PagedBackend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from sim.decode.attention import AttentionBackend

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose layers are the ones below."""
ROPES = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings whose frequencies do not hang on the length of the sequence."""


class Layer(NamedTuple):
    """Weights of one layer, shared with the transformers model."""

    input_norm: torch.Tensor
    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None
    head_norms: HeadNorms | None
    window: int | None
    scale: float
    output: torch.Tensor
    output_bias: torch.Tensor | None
    middle_norm: torch.Tensor
    gate_up: torch.Tensor
    gate_up_bias: torch.Tensor | None
    down: torch.Tensor
    down_bias: torch.Tensor | None


def fusible(network: PreTrainedModel) -> bool:
    """Whether a transformers model is one that `FusedNetwork` computes."""
    config = network.config
    rope = getattr(config, "rope_parameters", None) or {}
    return config.model_type in FAMILIES and config.hidden_act == "silu" and rope.get("rope_type", "default") in ROPES


class FusedNetwork:
    """A decoder of the Llama family over packed tokens."""

    def __init__(self, network: PreTrainedModel) -> None:
        """Fuse the weights of `network`, in place."""
        config = network.config
        self._network = network
        self._heads, self._kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._eps = config.rms_norm_eps
        self._rotary: Any = network.model.rotary_emb
        self._layers = [_layer(each, config) for each in network.model.layers]
        weight: torch.Tensor = network.model.embed_tokens.weight
        on_gpu = weight.device.type == "cuda" and find_spec("triton") is not None
        self._functions: Any = elementwise
        if on_gpu:
            from sim.decode import kernels  # noqa: PLC0415  Triton is there where torch has CUDA

            self._functions = kernels

    def logits(
        self, ids: torch.Tensor, positions: torch.Tensor, keep: torch.Tensor | None, backend: AttentionBackend
    ) -> torch.Tensor:
        """Compute one step.

        Args:
            ids: int64[t], the packed tokens.
            positions: int64[t]
            keep: int64[n], the places whose logits are wanted; all if None.
            backend: attends; planned for these tokens.

        Returns:
            [n, vocab]

        """
        network, eps, norm = self._network, self._eps, self._functions.add_rms_norm
        x = embedding(ids, network.model.embed_tokens.weight)
        angles, residual = self._angles(positions), None
        for index, layer in enumerate(self._layers):
            x, residual = norm(x, residual, layer.input_norm, eps)
            x = self._attend(index, layer, linear(x, layer.qkv, layer.qkv_bias), angles, backend)
            x = linear(x.flatten(1), layer.output, layer.output_bias)
            x, residual = norm(x, residual, layer.middle_norm, eps)
            x = self._functions.silu_mul(linear(x, layer.gate_up, layer.gate_up_bias))
            x = linear(x, layer.down, layer.down_bias)
        x, _ = norm(x, residual, network.model.norm.weight, eps)
        return linear(x if keep is None else x[keep], network.lm_head.weight)

    def settle(self) -> None:
        """Multiply two rows of nothing by the matrix with the longest inner dimension, and forget the result."""
        down = self._layers[0].down
        linear(down.new_zeros(2, down.shape[1]), down)

    def _attend(
        self, index: int, layer: Layer, qkv: torch.Tensor, angles: Angles, backend: AttentionBackend
    ) -> torch.Tensor:
        """Let one layer attend: [t, heads, head_dim]."""
        if isinstance(backend, PagedBackend):
            cache = backend.store.layer(index)
            query = self._functions.rotate_and_store(qkv, angles, self._heads, layer.head_norms, cache, backend.slots)
            return backend.read(index, query, layer.scale, layer.window)
        states = elementwise.rotate(qkv, angles, self._heads, self._kv_heads, layer.head_norms)
        return backend.attend(index, *states, layer.scale, layer.window)

    def _angles(self, positions: torch.Tensor) -> Angles:
        """Rotary positions, as transformers computes them."""
        turns = positions[:, None].float() * self._rotary.inv_freq.float()
        return Angles(turns.cos() * self._rotary.attention_scaling, turns.sin() * self._rotary.attention_scaling)


def _layer(layer: Any, config: Any) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    qkv, qkv_bias = _fuse([attention.q_proj, attention.k_proj, attention.v_proj])
    gate_up, gate_up_bias = _fuse([mlp.gate_proj, mlp.up_proj])
    norms = None
    if hasattr(attention, "q_norm"):
        norms = HeadNorms(attention.q_norm.weight, attention.k_norm.weight, config.rms_norm_eps)
    window = (
        attention.sliding_window if hasattr(attention, "sliding_window") else getattr(config, "sliding_window", None)
    )
    return Layer(
        layer.input_layernorm.weight,
        qkv,
        qkv_bias,
        norms,
        window,
        attention.scaling,
        attention.o_proj.weight,
        attention.o_proj.bias,
        layer.post_attention_layernorm.weight,
        gate_up,
        gate_up_bias,
        mlp.down_proj.weight,
        mlp.down_proj.bias,
    )


def _fuse(projections: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Lay the matrices of several projections of one input below one another; theirs become views."""
    with torch.no_grad():
        weight = torch.cat([each.weight for each in projections])
        biased = projections[0].bias is not None
        bias = torch.cat([each.bias for each in projections]) if biased else None
    sizes = [len(each.weight) for each in projections]
    for each, part in zip(projections, torch.split(weight, sizes), strict=True):
        each.weight.data = part
    if bias is not None:
        for each, part in zip(projections, torch.split(bias, sizes), strict=True):
            each.bias.data = part
    return weight, bias
