"""How a Hugging Face model is made to attend to the simulator's K/V.

transformers lets an attention function be registered by name; every attention layer then
calls it with the queries, keys and values of the packed batch.  Ours looks up the backend
bound to the layer and delegates to it.  Falcon's attention does not use that interface, so
its layers get a forward pass of their own that does the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.models.falcon.modeling_falcon import FalconAttention, apply_rotary_pos_emb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.decode.batch import Batch

NAME = "kvsim_paged"
"""What the attention function is called in a model's config."""


class AttentionBackend(Protocol):
    """Keeps the K/V of all layers and attends over it."""

    name: str

    def plan(self, batch: Batch) -> None:
        """Prepare for a step; called once, before any layer attends."""

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        window: int | None,
    ) -> torch.Tensor:
        """Store the new K/V of one layer, then attend.

        Args:
            layer: index from 0.
            query: [tokens, heads, head_dim], the packed batch.
            key: [tokens, kv_heads, head_dim], positions already applied.
            value: likewise.
            scale: of the scores.
            window: tokens a token attends to, itself included; None for all before it.

        Returns:
            [tokens, heads, head_dim]

        """


class Binding:
    """The backend of a model's layers at this moment, shared by all of them."""

    def __init__(self) -> None:
        """Bind nothing yet."""
        self.backend: AttentionBackend | None = None

    def attend(self, module: nn.Module, *states: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        """Attend for one layer; `states` are [1, heads, tokens, head_dim], the result [1, tokens, heads, head_dim]."""
        if self.backend is None:
            raise RuntimeError("the model runs a paged step, but no backend is bound to it")
        query, key, value = (state[0].transpose(0, 1) for state in states)
        return self.backend.attend(_layer_of(module), query, key, value, scale, window)[None]


def _layer_of(module: nn.Module) -> int:
    return int(getattr(module, "layer_idx"))  # noqa: B009  nn.Module types plain attributes as tensors or modules


def bind(model: nn.Module) -> Binding:
    """Give every attention layer of a model one binding, and Falcon's layers a forward pass that uses it."""
    binding = Binding()
    for module in attention_layers(model):
        module.kvsim_binding = binding  # type: ignore[assignment]  # nn.Module accepts any attribute
        if isinstance(module, FalconAttention):
            module.forward = _FalconForward(module, binding)
    return binding


def attention_layers(model: nn.Module) -> Iterator[nn.Module]:
    """All attention layers of a model."""
    return (
        module for module in model.modules() if "Attention" in type(module).__name__ and hasattr(module, "layer_idx")
    )


def paged_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001  the interface passes one, but never makes one for us
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers asks (see `transformers.AttentionInterface`); there are no attention weights to return."""
    binding: Binding = module.kvsim_binding  # type: ignore[assignment]  # set by `bind`
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return binding.attend(module, query, key, value, scale=scale, window=sliding_window), None


AttentionInterface.register(NAME, paged_attention)


class _FalconForward:
    """FalconAttention.forward for paged steps; any other step goes the way it went before."""

    def __init__(self, module: FalconAttention, binding: Binding) -> None:
        self._module = module
        self._binding = binding
        self._before = module.forward

    def __call__(self, hidden_states: torch.Tensor, **given: Any) -> Any:
        module = self._module
        if module.config._attn_implementation != NAME:  # noqa: SLF001  transformers' own way to ask
            return self._before(hidden_states, **given)
        query, key, value = self._split(module.query_key_value(hidden_states))
        cos, sin = given["position_embeddings"]
        query, key = apply_rotary_pos_emb(query, key, cos, sin)
        output = self._binding.attend(module, query, key, value, scale=module.head_dim**-0.5, window=None)
        return module.dense(output.flatten(2)), None

    def _split(self, fused: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Take queries, keys and values apart, each K/V head once: [1, heads, tokens, head_dim]."""
        module, (batch, tokens, _) = self._module, fused.shape
        if module.new_decoder_architecture:  # groups of query heads, each followed by its key and its value
            parts = fused.view(batch, tokens, module.num_kv_heads, -1, module.head_dim)
            split = parts[..., :-2, :].flatten(2, 3), parts[..., -2, :], parts[..., -1, :]
        elif module.multi_query:
            parts = fused.view(batch, tokens, -1, module.head_dim)
            split = parts[..., :-2, :], parts[..., -2:-1, :], parts[..., -1:, :]
        else:
            parts = fused.view(batch, tokens, module.num_heads, 3, module.head_dim)
            split = parts[..., 0, :], parts[..., 1, :], parts[..., 2, :]
        return tuple(part.transpose(1, 2) for part in split)
