"""Sizes of models against published figures: parameters, token slots, weights on each GPU."""

from __future__ import annotations

import pytest

from sim.errors import UserError
from sim.models.geometry import KV_FORMATS, KVGroup, resolve_model, shipped_models
from sim.setup import facts_of

PUBLISHED = [
    # model, parameters in 1e9, source
    ("gpt2", 0.124, "Hugging Face openai-community/gpt2: 124 M"),
    ("opt-13b", 12.85, "OPT paper, table 1: 13 B; checkpoint 12,853,473,280"),
    ("opt-30b", 29.97, "OPT paper: 30 B; checkpoint 29,974,540,288"),
    ("opt-66b", 65.72, "OPT paper: 66 B; checkpoint 65,719,701,504"),
    ("opt-175b", 174.6, "OPT paper: 175 B"),
    ("llama-13b", 13.02, "LLaMA paper, table 2: 13.0 B"),
    ("llama-2-7b", 6.74, "Hugging Face meta-llama/Llama-2-7b-hf: 6.74 B"),
    ("llama-2-13b", 13.02, "Hugging Face meta-llama/Llama-2-13b-hf: 13.0 B"),
    ("llama-2-70b", 68.98, "Hugging Face meta-llama/Llama-2-70b-hf: 69.0 B"),
    ("llama-3.1-8b", 8.03, "Hugging Face meta-llama/Llama-3.1-8B: 8.03 B"),
    ("llama-3.1-70b", 70.6, "Hugging Face meta-llama/Llama-3.1-70B: 70.6 B"),
    ("llama-3.2-1b", 1.24, "Hugging Face meta-llama/Llama-3.2-1B: 1.24 B"),
    ("mistral-7b", 7.24, "Hugging Face mistralai/Mistral-7B-v0.1: 7.24 B"),
    ("mixtral-8x7b", 46.7, "Hugging Face mistralai/Mixtral-8x7B-v0.1: 46.7 B"),
    # The checkpoint stores the tied embedding a second time and so is listed with 7.22 B; a GPU holds it once.
    ("falcon-7b", 6.92, "transformers' num_parameters of tiiuae/falcon-7b: 6,921,720,704"),
    ("qwen2.5-7b", 7.61, "Qwen2.5 model card: 7.61 B"),
    ("qwen2.5-72b", 72.7, "Qwen2.5 model card: 72.7 B"),
    ("deepseek-v3", 671.0, "DeepSeek-V3 report: 671 B, without its multi-token prediction module"),
    ("gemma-2-9b", 9.24, "Hugging Face google/gemma-2-9b: 9.24 B"),
    ("gemma-3-12b", 11.77, "Gemma 3 report, table 1: 1,012 M embedding and 10,759 M other, without vision"),
    ("gpt-oss-20b", 20.91, "gpt-oss model card: 20.91 B"),
    ("jamba-v0.1", 51.6, "Hugging Face ai21labs/Jamba-v0.1: 51.6 B"),
    ("qwen3-next-80b", 79.67, "Qwen3-Next model card: 80 B, without its multi-token prediction module"),
]


@pytest.mark.parametrize(("name", "billions", "source"), PUBLISHED)
def test_parameters_are_within_one_per_cent_of_the_published_count(name: str, billions: float, source: str) -> None:
    assert resolve_model(name).parameters == pytest.approx(billions * 1e9, rel=0.01), source


def test_every_shipped_geometry_but_the_tiny_ones_has_a_published_count() -> None:
    listed = {name for name, _, _ in PUBLISHED}
    assert {name for name in shipped_models() if not name.startswith("tiny-")} == listed


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("deepseek-v3", 37.0),  # DeepSeek-V3 report, with embedding
        ("mixtral-8x7b", 12.9),  # Mixtral paper
        ("jamba-v0.1", 12.0),  # Jamba paper
    ],
)
def test_active_parameters(name: str, billions: float) -> None:
    assert resolve_model(name).active_parameters == pytest.approx(billions * 1e9, rel=0.02)


def test_gpt_oss_active_parameters_are_published_without_the_input_embedding() -> None:
    geometry = resolve_model("gpt-oss-20b")
    assert geometry.active_parameters - geometry.weights.embedding == pytest.approx(3.61e9, rel=0.01)


