"""Geometries that are read from a config.json, as models come with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sim.errors import UserError
from sim.models.config import DTYPE_NOTE, FP32_NOTE
from sim.models.geometry import Geometry, resolve_model


def write(folder: Path, values: object) -> str:
    (folder / "config.json").write_text(values if isinstance(values, str) else json.dumps(values))
    return "config.json"


def of(folder: Path, **values: object) -> Geometry:
    return resolve_model("./" + write(folder, values), folder)


LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "intermediate_size": 128,
    "vocab_size": 100,
    "max_position_embeddings": 256,
    "torch_dtype": "bfloat16",
}


def test_a_config_is_found_by_path_and_by_folder(tmp_path: Path) -> None:
    write(tmp_path, LLAMA)
    for spec in ("config.json", str(tmp_path), str(tmp_path / "config.json")):
        geometry = resolve_model(spec, tmp_path)
        assert (geometry.layers, geometry.heads, geometry.kv_heads, geometry.head_dim) == (2, 8, 8, 8)
        assert geometry.kv_bytes_per_token == 2 * 2 * 64 * 2


def test_head_dim_and_kv_heads_fall_back(tmp_path: Path) -> None:
    assert of(tmp_path, **LLAMA, num_key_value_heads=None, head_dim=None).kv_bytes_per_token == 512
    assert of(tmp_path, **LLAMA, num_key_value_heads=2).kv_bytes_per_token == 128
    assert of(tmp_path, **LLAMA, head_dim=32).kv_bytes_per_token == 2048


def test_a_text_model_inside_a_multimodal_one(tmp_path: Path) -> None:
    # As google/gemma-3-4b-it is published: almost everything is left to transformers' defaults.
    text = {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "sliding_window": 1024,
    }
    geometry = of(
        tmp_path, model_type="gemma3", text_config=text, torch_dtype="bfloat16", vision_config={"hidden_size": 1}
    )
    assert geometry.parameters == 3_880_263_168
    assert [(group.kind, group.layers) for group in geometry.kv_groups] == [("sliding", 29), ("full", 5)]
    assert geometry.kv_bytes_per_token == 34 * 2 * 4 * 256 * 2


def test_falcon_flags(tmp_path: Path) -> None:
    base = {**LLAMA, "model_type": "falcon"}
    assert of(tmp_path, **base, multi_query=True).attention == "MQA"
    assert of(tmp_path, **base, multi_query=False).attention == "MHA"
    assert of(tmp_path, **base, new_decoder_architecture=True, num_kv_heads=4).kv_heads == 4


def test_opt_with_narrow_embeddings(tmp_path: Path) -> None:
    opt_350m = {
        "model_type": "opt",
        "hidden_size": 1024,
        "word_embed_proj_dim": 512,
        "ffn_dim": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "do_layer_norm_before": False,
        "vocab_size": 50272,
        "max_position_embeddings": 2048,
        "dtype": "float16",
    }
    assert of(tmp_path, **opt_350m).parameters == 331_196_416


def test_qwen_slides_only_in_its_upper_layers_and_only_if_told(tmp_path: Path) -> None:
    base = {**LLAMA, "model_type": "qwen2", "sliding_window": 32, "max_window_layers": 1}
    assert of(tmp_path, **base, use_sliding_window=False).window is None
    groups = of(tmp_path, **base, use_sliding_window=True).kv_groups
    assert [(group.kind, group.layers) for group in groups] == [("full", 1), ("sliding", 1)]


@pytest.mark.parametrize(
    ("quantization", "bits"),
    [
        ({"quant_method": "fp8"}, 8),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 8 + 32 / 16384),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 4 + 20 / 128),
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, 4 + 20 / 64),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 8),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4.5),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"num_bits": 4, "group_size": 32}}},
            },
            4 + 20 / 32,
        ),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 8}}}}, 8),
    ],
)
def test_quantized_weights(tmp_path: Path, quantization: dict[str, object], bits: float) -> None:
    plain = of(tmp_path, **LLAMA)
    geometry = of(tmp_path, **LLAMA, quantization_config=quantization)
    assert geometry.parameters == plain.parameters
    assert plain.weight_bytes - geometry.weight_bytes == pytest.approx(plain.weights.dense * (16 - bits) / 8, abs=1)
    assert geometry.kv_bytes_per_token == plain.kv_bytes_per_token
    assert not geometry.model.notes
    said = dict(geometry.explain())["model"]
    assert said == f"{dict(plain.explain())['model']}; layers' matrices in {bits:.3g} bits a weight"


def test_the_experts_of_gpt_oss_alone_are_quantized() -> None:
    said = dict(resolve_model("gpt-oss-20b").explain())["model"]
    assert said == "gpt-oss-20b: 24 layers of 2880, bf16; experts' matrices in 4.25 bits a weight"


def test_products_are_of_fp8_where_weights_and_activations_are(tmp_path: Path) -> None:
    floats, whole = {"num_bits": 8, "type": "float"}, {"num_bits": 8, "type": "int"}
    computing = {
        found.model.compute_dtype
        for group in ({"weights": floats}, {"weights": whole, "input_activations": whole})
        for found in [of(tmp_path, **LLAMA, quantization_config=compressed(group))]
    }
    assert computing == {"bf16"}
    both = of(tmp_path, **LLAMA, quantization_config=compressed({"weights": floats, "input_activations": floats}))
    assert both.model.compute_dtype == "fp8"


def compressed(group: dict[str, object]) -> dict[str, object]:
    return {"quant_method": "compressed-tensors", "config_groups": {"empty": {}, "group_0": group}}


def test_what_is_assumed_is_told(tmp_path: Path) -> None:
    assert "not listed" in of(tmp_path, **{**LLAMA, "model_type": "llama9"}).model.notes[0]
    unknown = of(tmp_path, **LLAMA, quantization_config={"quant_method": "new"})
    assert "new is not understood" in unknown.model.notes[0]
    assert ("note", unknown.model.notes[0]) in unknown.explain()
    assert not of(tmp_path, **LLAMA).model.notes


def test_a_config_without_a_dtype_is_served_in_bf16(tmp_path: Path) -> None:
    # As openai/gpt-oss-20b is published.  vLLM takes bf16 then, and a slot of fp32 would halve the pool.
    silent = of(tmp_path, **{**LLAMA, "torch_dtype": None})
    assert silent.model.dtype == silent.kv_dtype == silent.model.compute_dtype == "bf16"
    assert silent.kv_bytes_per_token == of(tmp_path, **LLAMA).kv_bytes_per_token
    assert silent.model.notes == (DTYPE_NOTE,)
    named = resolve_model({"name": "config.json", "dtype": "fp16"}, tmp_path)
    assert not named.model.notes, "what is told is not assumed"


def test_a_config_in_fp32_is_taken_at_its_word_and_told(tmp_path: Path) -> None:
    # As google/gemma-2-9b is published.
    assert of(tmp_path, **{**LLAMA, "torch_dtype": "float32"}).model.notes == (FP32_NOTE,)
    named = resolve_model({"name": "config.json", "dtype": "bf16"}, tmp_path)
    assert not named.model.notes
    assert not resolve_model("tiny-llama").model.notes, "shipped ones are for validation, which computes in fp32"


@pytest.mark.parametrize("inside", [True, False])
def test_the_weights_of_a_vision_tower_are_told_to_be_missing(tmp_path: Path, *, inside: bool) -> None:
    text = {"text_config": LLAMA} if inside else LLAMA
    (note,) = of(tmp_path, **text, vision_config={"hidden_size": 1152}).model.notes
    assert note == "the language model only: the weights of vision_config are not counted"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("{", "config.json:1:2: not JSON: "),
        ("[]", "config.json: wanted a JSON object"),
        ({**LLAMA, "hidden_size": None}, "config.json: hidden_size or n_embd is missing"),
        ({**LLAMA, "num_hidden_layers": 0}, "config.json: num_hidden_layers: 0 is not a positive whole number"),
        ({**LLAMA, "num_hidden_layers": 10**30}, "config.json: num_hidden_layers: 1,000,000,000,"),
        ({**LLAMA, "num_hidden_layers": 10**6}, "1,000,000 is more than any model has; at most 10,000"),
        ({**LLAMA, "head_dim": 2**31}, "config.json: head_dim: 2,147,483,648 is more than any model has"),
        ({**LLAMA, "vocab_size": "many"}, "config.json: vocab_size: many is not a positive whole number"),
        ({**LLAMA, "num_attention_heads": 7}, "config.json: head_dim is missing, and 7 heads do not divide"),
        ({**LLAMA, "num_key_value_heads": 3}, "config.json: 8 attention heads are no multiple of 3 key-value heads"),
        ({**LLAMA, "torch_dtype": "int3"}, "config.json: dtype: int3 is none of float32, float16, bfloat16"),
        ({**LLAMA, "layer_types": ["full_attention"]}, "config.json: layer_types: wanted a list of 2 names"),
        ({**LLAMA, "layer_types": ["full_attention", "rnn"]}, "config.json: layer_types: rnn is none of"),
        ({**LLAMA, "layer_types": ["mamba", "attention"]}, "config.json: has recurrent layers, but neither"),
        ({**LLAMA, "layer_types": ["sliding_attention"] * 2}, "config.json: sliding_window is missing"),
        ({**LLAMA, "is_encoder_decoder": True}, "config.json: an encoder-decoder, which also keeps K/V of what it was"),
        ({**LLAMA, "attention_bias": "no"}, "config.json: attention_bias: no is neither true nor false"),
        (
            {**LLAMA, "attention_chunk_size": 8, "no_rope_layers": [1]},
            "config.json: no_rope_layers: wanted a list",
        ),
        ({**LLAMA, "quantization_config": ["fp8"]}, "config.json: quantization_config: wanted an object, got"),
        (
            {**LLAMA, "quantization_config": {"quant_method": "gptq", "bits": "4"}},
            'config.json: quantization_config: bits: "4" is not a positive whole number',
        ),
        (
            {**LLAMA, "quantization_config": {"quant_method": "fp8", "weight_block_size": [0, 128]}},
            "config.json: quantization_config: weight_block_size: wanted two positive whole numbers, got",
        ),
        (
            {**LLAMA, "quantization_config": compressed({"weights": {"type": "int"}})},
            "config.json: quantization_config: config_groups: group_0: weights: num_bits is missing",
        ),
    ],
)
def test_a_bad_config_gets_one_line(tmp_path: Path, values: object, words: str) -> None:
    write(tmp_path, values)
    with pytest.raises(UserError) as error:
        resolve_model("./config.json", tmp_path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("llama3", "(did you mean llama-3.1-70b or llama-3.1-8b or llama-3.2-1b?)"),
        ("llama-3.1-8", "llama-3.1-8 is neither shipped nor the path of a config.json (did you mean llama-3.1-8b?)"),
        ("./no/config.json", "no/config.json does not exist"),
        ("meta-llama/Llama-3.1-8B", "(wanted a Hugging Face config.json) (did you mean llama-3.1-8b?)"),
        ({}, "name is missing"),
        ({"name": "gpt2", "kv_dtyp": "fp8"}, "unknown key kv_dtyp (did you mean kv_dtype?)"),
        ({"name": "gpt2", "kv_dtype": "fp9"}, "kv_dtype: fp9 is not known (did you mean fp8?)"),
        ({"name": "gpt2", "dtype": "int4"}, "dtype: int4 is not known"),
        ({"name": "gpt2", "tensor_parallel": 0}, "tensor_parallel: 0 is not a positive whole number"),
        ({"name": "gpt2", "tensor_parallel": 5}, "12 attention heads cannot be divided over tensor_parallel 5"),
        ({"name": "llama-3.1-8b", "kv_heads": 5}, "kv_heads 5 does not divide its 32 heads"),
        ({"name": "deepseek-v3", "kv_heads": 8}, "kv_heads cannot be set"),
    ],
)
def test_a_bad_model_gets_one_line(spec: str | dict[str, object], words: str) -> None:
    with pytest.raises(UserError) as error:
        resolve_model(spec)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
