"""The page of the paper's figures says what the presets publish."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from analysis.published import Row
from analysis.stats import Interval
from tests.benchmarks.sosp23 import reproducing
from workloads.loader import load
from workloads.variants import vary

PAGE = Path(__file__).parents[1] / "analysis/results/sosp23.md"
NOTHING = Interval(float("nan"), float("-inf"), float("inf"), 0)


@pytest.mark.parametrize("name", reproducing())
def test_every_published_figure_and_remark_stands_on_the_page(name: str) -> None:
    """If this fails: python -m tests.benchmarks.sosp23."""
    workload = load(name)
    section = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (text,) = (each for each in section if each.splitlines()[0] == name)
    written = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")][2:]
    variants = {variant.label: vary(workload, variant) for variant in workload.variants} or {"": workload}
    expected = [
        [*([label] if label else []), run, f"{metric} / {figure.over}" if figure.over else metric, row.published]
        for label, one in variants.items()
        for run, figures in one.expect.items()
        for metric, figure in figures.items()
        for row in [Row(label, run, metric, figure.model_dump(), NOTHING)]
    ]
    assert [cells[: len(expected[0])] for cells in written] == expected
    assert all(remark in text for remark in workload.remarks)
    assert workload.remarks, "differences are explained"
