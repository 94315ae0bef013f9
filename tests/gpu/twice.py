"""Real runs beside other real runs of the same workload: how near could any prediction of them be?

    python -m tests.gpu.twice EARLIER LATER [EARLIER LATER ...] [--out FILE]     run directories, in pairs

Compares each pair as `tests.gpu.timed` compares a simulation with a real run: an error is (earlier - later) / later.
Pairs are to be of one workload, served by the same real engine at two times on machines with the same device.  Runs
whose labels are given with `--without` are left out, such as those whose engine has changed between.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from analysis.reading import open_directory
from analysis.timing import IN_EACH, IN_MEDIAN, Timed, timed
from sim.results.rundir import write_json


def compared(earlier: Path, later: Path, without: list[str]) -> tuple[list[Timed], dict[str, Any]]:
    """Compare the runs of a pair; returns them and what the results file says of the pair."""
    runs = [run for run in timed(later, earlier) if run.label not in without]
    manifests = [open_directory(folder).manifest for folder in (earlier, later)]
    return runs, {
        "workload": runs[0].workload,
        "device": manifests[1]["executor"]["device"],
        "started": [manifest["started"] for manifest in manifests],
        "differences": {
            run.label: {name: round(run.errors[name], 5) for name in (*IN_MEDIAN, *IN_EACH)} for run in runs
        },
    }


def summary(runs: list[Timed]) -> dict[str, Any]:
    """Sum up how near runs are to each other."""
    tails = [abs(run.errors[name]) <= most for run in runs for name, most in IN_EACH.items()]
    return {
        "runs": len(runs),
        "medians": {name: round(float(np.median([abs(run.errors[name]) for run in runs])), 5) for name in IN_MEDIAN},
        "p99_within": sum(tails),
        "p99": len(tails),
    }


def main() -> int:
    """Compare what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="EARLIER LATER")
    parser.add_argument("--without", nargs="*", default=[], help="labels of runs to leave out")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if len(options.folders) % 2:
        parser.error("run directories come in pairs")
    console = Console(width=150)
    pairs, runs = [], list[Timed]()
    for earlier, later in zip(options.folders[::2], options.folders[1::2], strict=True):
        found, entry = compared(earlier, later, options.without)
        runs += found
        pairs.append(entry)
        for run in found:
            apart = "  ".join(f"{name} {run.errors[name]:+.1%}" for name in (*IN_MEDIAN, *IN_EACH))
            console.print(f"{run.workload}, {run.label}: {apart}", soft_wrap=True)
    content = {"schema": 1, "allowed": {**IN_MEDIAN, **IN_EACH}, **summary(runs), "pairs": pairs}
    console.print(
        content["medians"], f"{content['p99_within']} of {content['p99']} 99th percentiles within what is allowed"
    )
    if options.out is not None:
        write_json(options.out, content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
