"""What the page of a fit says of its tests."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from analysis.fit_page import fit_page

NAN = float("nan")


class Quantity(NamedTuple):
    quantity: str
    trace: float
    fitted: float
    distance: float
    critical: float


@pytest.mark.parametrize(
    ("checks", "said"),
    [
        ([("prompts", 0.01, 0.03), ("rate", NAN, 0.03)], "No test tells the fit from the trace: 1 of 1 quantities are"),
        ([("prompts", 0.05, 0.03), ("gaps", 0.01, 0.03)], "from the trace in 1 of 2 quantities: prompts."),
        ([("arrivals", 0.5, 1.4)], "too few requests for any test"),
    ],
)
def test_the_page_says_what_the_tests_tell(checks: list[tuple[str, float, float]], said: str) -> None:
    tested = [Quantity(name, 10, 11, distance, critical) for name, distance, critical in checks]
    assert said in fit_page("a <trace>", [], tested, ["bursty"], "requests:")


def test_a_test_that_no_distance_could_fail_tells_nothing() -> None:
    text = fit_page("trace", [], [Quantity("arrivals a minute", 1216, 1173, 0.5, 1.358)], [], "requests:")
    assert "<td>too few to tell</td>" in text
    assert "<td>alike</td>" not in text


def test_names_are_text() -> None:
    text = fit_page("<img src=x>", [], [], ["<b>"], "<i>")
    assert not any(tag in text.split("<script", 1)[0] for tag in ("<img src=x>", "<b>", "<i>"))