SLOTS = [
    ("gpt2", 36_864),  # 2 x 12 layers x 12 heads x 64 x 2 B
    ("opt-13b", 800 * 1024),  # PagedAttention paper, section 3
    ("opt-66b", 9 * 2**20 // 4),
    ("opt-175b", 9 * 2**20 // 2),  # 4.5 MiB
    ("llama-13b", 800 * 1024),
    ("llama-2-7b", 512 * 1024),
    ("llama-2-70b", 320 * 1024),
    ("llama-3.1-8b", 128 * 1024),
    ("llama-3.2-1b", 32 * 1024),
    ("mistral-7b", 128 * 1024),
    ("falcon-7b", 8 * 1024),  # MQA: 2 x 32 layers x 1 head x 64 x 2 B
    ("qwen2.5-7b", 56 * 1024),
    ("deepseek-v3", 70_272),  # MLA: 61 layers x (512 + 64) x 2 B; DeepSeek-V3 report: 70 KB
]


@pytest.mark.parametrize(("name", "size"), SLOTS)
def test_bytes_of_a_token_slot(name: str, size: int) -> None:
    assert resolve_model(name).kv_bytes_per_token == size


@pytest.mark.parametrize(
    ("name", "kind"),
    [("opt-13b", "MHA"), ("llama-3.1-8b", "GQA"), ("falcon-7b", "MQA"), ("deepseek-v3", "MLA"), ("tiny-falcon", "MQA")],
)
def test_kind_of_attention(name: str, kind: str) -> None:
    assert resolve_model(name).attention == kind


@pytest.mark.parametrize(
    ("kv_dtype", "size"),
    [
        ("fp32", 32 * 2 * 8 * 512),
        ("fp16", 32 * 2 * 8 * 256),
        ("bf16", 32 * 2 * 8 * 256),
        ("auto", 32 * 2 * 8 * 256),
        ("fp8", 32 * 2 * 8 * 128),  # one scale a layer: nothing a token
        ("fp8_e4m3", 32 * 2 * 8 * 128),
        ("int8", 32 * 2 * 8 * (128 + 4)),  # fp16 scale and zero point for each vector
        ("int4", 32 * 2 * 8 * (64 + 4)),
    ],
)
def test_kv_dtype(kv_dtype: str, size: int) -> None:
    assert resolve_model({"name": "llama-3.1-8b", "kv_dtype": kv_dtype}).kv_bytes_per_token == size


@pytest.mark.parametrize("kv_dtype", KV_FORMATS)
def test_mla_keeps_one_vector_a_layer_in_every_dtype(kv_dtype: str) -> None:
    form = KV_FORMATS[kv_dtype]
    size = resolve_model({"name": "deepseek-v3", "kv_dtype": kv_dtype}).kv_bytes_per_token
    assert size == 61 * (576 * form.bits // 8 + form.scale_bytes)


@pytest.mark.parametrize(
    ("name", "tp", "size"),
    [
        ("llama-3.1-8b", 2, 64 * 1024),
        ("llama-3.1-8b", 8, 16 * 1024),
        ("llama-3.1-8b", 32, 16 * 1024),  # 8 K/V heads on 32 GPUs: replicated
        ("opt-175b", 8, 9 * 2**20 // 16),
        ("deepseek-v3", 8, 70_272),  # the latent is whole on every GPU
    ],
)
def test_tensor_parallel_divides_slots(name: str, tp: int, size: int) -> None:
    assert resolve_model({"name": name, "tensor_parallel": tp}).kv_bytes_per_token == size


@pytest.mark.parametrize(
    ("spec", "gib"),
    [
        ("llama-3.1-8b", 14.96),  # vLLM, pull request 10511: "model weights take"
        ({"name": "llama-3.1-8b", "tensor_parallel": 2}, 7.48),  # the same
        ("gpt-oss-20b", 12.8),  # gpt-oss model card: checkpoint, experts in mxfp4
        ("opt-13b", 26e9 / 2**30),  # PagedAttention paper, table 1
        ("opt-66b", 132e9 / 2**30),
        ("opt-175b", 346e9 / 2**30),
        ("deepseek-v3", 671e9 / 2**30),  # one byte a weight
    ],
)
def test_weights_in_memory(spec: str | dict[str, object], gib: float) -> None:
    assert resolve_model(spec).weight_bytes / 2**30 == pytest.approx(gib, rel=0.012)


def divides(name: str, tp: int) -> bool:
    geometry = resolve_model(name)
    return geometry.heads % tp == 0 and (geometry.kv_heads % tp == 0 or tp % geometry.kv_heads == 0)


@pytest.mark.parametrize("tp", [2, 4, 8])
@pytest.mark.parametrize("name", shipped_models())
def test_gpus_together_hold_the_model_and_what_is_replicated(name: str, tp: int) -> None:
    if not divides(name, tp):
        with pytest.raises(UserError, match="cannot be divided over tensor_parallel"):
            resolve_model({"name": name, "tensor_parallel": tp})
        return
    whole, part = resolve_model(name), resolve_model({"name": name, "tensor_parallel": tp})
    assert whole.weight_bytes <= tp * part.weight_bytes
    if not name.startswith("tiny-"):
        assert tp * part.weight_bytes <= 1.1 * whole.weight_bytes


def test_kv_heads_may_be_varied_to_compare_mha_gqa_and_mqa() -> None:
    sizes = {heads: resolve_model({"name": "llama-3.1-8b", "kv_heads": heads}) for heads in (32, 8, 1)}
    assert [sizes[heads].attention for heads in sizes] == ["MHA", "GQA", "MQA"]
    assert sizes[32].kv_bytes_per_token == 32 * sizes[1].kv_bytes_per_token
    fewer = sizes[8].parameters - sizes[1].parameters
    assert fewer == 32 * 4096 * 2 * 7 * 128  # seven K and V projections a layer


def test_more_gpus_than_kv_heads_replicate_them() -> None:
    spec = {"name": "llama-3.2-1b", "kv_heads": 16, "tensor_parallel": 32}
    assert resolve_model(spec).kv_bytes_per_token == 16 * 2 * 64 * 2  # one head on each GPU


def test_dtype_changes_weights_and_slots() -> None:
    geometry = resolve_model({"name": "gpt2", "dtype": "fp32"})
    assert geometry.kv_bytes_per_token == 2 * 36_864
    assert geometry.weight_bytes == 4 * 124_439_808
    assert resolve_model({"name": "deepseek-v3", "dtype": "bf16"}).weight_bytes == 2 * 671_026_419_200


def test_layers_that_keep_different_things_are_groups() -> None:
    assert resolve_model("gemma-3-12b").kv_groups == (
        KVGroup("sliding", 40, 8192, 1024, 0),
        KVGroup("full", 8, 8192, None, 0),
    )
    assert resolve_model("gpt-oss-20b").kv_groups == (
        KVGroup("sliding", 12, 2048, 128, 0),
        KVGroup("full", 12, 2048, None, 0),
    )
    # Jamba: 8192 channels, each with a state of 16 and the last 3 inputs of its convolution, in bf16.
    assert resolve_model("jamba-v0.1").kv_groups == (
        KVGroup("state", 28, 0, None, 8192 * (16 + 3) * 2),
        KVGroup("full", 4, 4096, None, 0),
    )
    # Qwen3-Next: 32 heads of 128 x 128, and 3 inputs of 8192 channels.
    assert resolve_model("qwen3-next-80b").kv_groups[0] == KVGroup(
        "state", 36, 0, None, (32 * 128 * 128 + 3 * 8192) * 2
    )


def test_groups_under_tensor_parallelism() -> None:
    sliding, full = resolve_model({"name": "gemma-3-12b", "tensor_parallel": 4, "kv_dtype": "fp8"}).kv_groups
    assert sliding.token_bytes == full.token_bytes == 2 * 2 * 256
    state = resolve_model({"name": "jamba-v0.1", "tensor_parallel": 4}).kv_groups[0]
    assert state.state_bytes == 8192 * (16 + 3) * 2 // 4


def test_tensors_that_hold_the_cache() -> None:
    tensors = {"opt-13b": 80, "deepseek-v3": 61, "jamba-v0.1": 8, "gemma-3-12b": 96}
    assert {name: resolve_model(name).kv_tensors for name in tensors} == tensors


def test_allocators_hear_of_the_tensors_of_attention_layers_alone() -> None:
    names = ("opt-13b", "deepseek-v3", "jamba-v0.1", "qwen3-next-80b")
    facts = {name: facts_of(resolve_model(name)) for name in names}
    assert {name: (found["kv_tensors"], found["tensor_token_bytes"]) for name, found in facts.items()} == {
        "opt-13b": (2 * 40, 5120 * 2),
        "deepseek-v3": (61, 576 * 2),
        "jamba-v0.1": (2 * 4, 8 * 128 * 2),
        "qwen3-next-80b": (2 * 12, 2 * 256 * 2),
    }


def test_groups_sum_to_the_slot() -> None:
    for name in shipped_models():
        geometry = resolve_model(name)
        assert sum(group.layers for group in geometry.kv_groups) == geometry.layers
        assert sum(group.slot_bytes for group in geometry.kv_groups) == geometry.kv_bytes_per_token
