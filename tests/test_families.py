"""Weights counted by hand are exactly those that transformers builds, for every family listed."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from sim.models.config import Config
from sim.models.families import DEFAULTS, FAMILIES
from sim.models.geometry import resolve_model, shipped_models
from sim.models.reading import layer_kinds, read


def build(config: Any) -> int:
    """Count the weights of the model transformers makes of a config, without allocating any."""
    config.quantization_config = None
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    # DeepSeek-V3's correction bias is a buffer there and a weight in the checkpoint.
    biases = (buffer for name, buffer in model.named_buffers() if name.endswith("e_score_correction_bias"))
    tensors = {id(tensor): tensor.numel() for tensor in (*model.parameters(), *biases)}
    return sum(tensors.values())


@pytest.mark.parametrize("name", shipped_models())
def test_a_shipped_geometry_is_the_model_that_transformers_builds(name: str) -> None:
    values = json.loads((resources.files("sim") / "models" / "configs" / f"{name}.json").read_text())
    config = CONFIG_MAPPING[values["model_type"]].from_dict(values)
    assert resolve_model(name).parameters == build(config)


PLAIN = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 128,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
SMALL = {**PLAIN, "num_key_value_heads": 2, "intermediate_size": 96}
BASE = {
    "gpt2": PLAIN,
    "gpt_bigcode": PLAIN,
    "opt": {**PLAIN, "word_embed_proj_dim": 64, "ffn_dim": 256},
    "falcon": PLAIN,
    "gpt_neox": {**PLAIN, "intermediate_size": 96},
}
MOE = {"moe_intermediate_size": 32, "num_experts_per_tok": 2}
MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 2, "mamba_d_state": 16}
MLA = {
    "q_lora_rank": 16,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "n_group": 1,
}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "gpt2": [{}, {"n_inner": 48}],
    "gpt_bigcode": [{}, {"multi_query": False}],
    "opt": [
        {},
        {"word_embed_proj_dim": 32, "ffn_dim": 96, "do_layer_norm_before": False},
        {"enable_bias": False},
    ],
    "gpt_neox": [{}, {"attention_bias": False}],
    "falcon": [
        {},
        {"multi_query": False, "bias": True, "parallel_attn": False},
        {"new_decoder_architecture": True, "num_kv_heads": 2},
        {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
    ],
    "llama": [{}, {"attention_bias": True, "mlp_bias": True}, {"tie_word_embeddings": True, "head_dim": 32}],
    "llama4_text": [{"num_local_experts": 4, "intermediate_size_mlp": 80, "interleave_moe_layer_step": 2}],
    "mixtral": [{"num_local_experts": 4}],
    "starcoder2": [{}, {"use_bias": False}],
    "qwen2_moe": [{**MOE, "num_experts": 4, "shared_expert_intermediate_size": 48, "mlp_only_layers": [1]}],
    "qwen3_moe": [{**MOE, "num_experts": 4, "decoder_sparse_step": 2}],
    "qwen3_next": [{**MOE, "num_experts": 4, "shared_expert_intermediate_size": 48, "linear_num_value_heads": 4}],
    "deepseek_v2": [
        {**MOE, **MLA, "n_routed_experts": 4, "n_shared_experts": 2, "first_k_dense_replace": 1},
        {**MOE, **MLA, "n_routed_experts": 4, "n_shared_experts": 2, "q_lora_rank": None},
    ],
    "deepseek_v3": [{**MOE, **MLA, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 2}],
    "jamba": [
        {"mamba_dt_rank": rank, "num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1}
        for rank in (8, "auto")
    ],
    "bamba": [{**MAMBA2, "attn_layer_indices": [1]}],
    "granitemoehybrid": [
        {**MAMBA2, "num_local_experts": 4, "layer_types": ["mamba", "attention", "mamba", "mamba"]},
        {**MAMBA2, "num_local_experts": 0, "layer_types": ["mamba", "attention", "mamba", "mamba"]},
    ],
    "gpt_oss": [{"num_local_experts": 4}],
    "gemma3_text": [{}, {"sliding_window_pattern": 2}],
}
CASES = [(name, variant) for name in FAMILIES if name in CONFIG_MAPPING for variant in VARIANTS.get(name, [{}])]


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_every_family_counts_what_transformers_builds(name: str, variant: dict[str, Any]) -> None:
    config = CONFIG_MAPPING[name](**{**BASE.get(name, SMALL), **variant})
    values = {key: value for key, value in config.to_dict().items() if key != "dtype"}
    assert read(values, name).parameters == build(config)


def test_layers_that_attend_alike_follow_from_what_configs_say_otherwise() -> None:
    """Published configs are mostly older than `layer_types`, which transformers makes up for them."""
    checked = set()
    for name, variant in CASES:
        if name == "granitemoehybrid":  # whose configs have always said it
            continue
        values = CONFIG_MAPPING[name](**{**BASE.get(name, SMALL), **variant, "num_hidden_layers": 12}).to_dict()
        if kinds := values.pop("layer_types", None):
            said = layer_kinds(Config({"layer_types": kinds}, name, {}), 12)
            assert layer_kinds(Config(values, name, DEFAULTS), 12) == said, name
            checked.add(name)
    assert checked >= {"cohere2", "gemma2", "gemma3_text", "gpt_oss", "llama4_text", "qwen2", "qwen3_next"}


def test_the_rank_of_mamba_s_steps_may_be_left_to_the_width() -> None:
    values = json.loads((resources.files("sim") / "models" / "configs" / "jamba-v0.1.json").read_text())
    assert values["mamba_dt_rank"] == 256
    assert read(values | {"mamba_dt_rank": "auto"}, "jamba") == read(values, "jamba")


def test_only_families_unknown_to_transformers_are_unchecked() -> None:
    assert {name for name in FAMILIES if name not in CONFIG_MAPPING} == {"kimi_k2"}
