"""What the page of a question is made of, and what such pages have in common.

`sweep_page`, `capacity_page` and `advice_page` each turn a directory into a `Content`; `page`
fills its template and writes the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from analysis.figures import GOODPUT, Figure
from analysis.page.style import limits
from analysis.page.words import Finding
from analysis.planner.reading import Planned
from analysis.planner.rows import plain, said


@dataclass(frozen=True)
class Content:
    """One page."""

    template: str
    """Extends planner.html.j2."""
    script: str
    """Name of the script in `assets/` that draws the charts."""
    facts: Mapping[str, Any]
    """What that script draws from, as JSON."""
    findings: Sequence[Finding]
    subtitle: Sequence[str]
    more: Mapping[str, Any] = field(default_factory=dict)
    """What else the template names."""


def values_of(planned: Planned) -> dict[str, list[Any]]:
    """Return the values of each varied key, as they are compared."""
    return {str(axis["key"]): [plain(value) for value in axis["values"]] for axis in planned.manifest["vary"]}


def drawn_value(value: Any) -> Any:
    """Return a value as the scripts draw it: numbers keep their distances, text is written as in tables."""
    return said(value) if isinstance(value, str) else value


def kinds_of(measured: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> list[str]:
    """Kinds of the allocators with these labels, of which the scripts make their colours."""
    known = {one["allocator"]: one["kind"] for one in measured}
    return [known[label] for label in labels]


def legend(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """Describe figures to a script."""
    return [one._asdict() for one in figures]


def interval_parts(figure: Mapping[str, float | None], unit: str) -> list[float | None]:
    """Mean and ends of an interval; Student's is not kept from going beyond what a share can be, so it is cut there."""
    mean, low, high = (figure[part] for part in ("mean", "low", "high"))
    if unit != "%" or low is None or high is None:
        return [mean, low, high]
    return [mean, max(low, 0.0), min(high, 1.0)]


def drawn(measured: Mapping[str, Mapping[str, float | None]], figures: Sequence[Figure]) -> dict[str, Any]:
    """Return mean and interval of those of a point's figures that are drawn."""
    return {one.name: interval_parts(measured[one.name], one.unit) for one in figures}


def aims(planned: Planned) -> str:
    """Say what is asked for, and for goodput what makes a request a good one."""
    asked = planned.summary["slo"]
    met = limits(planned.slo) if any(one["name"] == GOODPUT for one in asked) else ""
    return " and ".join(one["text"] for one in asked) + (f" (share of requests with {met})" if met else "")
