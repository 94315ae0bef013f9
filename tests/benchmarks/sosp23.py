"""The PagedAttention paper's figures beside simulated ones: all presets, as one page of Markdown.

    python -m tests.benchmarks.sosp23 [--runs FOLDER] [--read]

Runs every preset that says what was published, and once more with the other account of the host's work if its
figures depend on times (together half an hour on one core); keeps what is complete in FOLDER, and writes
`analysis/results/sosp23.md`.  `--read` runs nothing.  Figures and remarks are those of the presets as they are now.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from analysis.figures import group
from analysis.published import Row, markdown, rows
from analysis.variants import open_variants
from sim.cli import main
from workloads.loader import load, presets
from workloads.variants import vary

OTHER = "a-sequence"
"""Folder of its runs."""
FITTED = {(f"sosp23_{name}", "vLLM", "batch_size") for name in ("alpaca", "sharegpt")}
VERDICT = (
    "",
    "The number per step is kept. It is fitted on the cell that was chosen for it before anything was run, and",
    "with it every figure of the main set-up (figure 2, figure 12's factors, figure 13's saturated batches) is in",
    "the published range, or within 2 points or 2 % of the published value. A number per sequence, fitted on the",
    "larger batch, gives nine tenths of the smaller one, and brings three results that the number per step misses",
    "widely close to the published ones: figure 14's one sample, figure 16's short prefix and figure 18b's large",
    "blocks. But where vLLM gains by sharing or by long contexts (six beams, a prefix of 341 tokens, figure 17) it",
    "takes away too much of that gain, and figure 12's factors leave their ranges. One number cannot hold what the",
    "2023 system did once per step, once per request and once per sequence.",
)
PAGE = Path(__file__).parents[2] / "analysis/results/sosp23.md"
HEAD = """\
# The PagedAttention paper's figures, published and simulated

Made by `python -m tests.benchmarks.sosp23` from the presets; `python -m sim run NAME` prints each table.
One number is fitted: the host's work per step, 12 ms, to vLLM's mean batch on ShareGPT in figure 13;
the last section shows what a number per sequence gives instead. A figure "/ Orca (Oracle)" is a multiple of that run's.
Intervals are Student's t over replications, paired by common random numbers; a dash means a single run.
"""
OTHERWISE = ("costs.sequence_overhead_s=0.000296", "costs.step_overhead_s=0.00061")
"""The other account: so much a sequence, fitted on vLLM's mean batch on Alpaca in figure 13; a step as a modern one."""


def reproducing() -> list[str]:
    """Return the presets that say what was published."""
    return [name for name in presets() if (one := load(name)).expect or any(each.expect for each in one.variants)]


def figures(preset: str, runs: Path) -> list[Row]:
    """Set what a preset says was published beside what its runs gave."""
    workload = load(preset)
    expected = {variant.label: vary(workload, variant) for variant in workload.variants} or {"": workload}
    return [
        row
        for label, directory in open_variants(runs / preset).runs.items()
        for row in rows(group(directory.summary()), expected[label].model_dump(mode="json")["expect"], label)
    ]


def is_timed(preset: str, runs: Path) -> bool:
    """Whether any of a preset's figures depends on step times."""
    return not all(row.is_share for row in figures(preset, runs))


def serve(preset: str, runs: Path, settings: Iterable[str] = ()) -> None:
    """Run a preset, or what is missing of it, with some settings changed."""
    changes = [word for setting in settings for word in ("--set", setting)]
    status = main(["run", preset, "--out", str(runs / preset), "--resume", "--quiet", *changes])
    if status:
        raise SystemExit(status)


def section(preset: str, runs: Path) -> str:
    """Write one preset's table and remarks."""
    remarks = "".join(f"- {remark}\n" for remark in load(preset).remarks)
    return f"## {preset}\n\n{markdown(figures(preset, runs))}\n{remarks}"


def accounts(names: list[str], runs: Path) -> str:
    """Write what the two accounts of the host's work give, for every figure that is no share."""
    off: list[tuple[float, ...]] = []
    lines = [
        "## The host's work: per step or per sequence?",
        "",
        "| preset | variant | allocator | figure | published | 12 ms per step | | 0.296 ms per sequence | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        for row, other in zip(figures(name, runs), figures(name, runs / OTHER), strict=True):
            if not row.is_share:
                figure = (name, row.variant, row.label, row.name, row.published)
                lines.append(f"| {' | '.join((*figure, row.value, row.difference, other.value, other.difference))} |")
                if (name, row.label, row.name) not in FITTED:
                    off.append(tuple(abs(one.simulated.value / one.near - 1) for one in (row, other)))
    mean = [100 * sum(each) / len(off) for each in zip(*off, strict=True)]
    missed = [sum(one > 0.02 for one in each) for each in zip(*off, strict=True)]
    said = (
        f"Of the {len(off)} figures that neither number was fitted on, {missed[0]} are missed by more than 2 % with "
        f"the number per step and {missed[1]} with the number per sequence; the mean difference is {mean[0]:.0f} and "
        f"{mean[1]:.0f} %."
    )
    return "\n".join([*lines, "", said, *VERDICT, ""])


def run() -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/sosp23"))
    parser.add_argument("--read", action="store_true")
    given = parser.parse_args()
    names = reproducing()
    for name in names if not given.read else ():
        serve(name, given.runs)
        if is_timed(name, given.runs):
            serve(name, given.runs / OTHER, OTHERWISE)
    timed = [name for name in names if is_timed(name, given.runs)]
    sections = [*(section(name, given.runs) for name in names), accounts(timed, given.runs)]
    PAGE.write_text("\n".join([HEAD, *sections]), encoding="utf-8")


if __name__ == "__main__":
    run()
