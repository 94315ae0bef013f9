"""Published figures beside simulated ones.

A workload file may list published figures of its runs (`expect`): values or ranges, absolute or as a
multiple of another run's.  Each becomes a row with the published figure, the simulated one with its
interval over replications, and their difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from analysis.figures import GOODPUT, Allocator, is_figure, parts, ratio
from analysis.numbers import short
from analysis.slo import PART
from analysis.stats import Interval

Expected = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""`expect` of a manifest: label -> metric -> {value, low, high, over, source}."""

FRACTIONS = ("kv_efficiency", "kv_sharing", "prefix_hit_rate", "kv_usage", GOODPUT)
"""Metrics between 0 and 1, which are shown in per cent like the shares of the ledger."""
HEADINGS = ("allocator", "figure", "published", "simulated", "95 % interval", "difference", "source")


class Row(NamedTuple):
    """One published figure and its simulated counterpart."""

    variant: str
    """Variant of the workload; empty where it has none."""
    label: str
    name: str
    """Metric, and the run that it is a multiple of."""
    given: Mapping[str, Any]
    """What was published."""
    simulated: Interval
    """Infinitely wide where nothing was repeated."""

    @property
    def is_share(self) -> bool:
        """Whether the figure is a share, so that differences are percentage points."""
        return not self.given.get("over") and ("share." in self.name or self._is_fraction)

    @property
    def _is_fraction(self) -> bool:
        return (self.name.split(".", 2)[2] if self.name.startswith(PART) else self.name) in FRACTIONS

    def text(self, digits: str) -> str:
        """Write a value, given in digits, with its unit."""
        if self.given.get("over"):
            return f"{digits}x"
        return f"{digits} %" if self.is_share else digits

    def _known(self, value: float) -> str:
        """Write a published value as it was published, without digits that nobody claims."""
        return self.text(f"{self.scaled(value):,.6g}")

    def scaled(self, value: float) -> float:
        """Turn a fraction into per cent."""
        return 100 * value if self._is_fraction and self.is_share else value

    @property
    def published(self) -> str:
        """The figure or range as text."""
        low, high = _bounds(self.given)
        if low == high:
            return self._known(low)
        if math.isinf(low):
            return f"at most {self._known(high)}"
        if math.isinf(high):
            return f"at least {self._known(low)}"
        return f"{self._known(low)} to {self._known(high)}"

    @property
    def value(self) -> str:
        """The simulated figure as text; without a unit where there is none."""
        if math.isnan(self.simulated.value):
            return "-"
        return self.text(short(self.scaled(self.simulated.value)))

    @property
    def interval(self) -> str:
        """Its 95 % interval as text; of a single run there is none, which a multiple must say."""
        _, low, high, _ = self.simulated
        if not math.isfinite(high):
            return "one run" if self.given.get("over") else "-"
        return f"{short(self.scaled(low))} … {short(self.scaled(high))}"

    @property
    def near(self) -> float:
        """The figure, or the value of the range that is nearest to the simulated one."""
        low, high = _bounds(self.given)
        return min(max(self.simulated.value, low), high)

    @property
    def difference(self) -> str:
        """Simulated against the figure, or against the end of the range that it lies beyond."""
        low, high = _bounds(self.given)
        simulated, near = self.simulated.value, self.near
        if math.isnan(simulated):
            return "-"
        if low < high and simulated == near:
            return "within"
        if self.is_share:
            return f"{self.scaled(simulated) - self.scaled(near):+.1f} points"
        return f"{100 * (simulated / near - 1):+,.1f} %" if near else f"{simulated:+.3g}"


def rows(allocators: Sequence[Allocator], expected: Expected, variant: str = "") -> list[Row]:
    """Set every published figure beside the simulated one.

    Args:
        allocators: of the run.
        expected: `expect` of its manifest.
        variant: of which workload variant this is.

    Raises:
        KeyError: an allocator or a metric is named that the run does not have.

    """
    known = {one.label: one for one in allocators}
    found = []
    for label, figures in expected.items():
        for name, given in figures.items():
            plain = given if isinstance(given, Mapping) else {"value": given}
            over = plain.get("over")
            simulated = ratio(known[over], known[label], name) if over else known[label].interval(name)
            found.append(Row(variant, label, f"{name} / {over}" if over else name, plain, simulated))
    return found


def faults(labels: Sequence[str], expected: Expected, mix: Sequence[str] = ()) -> list[str]:
    """Say which runs, metrics and parts of the `mix` `expect` names that do not exist."""
    found = []
    for label, figures in expected.items():
        for name, given in figures.items():
            found += [
                f"expect: no run is called {wanted}; there are: {', '.join(sorted(labels))}"
                for wanted in (label, given.get("over") or label)
                if wanted not in labels
            ]
            if not is_figure(name):
                head = name.partition(".")[0]
                there = ", ".join(f"{head}.{part}" for part in parts(head) if part)
                right = f"there are: {there}" if there else "see `list metrics`"
                found.append(f"expect: {label}: no metric is called {name}; {right}")
            elif name.startswith(PART) and (part := name.split(".")[1]) not in mix:
                there = f"there are: {', '.join(mix)}" if mix else "requests are no mix"
                found.append(f"expect: {label}: no part is called {part}; {there}")
    return list(dict.fromkeys(found))


def markdown(found: Sequence[Row]) -> str:
    """Write rows as a table in Markdown."""
    variants = any(row.variant for row in found)
    headings = (("variant",) if variants else ()) + HEADINGS
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    for row in found:
        cells = ((row.variant,) if variants else ()) + cells_of(row)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def cells_of(row: Row) -> tuple[str, ...]:
    """Return the cells of a row, in the order of `HEADINGS`."""
    source = str(row.given.get("source") or "")
    return row.label, row.name, row.published, row.value, row.interval, row.difference, source


def _bounds(given: Mapping[str, Any]) -> tuple[float, float]:
    value, low, high = (given.get(name) for name in ("value", "low", "high"))
    if value is not None:
        return float(value), float(value)
    return -math.inf if low is None else float(low), math.inf if high is None else float(high)
