"""The page of a fit: a recorded trace beside requests that its fit makes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from analysis.numbers import short
from analysis.page.words import Finding
from analysis.report import asset, embed, environment, plotly_js

ALIKE, APART = "alike", "apart"


class Checked(Protocol):
    """One quantity of the trace beside the fit's."""

    @property
    def quantity(self) -> str:
        """What it is, with its unit."""

    @property
    def trace(self) -> float:
        """Mean of the trace."""

    @property
    def fitted(self) -> float:
        """Mean of the fit."""

    @property
    def distance(self) -> float:
        """Kolmogorov-Smirnov distance of the two distributions, 0 to 1 or scaled; NaN where there is only a number."""

    @property
    def critical(self) -> float:
        """Distance that two samples of one distribution exceed in 5 of 100 cases."""


def fit_page(
    name: str, panels: Sequence[Mapping[str, Any]], checks: Sequence[Checked], notes: Sequence[str], block: str
) -> str:
    """Make the page as text: one file, no network.

    Args:
        name: of the trace.
        panels: charts, each with title, x, y, log and lines (by name: places across, and heights).
        checks: what was tested.
        notes: what the fit found, and what it leaves out.
        block: the fitted `requests` block, as a workload file has it.

    """
    page: str = (
        environment()
        .get_template("fit.html.j2")
        .render(
            name=name,
            findings=[_verdict(checks), *(Finding("limit", note[:1].upper() + note[1:]) for note in notes)],
            panels=panels,
            rows=[_row(one) for one in checks],
            block=block,
            facts=embed({"keys": [], "panels": panels}),
            style=asset("report.css") + asset("planner.css"),
            scripts=[asset(f"{script}.js") for script in ("base", "sort", "planner", "fit")],
            plotly=plotly_js().decode(),
        )
    )
    return page


def _verdict(checks: Sequence[Checked]) -> Finding:
    """Say in how much the fit is like the trace."""
    tested = [one for one in checks if _told(one) in (ALIKE, APART)]
    if not tested:
        return Finding("warning", "There are too few requests for any test of the fit.")
    if apart := [one.quantity for one in tested if _told(one) == APART]:
        return Finding(
            "warning",
            f"Tests tell the fit from the trace in {len(apart)} of {len(tested)} quantities: {'; '.join(apart)}.",
        )
    return Finding(
        "result", f"No test tells the fit from the trace: {len(tested)} of {len(tested)} quantities are alike."
    )


def _told(one: Checked) -> str:
    """Say what a test tells: nothing where there is one number only, or where no distance would be too large."""
    if math.isnan(one.distance):
        return ""
    if one.critical >= 1:
        return "too few to tell"
    return APART if one.distance > one.critical else ALIKE


def _row(one: Checked) -> dict[str, str]:
    return {
        "quantity": one.quantity,
        "trace": short(one.trace),
        "fitted": short(one.fitted),
        "distance": short(one.distance, 3),
        "critical": "-" if math.isnan(one.distance) else short(one.critical, 3),
        "tells": _told(one),
    }
