"""Validation on a GPU: every backend, head layout and allocator, the 1B and the OPT-13B geometry.  Run by hand.

    python -m tests.gpu.validate_gpu                      all of it, about six minutes on an H100
    python -m tests.gpu.validate_gpu --only 1b 13b        some of it
    python -m tests.gpu.validate_gpu --list               what there is

Prints a table for each validation and enters it in `analysis/results/validate_<device>.json` (or in
`--out`), each with its versions and date.  Exit status 1 where a real run and its simulation
differ in tokens, decisions or memory; times are the business of `tests.gpu.timed`.  FlashInfer builds
its kernels when they are first used; that is done in the background while the first jobs run.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from rich.console import Console

from sim.decode.device import name_of, resolve
from sim.decode.outcome import Validation
from sim.decode.show import show
from sim.decode.validate import validate
from sim.errors import UserError
from sim.models.geometry import resolve_model
from sim.results.rundir import write_json
from workloads.loader import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RESULTS = Path(__file__).parents[2] / "analysis" / "results"
SLOTS = 640
"""Token slots in the pool of a small geometry: too few for all of its requests at once."""
SMALL = {
    "mha": {
        "model_type": "gpt2",
        "n_layer": 4,
        "n_head": 8,
        "n_embd": 512,
        "n_positions": 512,
        "vocab_size": 4096,
    },
    "opt": {
        "model_type": "opt",
        "num_hidden_layers": 4,
        "hidden_size": 512,
        "num_attention_heads": 8,
        "ffn_dim": 1024,
        "word_embed_proj_dim": 512,
        "activation_function": "relu",
        "max_position_embeddings": 512,
        "vocab_size": 4096,
    },
    "gqa-window": {
        "model_type": "mistral",
        "num_hidden_layers": 4,
        "hidden_size": 512,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "intermediate_size": 1024,
        "sliding_window": 33,
        "max_position_embeddings": 512,
        "vocab_size": 4096,
    },
    "mqa": {
        "model_type": "falcon",
        "num_hidden_layers": 4,
        "hidden_size": 512,
        "num_attention_heads": 8,
        "multi_query": True,
        "new_decoder_architecture": False,
        "parallel_attn": True,
        "bias": False,
        "alibi": False,
        "max_position_embeddings": 512,
        "vocab_size": 4096,
    },
}
"""One geometry for each head layout, with heads of 64 as FlashInfer's kernels want them."""
ALLOCATORS = [
    {"kind": "paged", "block_size": 4},
    {"kind": "paged", "block_size": 16, "prefix_cache": True, "scheduler": "vllm-v0"},
    {"kind": "paged", "block_size": 1, "scheduler": "orca"},
    {"kind": "growing"},
    {"kind": "no-cache", "scheduler": "orca"},
]
"""What a small geometry runs."""


class Job(NamedTuple):
    """One validation."""

    name: str
    workload: str
    """A preset."""
    backend: str
    config: str = ""
    """Name in SMALL, in place of the preset's model."""
    dtype: str = ""
    settings: tuple[str, ...] = ()


def jobs() -> list[Job]:
    """Return all validations, those that need no kernel built first."""
    exact = [Job("tiny-llama-fp32", "validate_tiny", "torch"), Job("tiny-qwen2-hybrid", "validate_hybrid", "torch")]
    exact += [Job(f"{name}-fp32-torch", "validate_tiny", "torch", name, "float32") for name in SMALL]
    rounded = [Job(f"{name}-bf16-torch", "validate_tiny", "torch", name, "bfloat16") for name in SMALL]
    built = [Job(f"{name}-bf16-flashinfer", "validate_tiny", "flashinfer", name, "bfloat16") for name in SMALL]
    others = [spec for spec in load("validate_1b").allocators if spec.kind not in {"no-cache", "growing"}]
    with_blocks = json.dumps([spec.model_dump(exclude_none=True) for spec in others])
    large = [
        Job("1b-torch", "validate_1b", "torch"),
        Job("1b-flashinfer", "validate_1b", "flashinfer", settings=(f"allocators={with_blocks}",)),
        Job("13b-flashinfer", "validate_opt13b", "flashinfer"),
    ]
    return [*exact, *rounded, *built, *large]


