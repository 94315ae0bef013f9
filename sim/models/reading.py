"""Reading a config.json: the `Architecture` that it describes, with what its family leaves unsaid.

transformers itself is never imported (it would take seconds for a dozen numbers).  A model type that is
not listed in `sim.models.families` is read as a Llama-like decoder, which its notes say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.models.architecture import Architecture
from sim.models.config import DTYPE_NOTE, Config
from sim.models.families import DEFAULTS, FAMILIES, LLAMA, Family
from sim.models.layers import Attention, Experts, FeedForward, LatentAttention, Layer, Mixer
from sim.models.quantization import Bits, weight_bits
from sim.models.recurrences import recurrence
from workloads.values import shown

if TYPE_CHECKING:
    from collections.abc import Mapping


TOWERS = ("vision_config", "audio_config")
"""What a multimodal config.json says of the encoders beside the language model."""


def read(values: Mapping[str, Any], where: str) -> Architecture:
    """Make an `Architecture` from a config.json.

    Args:
        values: the parsed file.
        where: how to name it in an error.

    Raises:
        UserError: a key is missing or senseless, in one line.

    """
    config = Config(values, where, DEFAULTS)
    family = FAMILIES.get(config.model_type, LLAMA)
    if config.flag("is_encoder_decoder", default=False):
        raise config.error("an encoder-decoder, which also keeps K/V of what it was given; only decoders are simulated")
    hidden, layers, length = config.number("hidden"), config.number("layers"), config.number("length")
    norm = family.norm * hidden
    norms = norm * _norms(config, family)
    kinds = layer_kinds(config, layers)
    sparse = [_is_sparse(config, index) for index in range(layers)]
    mixers = {kind: _mixer(config, family, kind, hidden) for kind in dict.fromkeys(kinds)}
    forwards = {
        part: _experts(config, family) if part else _dense(config, family, hidden) for part in dict.fromkeys(sparse)
    }
    stack = tuple(Layer(mixers[kind], forwards[part], norms) for kind, part in zip(kinds, sparse, strict=True))
    quantization = config.part("quantization_config")
    bits = weight_bits(quantization) if quantization else Bits()
    unknown = f"model type {config.model_type or 'unnamed'} is not listed: read as a Llama-like decoder"
    notes = (
        bits.note,
        "" if config.model_type in FAMILIES else unknown,
        "" if "dtype" in config else DTYPE_NOTE,
        *(f"the language model only: the weights of {key} are not counted" for key in TOWERS if values.get(key)),
    )
    return Architecture(
        model_type=config.model_type,
        hidden=hidden,
        vocab=config.number("vocab"),
        max_model_len=length,
        stack=stack,
        tied_embeddings=config.flag("tie_word_embeddings", default=False),
        dtype=config.dtype(),
        final_norm=norm if config.flag("do_layer_norm_before", default=True) else 0,
        embedding_dim=config.number("word_embed_proj_dim", hidden),
        position_rows=0 if family.positions is None else length + family.positions,
        head_bias=family.head_bias,
        dense_bits=bits.dense,
        routed_bits=bits.routed,
        compute_dtype=bits.compute or config.dtype(),
        notes=tuple(filter(None, notes)),
    )


def layer_kinds(config: Config, layers: int) -> list[str]:
    """Name each layer's mixer: `full`, `sliding` or `state`.  Raises UserError."""
    kinds = config.strings("layer_types", layers)
    if kinds is not None:
        return [_kind(config, name) for name in kinds]
    numbers = range(layers)
    if "attention_chunk_size" in config:
        return ["sliding" if chunked else "full" for chunked in _chunked(config, layers)]
    if "attn_layer_period" in config or "attn_layer_indices" in config:
        period, offset = config.number("attn_layer_period", layers), config.count("attn_layer_offset", layers)
        attention = config.numbers("attn_layer_indices")
        return ["full" if index % period == offset or index in attention else "state" for index in numbers]
    period = FAMILIES.get(config.model_type, LLAMA).period
    if period:
        period = config.number("full_attention_interval", config.number("sliding_window_pattern", period))
        other = "state" if "linear_num_value_heads" in config else "sliding"
        return ["full" if (index + 1) % period == 0 else other for index in numbers]
    return ["full" if index < _first_sliding(config, layers) else "sliding" for index in numbers]


def _chunked(config: Config, layers: int) -> list[bool]:
    """Whether each layer attends in chunks (Llama 4): those with rotary positions do, every fourth has none."""
    rotary = config.numbers("no_rope_layers")
    if rotary and len(rotary) != layers:
        raise config.error(f"no_rope_layers: wanted a list of {layers} numbers, one a layer")
    interval = config.number("no_rope_layer_interval", 4)
    return [bool(each) for each in rotary] or [(index + 1) % interval != 0 for index in range(layers)]


