"""One table of all allocators: ShareGPT and the Azure conversations, with per cent of ideal.  Run by hand.

    python -m tests.benchmarks.allocators                 all of it, some minutes; writes analysis/results/allocators.md
    python -m tests.benchmarks.allocators --only azure    some of it, printed

The Azure trace is not shipped: it is looked for in `../shared`, or in `$KVSIM_SHARED` (a folder with
`data/traces/azure2023_conv`).  Exit status 1 where a throughput is above that of ideal, which wants an explanation.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from rich.console import Console

from analysis.figures import group
from analysis.observed import SHARES
from analysis.remarks import page_calls
from sim.runner import run
from sim.serve import Progress
from workloads.loader import load

ERRORS = Console(stderr=True)
ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("KVSIM_SHARED", ROOT.parent / "shared"))
TRACE = SHARED / "data" / "traces" / "azure2023_conv" / "requests.csv.gz"
RESULT = ROOT / "analysis" / "results" / "allocators.md"
FAMILY = """
allocators:
  - {kind: no-cache, scheduler: orca}
  - {kind: growing}
  - {kind: growing, expandable_segments: true}
  - {kind: preallocated}
  - {kind: contiguous, reserve: max}
  - {kind: contiguous, reserve: pow2}
  - {kind: contiguous, reserve: oracle}
  - {kind: contiguous, reserve: oracle, placement: best-fit, label: contiguous-oracle-best-fit}
  - {kind: virtual, page_kib: 64}
  - {kind: virtual, page_kib: 2048}
  - {kind: paged, block_size: 16}
  - {kind: paged, block_size: 1}
  - {kind: paged, prefix_cache: true}
  - {kind: radix}
  - {kind: hybrid, label: hybrid (of one group)}
  - {kind: ideal}
"""
HYBRID = """
allocators:
  - {kind: contiguous, reserve: pow2}
  - {kind: virtual, page_kib: 64}
  - {kind: paged}
  - {kind: hybrid, paging: uniform}
  - {kind: hybrid, paging: even}
  - {kind: hybrid, paging: common-multiple}
  - {kind: ideal}
"""


PREFACE = (
    "# All allocators, and per cent of ideal",
    "",
    "Made by `python -m tests.benchmarks.allocators`. Every allocator serves the same requests under vLLM's",
    "V1 scheduler (`no-cache` under Orca's). `ideal`, the bound, hands out single token slots, wastes none,",
    "and preempts at no cost. Batch is the mean number of running sequences over time; ms/token is the mean",
    "of end-to-end latency divided by output tokens; then follows the ledger, in per cent of the pool, as",
    "means over time.",
    "",
    "A batch above 100 % of ideal is no advantage where throughput is below: slower steps keep requests in",
    "the batch for longer, so more of them run at once. `no-cache` recomputes all tokens in every step, and",
    "`growing` copies them. `virtual` maps pages for decodes while the previous step computes, as vAttention",
    "does, but waits for the pages of prompts; a line below each table says for how long. Pages of 64 KiB",
    "need a modified driver.",
    "",
)
FAMILY_NOTES = (
    "`preallocated` and `contiguous-max` both reserve room for the longest sequence; `contiguous-max` may",
    "place its runs anywhere, which gains nothing as all are equally long. The oracle's reservation is exact,",
    "but the buddy system rounds it up; best fit does not, yet it too reserves slots long before they are",
    "used. `hybrid` with a single group of layers is `paged`, block for block. Where `radix` and `paged` with",
    "a prefix cache beat `paged`, it is because a preempted request finds its own tokens still cached: here",
    "`paged` recomputes {paged-16:,} tokens, and {paged-prefix-cache:,} with the cache.",
)
GEMMA_NOTES = (
    "Of the 48 layers, 40 attend to the last 1,024 tokens only, and `ideal` keeps no more than that in them.",
    "`paged`, like the others that know one kind of layer, keeps every token in all 48, so many of its live",
    "slots hold tokens that are never read again. `uniform` frees what the windows have left behind, but pads",
    "each block of the 8 full-attention layers to the size of a block of the other 40, which costs more than",
    "the windows save. `common-multiple` is slightly behind `even` because a page of 5 blocks stays with one",
    "kind of layer until all 5 are free (external).",
)


class Subject(NamedTuple):
    """A workload, and what is to be said of its table."""

    title: str
    text: str
    notes: tuple[str, ...] = ()


SUBJECTS = {
    "sharegpt": Subject(
        "ShareGPT: OPT-13B on an A100 of 40 GB, 600 requests, 3 a second",
        """
