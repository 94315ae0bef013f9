"""The PagedAttention paper's figures beside simulated ones: all presets, as one page of Markdown.

    python -m tests.benchmarks.sosp23 [--runs FOLDER] [--read]

Runs every preset that says what was published (half an hour on one core), keeps what is complete in FOLDER, and
writes `analysis/results/sosp23.md`.  `--read` runs nothing.  Figures and remarks are those of
the presets as they are now.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis.figures import group
from analysis.published import markdown, rows
from analysis.variants import open_variants
from sim.cli import main
from workloads.loader import load, presets
from workloads.variants import vary

PAGE = Path(__file__).parents[2] / "analysis/results/sosp23.md"
HEAD = """\
# The PagedAttention paper's figures, published and simulated

Made by `python -m tests.benchmarks.sosp23` from the presets; `python -m sim run NAME` prints each table.
One number is fitted: the host's work a step, 12 ms, on vLLM's mean batch on ShareGPT in figure 13. A figure
"/ Orca (Oracle)" is a multiple of that run's. Intervals are Student's over replications, paired by common
random numbers; a dash is a single run.
"""


def reproducing() -> list[str]:
    """Return the presets that say what was published."""
    return [name for name in presets() if (one := load(name)).expect or any(each.expect for each in one.variants)]


def section(preset: str, runs: Path) -> str:
    """Write one preset's table and remarks."""
    workload = load(preset)
    expected = {variant.label: vary(workload, variant) for variant in workload.variants} or {"": workload}
    found = [
        row
        for label, directory in open_variants(runs / preset).runs.items()
        for row in rows(group(directory.summary()), expected[label].model_dump(mode="json")["expect"], label)
    ]
    remarks = "".join(f"- {remark}\n" for remark in workload.remarks)
    return f"## {preset}\n\n{markdown(found)}\n{remarks}"


def run() -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/sosp23"))
    parser.add_argument("--read", action="store_true")
    given = parser.parse_args()
    names = reproducing()
    for name in names:
        if not given.read:
            status = main(["run", name, "--out", str(given.runs / name), "--resume", "--quiet"])
            if status:
                raise SystemExit(status)
    PAGE.write_text("\n".join([HEAD, *(section(name, given.runs) for name in names)]), encoding="utf-8")


if __name__ == "__main__":
    run()