def _first_sliding(config: Config, layers: int) -> int:
    if not config.count("sliding_window", 0) or not config.flag("use_sliding_window", default=True):
        return layers
    return config.count("max_window_layers", layers) if config.model_type.startswith("qwen") else 0


def _kind(config: Config, name: str) -> str:
    kinds = {
        "full_attention": "full",
        "attention": "full",
        "sliding_attention": "sliding",
        "chunked_attention": "sliding",
        "linear_attention": "state",
        "mamba": "state",
    }
    if name not in kinds:
        raise config.error(f"layer_types: {shown(name)} is none of {', '.join(kinds)}")
    return kinds[name]


def _mixer(config: Config, family: Family, kind: str, hidden: int) -> Mixer:
    if kind == "state":
        return recurrence(config, hidden)
    heads = config.number("heads")
    if "kv_lora_rank" in config:
        return LatentAttention(
            heads,
            config.number("kv_lora_rank"),
            config.number("q_lora_rank") if "q_lora_rank" in config else None,
            config.number("qk_nope_head_dim"),
            config.number("qk_rope_head_dim"),
            config.number("v_head_dim"),
        )
    if "head_dim" not in config and hidden % heads:
        raise config.error(f"head_dim is missing, and {heads} heads do not divide the hidden size {hidden}")
    head_dim = config.number("head_dim", hidden // heads)
    kv_heads = _kv_heads(config, heads)
    bias = _bias(config, family, "attention_bias")
    norms = family.head_norms * head_dim + (heads + kv_heads) * head_dim * family.whole_norms
    return Attention(
        heads,
        kv_heads,
        head_dim,
        window=_window(config) if kind == "sliding" else None,
        qkv_bias=bias or family.qkv_bias,
        out_bias=bias,
        gated=family.gated_attention,
        extra=norms + heads * family.sinks,
    )


def _bias(config: Config, family: Family, key: str) -> bool:
    """Whether projections have biases: `key`, or what the config says of all biases, or the family's habit."""
    found = next((name for name in (key, "bias", "use_bias", "enable_bias") if name in config), key)
    return config.flag(found, default=family.bias)


def _window(config: Config) -> int:
    """Tokens a sliding layer sees; Llama 4's chunks are counted as if they slid."""
    return config.number("attention_chunk_size" if "attention_chunk_size" in config else "sliding_window")


def _kv_heads(config: Config, heads: int) -> int:
    if "multi_query" in config and not config.flag("new_decoder_architecture", default=False):
        return 1 if config.flag("multi_query", default=False) else heads
    kv_heads = config.number("kv_heads", heads)
    if heads % kv_heads:
        raise config.error(f"{heads} attention heads are no multiple of {kv_heads} key-value heads")
    return kv_heads


def _norms(config: Config, family: Family) -> int:
    if config.model_type == "falcon":
        new = config.flag("new_decoder_architecture", default=False)
        shared = config.number("num_ln_in_parallel_attn", 2 if new else 1) == 1
        return 1 if shared and config.flag("parallel_attn", default=True) else 2
    return family.norms


def _dense(config: Config, family: Family, hidden: int) -> FeedForward:
    name = "intermediate_size_mlp" if "intermediate_size_mlp" in config else "width"
    if config.model_type == "granitemoehybrid":
        name = "shared_intermediate_size"
    width = config.number(name, family.width * hidden or None)
    return FeedForward(width, family.gated, _bias(config, family, "mlp_bias"))


def _experts(config: Config, family: Family) -> Experts:
    width = config.number("moe_intermediate_size" if "moe_intermediate_size" in config else "width")
    shared = _shared_width(config, width)
    return Experts(
        config.number("experts"),
        config.number("active"),
        FeedForward(width, bias=family.moe_bias),
        FeedForward(shared) if shared else None,
        shared_gate=family.shared_gate,
        router_bias=family.router_bias or family.moe_bias,
    )


def _shared_width(config: Config, width: int) -> int:
    if config.model_type == "llama4_text":
        return width
    for key in ("shared_expert_intermediate_size", "shared_intermediate_size"):
        if key in config:
            return config.count(key)
    return config.count("n_shared_experts", 0) * width


def _is_sparse(config: Config, index: int) -> bool:
    """Whether layer `index` has experts."""
    if not config.count("experts", 0):
        return False
    if index < config.count("first_k_dense_replace", 0) or index in config.numbers("mlp_only_layers"):
        return False
    if "expert_layer_period" in config:
        return index % config.number("expert_layer_period") == config.count("expert_layer_offset", 0)
    step = next(
        (key for key in ("decoder_sparse_step", "interleave_moe_layer_step") if key in config), "moe_layer_freq"
    )
    return (index + 1) % config.number(step, 1) == 0
