"""How near to the GPU's memory bandwidth is decode, and how far ahead of transformers?  Run by hand on a GPU.

    python -m tests.gpu.decode_speed                 all of it, about three minutes on an H100
    python -m tests.gpu.decode_speed --only floor    one part

Two questions, both asked of the runtime as `validate` and the engine use it: arrivals, vLLM's
scheduler, the paged allocator, telemetry, block tables, FlashInfer, sampling.

floor
    The share of the memory floor that decode steps reach, at a mean context of 1,024.  The floor is the
    time to read once what a step must read, the weights but the input embedding and the K/V of every
    sequence, at the bandwidth of a large copy on this very device.  What is held against it is wall
    time: from the end of the first full step of decodes to the end of the last, by the host's clock,
    the device idle at both ends, over the number of steps.  All that the host does is in it.
transformers
    Output tokens a second of 256 requests at once, 128 prompt and 128 output tokens each, on the
    Llama-3.2-1B geometry, against `generate_batch` of transformers (paged attention by SDPA, all else
    as it comes) on the same prompts.  Both after a warm-up.

Prints a table and writes `analysis/results/decode_speed_<device>.json` (or into `--out`).
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, GenerationConfig

from sim.decode.device import finish, name_of, resolve
from sim.decode.model import load
from sim.decode.runtime import assemble, choose_backend
from sim.engine.executor import Executor
from sim.engine.loop import Engine
from sim.results.rundir import write_json
from sim.serve import contents
from sim.setup import prepare
from sim.versions import versions
from tests.gpu.validate_gpu import RESULTS
from workloads.generate import requests as make_requests
from workloads.schema import Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sim.decode.model import Decoder
    from sim.engine.plan import Plan
    from sim.engine.serving import Serving
    from sim.models.geometry import Geometry

PACKAGES = ("torch", "transformers", "flashinfer-python", "triton", "numpy")
CONTEXT = 1024
STEPS = 128
"""Output tokens of each request whose decode steps are held against the floor."""
COPY_BYTES = 4 << 30
REQUESTS, PROMPT, OUTPUT = 256, 128, 128


class Nowhere:
    """Takes telemetry and forgets it; rows are made all the same."""

    def write(self, table: str, columns: Mapping[str, object]) -> None:
        """Forget."""


class Watched(Executor):
    """Notes when each step of decodes alone was answered, and how long it was said to take."""

    def __init__(self, executor: Executor, batch: int, device: torch.device) -> None:
        """Watch steps of `batch` sequences."""
        self._executor = executor
        self._batch = batch
        self._device = device
        self.began = self.ended = 0
        """Nanoseconds: the device had finished the first step, and the last one."""
        self.steps = 0
        """... and steps between."""
        self.told: list[int] = []
        self.context = 0
        """Tokens read over those steps."""

    def run(self, plan: Plan, serving: Serving) -> int:
        """Run a step."""
        duration = self._executor.run(plan, serving)
        if plan.decodes != self._batch or plan.chunks:
            return duration
        if not self.began:
            finish(self._device)
            self.began = time.perf_counter_ns()
            return duration
        self.told.append(duration)
        self.steps += 1
        self.context += serving.context + plan.decodes
        if serving.decoding.soonest() == 1:
            finish(self._device)
            self.ended = time.perf_counter_ns()
        return duration


def describe(model: str, requests: int, prompt: int, output: int, seqs: int) -> Workload:
    """Describe requests that all come at once and fit."""
    return Workload.model_validate(
        {
            "name": "decode-speed",
            "seed": 0,
            "model": {"name": model, "dtype": "bf16"},
            "device": {"name": "h100-80gb", "kv_memory_gib": 1 + requests * (prompt + output + 32) / 8192},
            "engine": {
                "scheduler": "vllm-v1",
                "max_num_seqs": seqs,
                "max_num_batched_tokens": 8192,
                "max_model_len": prompt + output + 32,
            },
            "requests": {
                "count": requests,
                "arrivals": {"kind": "batch"},
                "lengths": {"kind": "fixed", "prompt": prompt, "output": output},
            },
            "allocators": [{"kind": "paged", "block_size": 16}],
        }
    )


class Served(NamedTuple):
    """How a workload was served."""

    wall_s: float
    engine_clock_s: float
    ready_s: float
    """What it took to get ready."""
    planning: str
    """How attention was planned."""


def serve(decoder: Decoder, work: Workload, wrap: Callable[[Executor], Executor]) -> Served:
    """Serve a workload."""
    setup = prepare(work)
    case, requests = setup.cases[0], make_requests(work, 0)
    allocator = case.allocator()
    began = time.perf_counter()
    backend = choose_backend(None, setup.geometry, decoder.device)
    runtime = assemble(decoder, case, allocator, requests, seed=0, backend=backend)
    ready = time.perf_counter() - began
    executor = wrap(runtime.executor)
    scheduler = case.make_scheduler()
    engine = Engine(requests, contents(requests), allocator, scheduler, executor, Nowhere(), instants=0)
    finish(decoder.device)
    began = time.perf_counter()
    outcome = engine.run()
    finish(decoder.device)
    wall = time.perf_counter() - began
    if outcome.finished != len(requests):
        raise RuntimeError(f"{outcome.finished} of {len(requests)} requests finished")
    return Served(wall, outcome.end_s, ready, runtime.padded.planning if runtime.padded else "steps are not padded")


def bandwidth(device: torch.device) -> float:
    """Bytes a second that a large copy on the device moves, read and written: the best of several."""
    source = torch.ones(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(10):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        best = min(best, start.elapsed_time(end) / 1e3)
    return 2 * COPY_BYTES / best


def read_bytes(decoder: Decoder) -> int:
    """Bytes of weights that a step reads: all, but of an untied input embedding only a few rows."""
    network = decoder.network
    weights = {each.data_ptr(): each.nbytes for each in network.parameters()}
    tied = network.lm_head.weight.data_ptr() == network.get_input_embeddings().weight.data_ptr()
    return sum(weights.values()) - (0 if tied else network.get_input_embeddings().weight.nbytes)


def floor(decoder: Decoder, batch: int, speed: float) -> dict[str, Any]:
    """Hold decode steps of one batch against the floor."""
    geometry: Geometry = decoder.geometry
    work = describe(geometry.name, batch, CONTEXT - STEPS // 2, STEPS, batch)
    watched: list[Watched] = []

    def wrap(executor: Executor) -> Executor:
        watched.append(Watched(executor, batch, decoder.device))
        return watched[0]

    served = serve(decoder, work, wrap)
    seen = watched[0]
    step = (seen.ended - seen.began) / seen.steps / 1e9
    context = seen.context / seen.steps / batch
    bytes_read = read_bytes(decoder) + seen.context / seen.steps * geometry.kv_bytes_per_token
    return {
        "model": geometry.name,
        "batch": batch,
        "mean_context": round(context, 1),
        "steps": seen.steps,
        "step_ms": step * 1e3,
        "told_ms": float(np.mean(seen.told)) / 1e6,
        "told_p50_ms": float(np.median(seen.told)) / 1e6,
        "told_p99_ms": float(np.percentile(seen.told, 99)) / 1e6,
        "floor_ms": bytes_read / speed * 1e3,
        "share_of_floor": bytes_read / speed / step,
        "output_tps": batch / step,
        "ready_s": served.ready_s,
        "planning": served.planning,
    }


def rival(decoder: Decoder) -> dict[str, Any]:
    """Serve the job with `generate_batch` of transformers, on a model of its own."""
    rng = np.random.default_rng(0)
    prompts = rng.integers(decoder.geometry.vocab, size=(REQUESTS, PROMPT)).tolist()
    with torch.device(decoder.device):
        network = AutoModelForCausalLM.from_config(
            decoder.network.config, dtype=torch.bfloat16, attn_implementation="paged|sdpa"
        )
    network.load_state_dict(decoder.network.state_dict())
    network.eval()
    config = GenerationConfig(max_new_tokens=OUTPUT, do_sample=False, eos_token_id=-1, pad_token_id=0)
    network.generate_batch(prompts[:8], generation_config=config, max_new_tokens=8)
    finish(decoder.device)
    began = time.perf_counter()
    outputs = network.generate_batch(prompts, generation_config=config)
    finish(decoder.device)
    wall = time.perf_counter() - began
    tokens = sum(len(output.generated_tokens) for output in outputs.values())
    return {"wall_s": wall, "output_tokens": tokens, "output_tps": tokens / wall}


def ours(decoder: Decoder) -> dict[str, Any]:
    """Serve the job with the engine."""
    work = describe(decoder.geometry.name, REQUESTS, PROMPT, OUTPUT, REQUESTS)
    serve(decoder, work, lambda executor: executor)
    served = serve(decoder, work, lambda executor: executor)
    return {
        **served._asdict(),
        "output_tokens": REQUESTS * OUTPUT,
        "output_tps": REQUESTS * OUTPUT / served.wall_s,
    }


def network_of(model: str, device: torch.device) -> Decoder:
    """Load a geometry with random weights."""
    work = describe(model, 1, 8, 8, 1)
    return load(model, prepare(work).geometry, device)


def show(results: dict[str, Any], console: Console) -> None:
    """Print what there is."""
    console.print(f"{results['device']}, {results['versions']}, copy {results['copy_tbps']:.2f} TB/s", soft_wrap=True)
    table = Table("model", "batch", "context", "step ms", "told ms", "floor ms", "of the floor", "tokens/s")
    for each in results.get("floor", []):
        table.add_row(
            each["model"],
            str(each["batch"]),
            f"{each['mean_context']:.0f}",
            f"{each['step_ms']:.2f}",
            f"{each['told_ms']:.2f}",
            f"{each['floor_ms']:.2f}",
            f"{each['share_of_floor']:.1%}",
            f"{each['output_tps']:,.0f}",
        )
    console.print(table)
    if "transformers" in results:
        both = results["transformers"]
        console.print(
            f"{REQUESTS} requests of {PROMPT} + {OUTPUT} tokens, {both['model']}: "
            f"{both['ours']['output_tps']:,.0f} output tokens/s against {both['generate_batch']['output_tps']:,.0f} of "
            f"generate_batch: {both['ratio']:.1f} times",
            soft_wrap=True,
        )


def main() -> int:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--only", nargs="*", default=["floor", "transformers"], help="floor, transformers")
    parser.add_argument("--models", nargs="*", default=["llama-3.1-8b", "llama-3.2-1b"], help="held against the floor")
    parser.add_argument("--batches", nargs="*", type=int, default=[64, 256])
    options = parser.parse_args()
    device, console = resolve("cuda"), Console(width=150)
    slug = re.sub(r"[^a-z0-9]+", "-", name_of(device).lower()).strip("-")
    path = options.out / f"decode_speed_{slug}.json"
    results: dict[str, Any] = {
        "schema": 1,
        "device": name_of(device),
        "versions": versions(PACKAGES),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "copy_tbps": bandwidth(device) / 1e12,
        "floor": [],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for model in options.models if "floor" in options.only else []:
        decoder = network_of(model, device)
        for batch in options.batches:
            results["floor"].append(floor(decoder, batch, results["copy_tbps"] * 1e12))
            console.print(json.dumps(results["floor"][-1]), soft_wrap=True)
            write_json(path, results)
            clear()
        del decoder
        clear()
    if "transformers" in options.only:
        decoder = network_of("llama-3.2-1b", device)
        mine = ours(decoder)
        console.print(json.dumps(mine), soft_wrap=True)
        clear()
        other = rival(decoder)
        ratio = mine["output_tps"] / other["output_tps"]
        results["transformers"] = {"model": "llama-3.2-1b", "ours": mine, "generate_batch": other, "ratio": ratio}
        write_json(path, results)
    show(results, console)
    return 0


def clear() -> None:
    """Give memory back to the device."""
    gc.collect()
    torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main())