def run(job: Job, device: str, out: Path) -> Validation:
    """Run one validation."""
    settings = list(job.settings)
    if job.config:
        path = out / f"{job.config}-{job.dtype}.json"
        path.write_text(json.dumps({**SMALL[job.config], "dtype": job.dtype}))
        pool = (SLOTS * resolve_model(str(path)).kv_bytes_per_token + 1) / 2**30
        settings += [
            f"model={path}",
            f"device.kv_memory_gib={pool}",
            f"device.memory_gib={2 * pool + 1}",
            f"allocators={json.dumps(ALLOCATORS)}",
        ]
    return validate(load(job.workload, settings), out / job.name, device=device, backend=job.backend, parts=("exact",))


def shapes(chosen: Sequence[Job]) -> set[tuple[int, int | None]]:
    """(head_dim, window) of the FlashInfer kernels that jobs use."""
    heads = {"gqa-window": (64, 33), "13b": (128, None)}
    return {
        next((shape for name, shape in heads.items() if job.name.startswith(name)), (64, None))
        for job in chosen
        if job.backend == "flashinfer"
    }


def build_kernels(device: torch.device, wanted: Iterable[tuple[int, int | None]]) -> list[subprocess.Popen[bytes]]:
    """Have FlashInfer build its kernels for (head_dim, window), in processes of their own."""
    if device.type != "cuda" or find_spec("flashinfer") is None:
        return []
    build = "from sim.decode.flashinfer_backend import build; build({}, window={})"
    return [subprocess.Popen([sys.executable, "-c", build.format(*shape)]) for shape in wanted]


def main() -> int:
    """Run the validations that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--only", nargs="*", default=[], help="jobs whose names begin so")
    parser.add_argument("--list", action="store_true", help="name the jobs")
    options = parser.parse_args()
    console = Console(width=150)
    chosen = [job for job in jobs() if not options.only or job.name.startswith(tuple(options.only))]
    if options.list:
        console.print(*(job.name for job in chosen), sep="\n")
        return 0
    device = resolve(options.device)
    builders = build_kernels(device, shapes(chosen))
    options.out.mkdir(parents=True, exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", name_of(device).lower()).strip("-")
    path = options.out / f"validate_{slug}.json"
    results: dict[str, Any] = json.loads(path.read_text())["validations"] if path.exists() else {}
    passed = True
    for job in chosen:
        if job.backend == "flashinfer":
            while builders:
                builders.pop().wait()
        console.rule(job.name, align="left")
        began = time.perf_counter()
        found = attempt(job, options.device, console)
        seconds = round(time.perf_counter() - began, 1)
        console.print(f"{seconds} s")
        results[job.name] = {**found, "seconds": seconds}
        passed = all(result["passed"] for result in results.values())
        write_json(path, {"schema": 1, "passed": passed, "device": name_of(device), "validations": results})
    console.print(f"{'PASSED' if passed else 'FAILED'}: {len(results)} validations, {path}", soft_wrap=True)
    return 0 if passed else 1


def attempt(job: Job, device: str, console: Console) -> dict[str, Any]:
    """Run one validation and show it; one that fails to run is a result too."""
    try:
        with TemporaryDirectory() as folder:
            result = run(job, device, Path(folder))
            found: dict[str, Any] = json.loads(json.dumps(result.as_json()).replace(f"{folder}/", ""))
    except UserError as error:
        console.print(f"not run: {error}", markup=False)
        return {"passed": False, "error": str(error)}
    except Exception as error:  # noqa: BLE001  whatever it is, the other jobs shall still run
        console.print_exception()
        return {"passed": False, "error": f"{type(error).__name__}: {error}"}
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    show(result, console)
    return found


if __name__ == "__main__":
    sys.exit(main())
