"""A workload in a few words, and a real run of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sim.decode.model import load
from sim.decode.numerics import Numerics, Recorder, Reference, compare
from sim.decode.runtime import Runtime, assemble
from sim.decode.trace import Recorded
from sim.engine.loop import Engine, Outcome
from sim.serve import contents
from sim.setup import Setup, prepare
from workloads.generate import requests as make_requests
from workloads.schema import Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from allocators.base import Allocator
    from sim.decode.model import Decoder
    from sim.engine.executor import Executor

CPU = torch.device("cpu")
TINY = {"vocab_size": 256, "max_position_embeddings": 512, "dtype": "float32"}
LLAMA = {**TINY, "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 8, "intermediate_size": 96}
CONFIGS: dict[str, dict[str, Any]] = {
    "opt": {
        **TINY,
        "model_type": "opt",
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "ffn_dim": 96,
        "word_embed_proj_dim": 64,
        "activation_function": "relu",
    },
    "gpt_bigcode": {
        "model_type": "gpt_bigcode",
        "n_layer": 2,
        "n_embd": 64,
        "n_head": 4,
        "n_positions": 512,
        "vocab_size": 256,
        "multi_query": True,
        "dtype": "float32",
    },
    "mistral": {**LLAMA, "model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 21},
    "qwen2": {**LLAMA, "model_type": "qwen2", "num_key_value_heads": 4},
    "qwen2-mixed": {
        **LLAMA,
        "model_type": "qwen2",
        "num_key_value_heads": 4,
        "num_hidden_layers": 5,
        "use_sliding_window": True,
        "sliding_window": 21,
        "max_window_layers": 5,
        "layer_types": [
            "full_attention",
            "sliding_attention",
            "sliding_attention",
            "full_attention",
            "sliding_attention",
        ],
    },
    "qwen3": {**LLAMA, "model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 8},
    "falcon-40b-like": {
        **TINY,
        "model_type": "falcon",
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 8,
        "num_kv_heads": 2,
        "new_decoder_architecture": True,
        "bias": False,
        "alibi": False,
    },
}
"""Configs of families that are not shipped in a tiny size."""


class Nowhere:
    """Takes telemetry and forgets it."""

    def write(self, table: str, columns: Mapping[str, object]) -> None:
        """Forget."""


@dataclass
class Ran:
    """A real run."""

    outcome: Outcome
    runtime: Runtime
    recorder: Recorder
    recorded: Recorded
    allocator: Allocator
    decoder: Decoder
    setup: Setup

    def numerics(self) -> Numerics:
        """Compare with the reference."""
        dtype = self.setup.geometry.model.dtype
        return compare(Reference(self.decoder), self.recorder, self.runtime.transcript, dtype)


def config(folder: Path, name: str, **changes: object) -> str:
    """Write one of CONFIGS into a folder, and return the path."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**CONFIGS[name], **changes}))
    return str(path)


def workload(model: object, allocator: dict[str, object], *, kv_kib: float = 2048, **changes: Any) -> Workload:
    """Describe eight requests on a small pool."""
    engine = {"max_num_seqs": 8, "max_num_batched_tokens": 64, "max_model_len": 96, "watermark": 0.0}
    engine["swap_space_gib"] = 2**-10  # the default would be millions of blocks of a tiny model
    lengths = {"kind": "uniform", "prompt": {"min": 20, "max": 50}, "output": {"min": 8, "max": 24}}
    requests = {"count": 8, "arrivals": {"kind": "batch"}, "lengths": lengths}
    return Workload.model_validate(
        {
            "name": "room",
            "seed": 3,
            "model": model,
            "device": {"memory_gib": 1, "bandwidth_tbps": 1, "bf16_tflops": 1, "kv_memory_gib": kv_kib / 2**20},
            "engine": engine | changes.pop("engine", {}),
            "requests": requests | changes.pop("requests", {}),
            "allocators": [allocator],
            **changes,
        }
    )


def decode(
    work: Workload,
    *,
    decoder: Decoder | None = None,
    backend: str = "torch",
    padded: bool | None = None,
    fuse: bool = True,
    wrap: Callable[[Executor, Runtime], Executor] | None = None,
) -> Ran:
    """Run a workload's first allocator for real."""
    setup = prepare(work)
    case = setup.cases[0]
    decoder = decoder or load(work.model.name, setup.geometry, CPU, fuse=fuse)
    requests, allocator = make_requests(work, 0), case.allocator()
    recorder = Recorder(requests, setup.geometry)
    swap = work.engine.preemption == "swap"
    runtime = assemble(
        decoder,
        case,
        allocator,
        requests,
        seed=work.seed,
        backend=backend,
        swap=swap,
        watcher=recorder,
        padded=padded,
    )
    executor = runtime.executor if wrap is None else wrap(runtime.executor, runtime)
    recorded = Recorded(executor)
    engine = Engine(
        requests, contents(requests), allocator, case.make_scheduler(), recorded, Nowhere(), swap=swap, instants=0
    )
    outcome = engine.run()
    allocator.check()
    return Ran(outcome, runtime, recorder, recorded, allocator, decoder, setup)
