"""Families of models: what a config.json does not say of its model type.

A family defines which biases and norms its layers have and what its configs may leave out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Family:
    """What configs of some model types leave unsaid."""

    gated: bool = True
    """The feed-forward part has a gate (SwiGLU, GeGLU)."""
    norm: int = 1
    """Vectors a norm has: 1 for RMSNorm, 2 for LayerNorm with a bias."""
    norms: int = 2
    """Norms a layer."""
    qkv_bias: bool = False
    """Biases of query, key and value projections, whatever the config says of others."""
    bias: bool = False
    """Biases of all projections, where the config does not say."""
    head_norms: int = 0
    """Weights of query and key norms, in units of head_dim."""
    whole_norms: bool = False
    """Query and key norms over all heads together (OLMo 2)."""
    sinks: bool = False
    """An attention sink a head (gpt-oss)."""
    gated_attention: bool = False
    """The query projection also makes a gate for the output."""
    positions: int | None = None
    """Rows of learned positions beyond the length of the context; None without learned positions."""
    head_bias: bool = False
    """The output matrix has a bias."""
    width: int = 0
    """Feed-forward width as a multiple of hidden, where the config does not say."""
    period: int = 0
    """One of every `period` layers has full attention, the others are sliding or recurrent; 0 if all are alike."""
    moe_bias: bool = False
    """Router and experts have biases (gpt-oss)."""
    router_bias: bool = False
    """The router has a correction bias (DeepSeek-V3)."""
    shared_gate: bool = False
    """The shared expert has a gate."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What transformers assumes where published configs are silent."""


TIED = {"tie_word_embeddings": True}
LLAMA = Family()
GPT2 = Family(gated=False, norm=2, bias=True, positions=0, width=4, defaults=TIED)
GEMMA = Family(norms=4, defaults={**TIED, "head_dim": 256})
GEMMA3 = replace(
    GEMMA,
    head_norms=2,
    period=6,
    defaults={
        **GEMMA.defaults,
        "vocab_size": 262208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
)
FAMILIES: Mapping[str, Family] = {
    "gpt2": GPT2,
    "gpt_bigcode": replace(GPT2, defaults={**TIED, "multi_query": True}),
    "opt": replace(GPT2, positions=2),
    "gpt_neox": Family(gated=False, norm=2, bias=True),
    "phi": Family(gated=False, norm=2, norms=1, bias=True, head_bias=True),
    "falcon": Family(
        gated=False,
        norm=2,
        width=4,
        defaults={**TIED, "multi_query": True, "parallel_attn": True, "max_position_embeddings": 2048},
    ),
    "starcoder2": Family(gated=False, norm=2, bias=True, defaults=TIED),
    "llama": LLAMA,
    "llama4_text": Family(defaults={"head_dim": 128}),
    "mistral": LLAMA,
    "mixtral": LLAMA,
    "phi3": LLAMA,
    "granite": LLAMA,
    "olmo2": Family(whole_norms=True),
    "cohere2": Family(norms=1, period=4, defaults=TIED),
    "qwen2": Family(qkv_bias=True),
    "qwen2_moe": Family(qkv_bias=True, shared_gate=True),
    "qwen3": Family(head_norms=2, defaults={"head_dim": 128}),
    "qwen3_moe": Family(head_norms=2),
    "qwen3_next": Family(head_norms=2, period=4, gated_attention=True, shared_gate=True),
    "gemma": replace(GEMMA, norms=2),
    "gemma2": replace(GEMMA, period=2, defaults={**GEMMA.defaults, "sliding_window": 4096}),
    "gemma3_text": GEMMA3,
    "gpt_oss": Family(period=2, sinks=True, moe_bias=True, defaults={"attention_bias": True}),
    "deepseek_v2": LLAMA,
    "deepseek_v3": Family(router_bias=True),
    "kimi_k2": Family(router_bias=True),
    "jamba": LLAMA,
    "bamba": LLAMA,
    "granitemoehybrid": LLAMA,
}
DEFAULTS = {name: family.defaults for name, family in FAMILIES.items()}
