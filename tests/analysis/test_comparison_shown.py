"""The table of a comparison, as it is printed, and the same as a document."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from analysis.compare import Comparison, Difference, Setting, compare
from analysis.differences import show_comparison
from analysis.stats import Interval
from tests.analysis.synthetic import write_directory

UNKNOWN = (-math.inf, math.inf)
ROWS = [
    Difference("paged", "throughput_rps", 10.0, 8.0, Interval(-2.0, -2.5, -1.5, 3), "replications"),
    Difference("paged", "ttft_s", 0.0, 0.5, Interval(0.5, *UNKNOWN, 1), ""),
    Difference("paged", "tpot_s", 0.02, 0.02002, Interval(2e-5, 9e-6, 3.1e-5, 80), "requests"),
    Difference("ideal", "batch_size", 4.0, 4.0, Interval(0.0, -1.0, 1.0, 3), "draws"),
    Difference("radix", "batch_size", 4.0, 4.0, Interval(0.0, *UNKNOWN, 1), ""),
]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    directory = write_directory(tmp_path_factory.mktemp("x") / "x", count=12, kinds=("paged", "ideal"))
    settings = [Setting("engine.scheduler", "vllm-v1", "orca")]
    return replace(compare(directory, directory), settings=settings, differences=ROWS, notes=["Something to note."])


def printed(comparison: Comparison, threshold: float | None = None) -> str:
    out = io.StringIO()
    console = Console(file=out, width=110, force_terminal=True, color_system="standard")
    assert show_comparison(comparison, console, threshold) == (0 if threshold is None else 1)
    return out.getvalue()


def plain(comparison: Comparison, threshold: float | None = None) -> list[str]:
    out = io.StringIO()
    show_comparison(comparison, Console(file=out, width=110), threshold)
    lines = [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]
    (heading,) = (place for place, line in enumerate(lines) if "allocator and figure" in line)
    return lines[heading:]  # above is the title, with the names of temporary folders


def test_every_figure_is_shown_with_its_interval_and_what_that_stands_on(comparison: Comparison) -> None:
    heading, rule, *rows = plain(comparison, 5)
    assert " ".join(heading.split()) == "allocator and figure first second difference 95 % interval % paired by"
    assert not rule.strip("─ ")
    assert rows == [
        " paged",
        "   throughput_rps            10       8          -2        -2.50 … -1.50  -20.0  runs",
        "   ttft_s                     0   0.500       0.500                    -      -",
        "   tpot_s                0.0200  0.0200    2.00e-05  9.00e-06 … 3.10e-05   +0.1  requests",
        " ideal",
        "   batch_size                 4       4           0               -1 … 1    0.0  -",
        " radix",
        "   no figure differs",
        "latencies without a percentile are means over requests",
        "with a pool of 2,048 slots",
        "engine.scheduler: vllm-v1 → orca",
        "Something to note.",
        "worse by more than 5 %: paged throughput_rps (-20.0 %)",
        "worse by more than 5 %: paged ttft_s (0 to 0.500)",
    ]


def test_what_is_worse_is_red_if_a_threshold_is_asked_for(comparison: Comparison) -> None:
    red = [line for line in printed(comparison, 5).splitlines() if "\x1b[1;31m" in line]
    assert [line.split("  ")[1].split()[0] for line in red] == ["throughput_rps", "ttft_s"]
    assert "\x1b[1;31m" not in printed(comparison)


def test_the_pool_is_that_of_the_allocators_that_are_compared(tmp_path: Path) -> None:
    both = write_directory(tmp_path / "both", count=12, kinds=("paged", "ideal"))
    manifest = json.loads((both / "manifest.json").read_text())
    manifest["runs"][1]["capacity"] *= 2
    (both / "manifest.json").write_text(json.dumps(manifest))
    one = write_directory(tmp_path / "one", count=12, kinds=("paged",))
    assert "with a pool of 2,048 slots" in plain(compare(one, both)), "ideal is only in one of them"
    assert "with a pool of 2,048 to 4,096 slots" in plain(compare(both, both))


def test_a_document_has_no_ends_where_there_is_no_interval(comparison: Comparison) -> None:
    document = comparison.document()
    assert document["settings"] == [{"key": "engine.scheduler", "first": "vllm-v1", "second": "orca"}]
    assert [(one["low"], one["high"], one["basis"]) for one in document["rows"]] == [
        (-2.5, -1.5, "replications"),
        (None, None, None),
        (9e-6, 3.1e-5, "requests"),
        (-1.0, 1.0, "draws"),
        (None, None, None),
    ]
