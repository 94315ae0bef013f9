"""Reading a Hugging Face config.json by hand: which key means what, in which family of models.

transformers itself is never imported (seconds of start-up for a dozen numbers).  A family is
what its config does not say: names of keys, defaults, which biases and norms it has.  A model
type that is not listed is read as a Llama-like decoder and says so in its notes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sim.architecture import Architecture
from sim.errors import UserError
from sim.layers import Attention, Experts, FeedForward, LatentAttention, Layer, Mixer

if TYPE_CHECKING:
    from collections.abc import Mapping

DTYPES = {
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "fp32": "fp32",
    "fp16": "fp16",
    "bf16": "bf16",
    "float": "fp32",
    "half": "fp16",
}

KEYS = {
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "heads": ("num_attention_heads", "n_head"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "head_dim": ("head_dim",),
    "width": ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"),
    "length": ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"),
    "vocab": ("vocab_size",),
}
"""Our names and what configs call them; the first one found counts."""


@dataclass(frozen=True)
class Family:
    """What a config of some model type leaves unsaid."""

    gated: bool = True
    """Feed-forward with a gate (SwiGLU, GeGLU)."""
    norm: int = 1
    """Vectors a norm: 1 for RMSNorm, 2 for LayerNorm."""
    norms: int = 2
    """Norms a layer."""
    qkv_bias: bool = False
    bias: bool = False
    """Biases everywhere else (output projection, feed-forward)."""
    qk_norm: bool = False
    """Query and key norms of head_dim each."""
    positions: int | None = None
    """Learned positions: rows beyond the length of the context; None for rotary or none."""
    tied: bool = False
    """Default of tie_word_embeddings."""
    width: int = 0
    """Default feed-forward width as a multiple of the hidden size, 0 for none."""
    length: int = 0
    """Default length of the context, where configs do not say."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Values of transformers' config class that published configs leave out."""


LLAMA = Family()
GPT2 = Family(gated=False, norm=2, qkv_bias=True, bias=True, positions=0, tied=True, width=4)
FAMILIES: Mapping[str, Family] = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "mixtral": LLAMA,
    "gpt2": GPT2,
    "gpt_bigcode": GPT2,
    "opt": replace(GPT2, positions=2),
    "falcon": Family(gated=False, norm=2, norms=1, tied=True, width=4, length=2048),
    "qwen2": Family(qkv_bias=True),
    "qwen3": Family(qk_norm=True),
    "deepseek_v2": LLAMA,
    "deepseek_v3": LLAMA,
}


class Config:
    """A config.json and where it came from, asked by our names."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        """Read `values`, the text part of a multimodal model; `where` begins every complaint."""
        nested = values.get("text_config")
        if isinstance(nested, dict):
            outer = {key: values[key] for key in ("dtype", "torch_dtype", "quantization_config") if key in values}
            values = {**outer, **nested}
        self.where = where
        self.model_type = str(values.get("model_type", ""))
        self.family = FAMILIES.get(self.model_type, LLAMA)
        self.values = {**self.family.defaults, **{key: value for key, value in values.items() if value is not None}}

    def number(self, name: str, default: int | None = None) -> int:
        """A positive whole number under any of the keys for `name`.  Raises UserError if absent or wrong."""
        keys = KEYS.get(name, (name,))
        for key in keys:
            if key in self.values:
                value = self.values[key]
                if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                    raise UserError(f"{self.where}: {key}: {value!r} is not a positive whole number")
                return value
        if default is None:
            raise UserError(f"{self.where}: {' or '.join(keys)} is missing (a positive whole number)")
        return default

    def flag(self, key: str, *, default: bool) -> bool:
        """A truth value.  Raises UserError if it is anything else."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise UserError(f"{self.where}: {key}: {value!r} is neither true nor false")
        return value


