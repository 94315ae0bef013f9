"""Cells of the tables that a run prints, and rates that were searched for, of figures made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.figures import Allocator
from analysis.published import Row
from analysis.stats import Interval
from analysis.sustained import sustained
from analysis.table import published


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("share.external", ["share.external"]),
        ("share.live+ab+cd", ["share.live+ ab+", "cd"]),  # as many letters as fit
        ("share.external+rounding", ["share.external+", "rounding"]),
        ("share.live+cached+free", ["share.live+", "cached+ free"]),
        ("cost_per_million_output_tokens", ["cost_per_million_output_tokens"]),  # not broken inside
        ("sustained_rps / Orca (Max)", ["sustained_rps /", "Orca (Max)"]),
        ("sustained_rps / a", ["sustained_rps /", "a"]),
    ],
)
def test_a_long_name_of_a_figure_is_broken_behind_a_plus_or_between_words(name: str, lines: list[str]) -> None:
    row = Row("", "paged", name, {"value": 1.0}, Interval(1.0, 1.0, 1.0, 1))
    assert str(next(iter(published([row]).columns[1].cells))).split("\n") == lines


def searched(rps: float | None, *tried: tuple[float, float]) -> Allocator:
    found = {"rps": rps, "normalized_latency_s": 0.02, "tried": [{"rate": at, "latency_s": s} for at, s in tried]}
    return Allocator("paged", [{"sustained": found, "metrics": {}}])


@pytest.mark.parametrize(
    ("rps", "tried", "said"),
    [
        (2.5, ((2.0, 0.01), (3.0, 0.03)), "2.50 req/s"),
        (None, ((2.0, 0.01), (8.0, 0.02)), "more than 8 req/s"),  # the search ended before it was too much
        (None, ((2.0, 0.03), (0.5, 0.021)), "none"),
        (None, ((2.0, 0.03), (0.5, 0.01)), "none"),
        (None, (), "none"),
    ],
)
def test_a_rate_that_was_not_found_is_said_to_be_more_only_if_all_were_sustained(
    rps: float | None, tried: Any, said: str
) -> None:
    assert sustained([searched(rps, *tried)]) == [
        f"Rate at which latency reaches 20 ms/token on average: paged {said}."
    ]