name: sharegpt
model: opt-13b
device: a100-40gb
engine: {max_model_len: 2048, max_num_seqs: 256}
requests: {count: 600, arrivals: {kind: poisson, rate: 3}, lengths: {kind: sharegpt}}
"""
        + FAMILY,
        FAMILY_NOTES,
    ),
    "azure": Subject(
        "Azure conversations: Llama-3.1-8B, H100, 8 GiB for K/V, first 1,000 requests, four times as fast",
        f"""
name: azure
model: llama-3.1-8b
device: {{name: h100-80gb, kv_memory_gib: 8}}
engine: {{max_model_len: 8192, max_num_seqs: 256}}
requests: {{trace: "{TRACE}", rate_scale: 4, count: 1000}}
"""
        + FAMILY,
        FAMILY_NOTES,
    ),
    "azure-gemma": Subject(
        "The same on a model whose layers differ: Gemma-3-12B, 12 GiB for K/V, three times as fast",
        f"""
name: azure-gemma
model: gemma-3-12b
device: {{name: h100-80gb, kv_memory_gib: 12}}
engine: {{max_model_len: 8192, max_num_seqs: 256}}
requests: {{trace: "{TRACE}", rate_scale: 3, count: 1000}}
"""
        + HYBRID,
        GEMMA_NOTES,
    ),
}
HEAD = ("batch", "% ideal", "req/s", "% ideal", "ms/token", "preempted", *SHARES)


def table(entries: list[dict[str, Any]]) -> list[str]:
    """Lay out a run's summary as Markdown: speed, and the ledger in per cent of the pool."""
    ideal = next(entry for entry in entries if entry["kind"] == "ideal")["metrics"]
    lines = [f"| allocator | {' | '.join(HEAD)} |", "|---|" + "---:|" * len(HEAD)]
    for entry in entries:
        found, mean = entry["metrics"], entry["ledger"]["mean"]
        pool = sum(mean[share] for share in SHARES)
        batch, rate = found["batch_size"]["mean"], found["throughput_rps"]
        cells = [
            f"{batch:.1f}",
            f"{100 * batch / ideal['batch_size']['mean']:.0f}",
            f"{rate:.2f}",
            f"{100 * rate / ideal['throughput_rps']:.1f}",
            f"{1e3 * found['normalized_latency_s']['mean']:,.0f}",
            f"{found['preemptions']:,}",
            *(f"{100 * mean[share] / pool:.1f}" for share in SHARES),
        ]
        lines.append(f"| {entry['allocator']} | {' | '.join(cells)} |")
    return lines


def beyond(entries: list[dict[str, Any]]) -> list[str]:
    """Name the rows whose throughput is above that of ideal."""
    bound = next(entry for entry in entries if entry["kind"] == "ideal")["metrics"]["throughput_rps"]
    return [entry["allocator"] for entry in entries if entry["metrics"]["throughput_rps"] > 1.002 * bound]


def finished(entries: list[dict[str, Any]]) -> str:
    """Say how many requests each allocator has served."""
    counts = {entry["allocator"]: entry["requests"]["finished"] for entry in entries}
    total = entries[0]["requests"]["total"]
    fewer = [f"{label} {count:,}" for label, count in counts.items() if count < total]
    return f"All {total:,} requests were served" + (
        f", but by {', '.join(fewer)}." if fewer else " by every allocator."
    )


def tabulate(name: str, subject: Subject) -> list[str]:
    """Run one workload and return its section."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.yaml"
        file.write_text(subject.text, encoding="utf-8")
        with ERRORS.status(name) as status:

            def report(done: Progress) -> None:
                status.update(f"{name}: {done.label}: {done.done:,} of {done.total:,} requests")

            entries = run(load(file), Path(folder) / "runs", progress=report).summary()
    if above := beyond(entries):
        raise SystemExit(f"{name}: above the throughput of ideal: {', '.join(above)}")
    calls = [f"`{line.replace(':', '`:', 1)}." for line in page_calls(group(entries))]
    again = {entry["allocator"]: entry["metrics"]["recomputed_tokens"] for entry in entries}
    notes = [note.format_map(again) for note in subject.notes]
    return [f"## {subject.title}", "", *table(entries), "", finished(entries), *calls, *notes, ""]


def main() -> int:
    """Make the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, metavar="NAME", help=f"some of {', '.join(SUBJECTS)}")
    chosen = parser.parse_args().only
    if not TRACE.exists():
        ERRORS.print(f"{TRACE}: not there; set KVSIM_SHARED to a folder with data/traces/azure2023_conv")
        return 2
    sections = [line for name in chosen or SUBJECTS for line in tabulate(name, SUBJECTS[name])]
    if chosen:
        Console().print("\n".join(sections), markup=False, highlight=False, soft_wrap=True)
    else:
        RESULT.write_text("\n".join([*PREFACE, *sections]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