def read(values: Mapping[str, Any], where: str) -> Architecture:
    """Make an `Architecture` from a config.json.

    Args:
        values: the parsed file.
        where: how to name it in an error.

    Raises:
        UserError: a key is missing or senseless, in one line.

    """
    config = Config(values, where)
    family = config.family
    hidden, layers = config.number("hidden"), config.number("layers")
    length = config.number("length", family.length or None)
    norm = family.norm * hidden
    stack = tuple(
        Layer(_mixer(config, index, hidden), _feed_forward(config, index, hidden), _norms(config) * norm)
        for index in range(layers)
    )
    notes = (
        () if config.model_type in FAMILIES else (f"model type {config.model_type!r} is read as a Llama-like decoder",)
    )
    final = norm if config.flag("do_layer_norm_before", default=True) else 0
    return Architecture(
        model_type=config.model_type,
        hidden=hidden,
        vocab=config.number("vocab"),
        max_model_len=length,
        stack=stack,
        tied_embeddings=config.flag("tie_word_embeddings", default=family.tied),
        dtype=_dtype(config),
        final_norm=final,
        embedding_dim=config.number("word_embed_proj_dim", hidden),
        position_rows=0 if family.positions is None else length + family.positions,
        dense_bits=_quantised_bits(config),
        routed_bits=_quantised_bits(config),
        notes=notes,
    )


def _mixer(config: Config, index: int, hidden: int) -> Mixer:
    family, values = config.family, config.values
    heads = config.number("heads")
    if "kv_lora_rank" in values:
        return LatentAttention(
            heads,
            config.number("kv_lora_rank"),
            config.number("q_lora_rank") if "q_lora_rank" in values else None,
            config.number("qk_nope_head_dim"),
            config.number("qk_rope_head_dim"),
            config.number("v_head_dim"),
        )
    if "head_dim" not in values and hidden % heads:
        raise UserError(f"{config.where}: head_dim is missing and {heads} heads do not divide hidden size {hidden}")
    head_dim = config.number("head_dim", hidden // heads)
    kv_heads = _kv_heads(config, heads)
    bias = config.flag("attention_bias", default=config.flag("bias", default=family.bias))
    return Attention(
        heads,
        kv_heads,
        head_dim,
        window=_window(config, index),
        qkv_bias=bias or family.qkv_bias,
        out_bias=bias,
        extra=2 * head_dim * family.qk_norm,
    )


def _kv_heads(config: Config, heads: int) -> int:
    if config.model_type == "falcon" and not config.flag("new_decoder_architecture", default=False):
        return 1 if config.flag("multi_query", default=True) else heads
    if config.model_type == "gpt_bigcode":
        return 1 if config.flag("multi_query", default=True) else heads
    kv_heads = config.number("kv_heads", heads)
    if heads % kv_heads:
        raise UserError(f"{config.where}: {heads} attention heads are not a multiple of {kv_heads} K/V heads")
    return kv_heads


def _window(config: Config, index: int) -> int | None:
    values = config.values
    types = values.get("layer_types")
    if isinstance(types, list):
        return config.number("sliding_window") if types[index] == "sliding_attention" else None
    if config.model_type in ("mistral", "mixtral") and "sliding_window" in values:
        return config.number("sliding_window")
    return None


def _feed_forward(config: Config, index: int, hidden: int) -> FeedForward | Experts:
    family, values = config.family, config.values
    bias = config.flag("mlp_bias", default=config.flag("bias", default=family.bias))
    dense = FeedForward(config.number("width", family.width * hidden or None), family.gated, bias)
    if "n_routed_experts" in values and index >= int(values.get("first_k_dense_replace", 0)):
        width = config.number("moe_intermediate_size")
        shared = int(values.get("n_shared_experts", 0))
        return Experts(
            config.number("n_routed_experts"),
            config.number("num_experts_per_tok"),
            FeedForward(width),
            FeedForward(width * shared) if shared else None,
            router_bias=config.model_type == "deepseek_v3",
        )
    if "num_local_experts" in values:
        return Experts(config.number("num_local_experts"), config.number("num_experts_per_tok"), dense)
    return dense


def _norms(config: Config) -> int:
    if config.model_type == "falcon":
        parallel = config.flag("parallel_attn", default=True)
        return 2 if config.flag("new_decoder_architecture", default=False) or not parallel else 1
    return config.family.norms


def _dtype(config: Config) -> str:
    name = config.values.get("dtype", config.values.get("torch_dtype", "float32"))
    if name not in DTYPES:
        raise UserError(f"{config.where}: dtype: {name!r} is none of {', '.join(DTYPES)}")
    return DTYPES[str(name)]


def _quantised_bits(config: Config) -> float:
    quantisation = config.values.get("quantization_config")
    if not isinstance(quantisation, dict):
        return 0.0
    if quantisation.get("quant_method") == "fp8":
        return 8.0
    return float(quantisation.get("bits", 0))
