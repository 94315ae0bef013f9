"""Requests that latencies of planners leave out: those that were refused, and why, and those that did not finish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.numbers import percentage


def left_out(told: Sequence[Mapping[str, Any]], status: str = "refused") -> str:
    """Say what share of the requests is refused, and why, or is unfinished; nothing where none is, or none is known.

    Args:
        told: of each run or cell: the share, by `status`, and reasons for which some were refused, if they are known.
        status: `refused` or `unfinished`.

    """
    some = [percentage(100 * share) for share in sorted(filter(None, (one.get(status) for one in told)))]
    if not some:
        return ""
    span = " to ".join(dict.fromkeys((some[0], some[-1])))
    what = turned_away(told) if status == "refused" else "unfinished when the run ends"
    return f"{span} % of the requests are {what}; latencies leave them out"


def turned_away(told: Sequence[Mapping[str, Any]]) -> str:
    """Say that requests are refused, and for which reasons if they are known: older directories lack them."""
    reasons = dict.fromkeys(reason for one in told for reason in one.get("refusals", ()))
    return f"refused ({', or '.join(reasons)})" if reasons else "refused"


def sweep_left_out(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what share of the requests is refused, or unfinished, in the cells of a sweep, or in some of them."""
    said = {left_out(cells, name): all(cell.get(name) for cell in cells) for name in ("refused", "unfinished")}
    return [text if everywhere else f"in some rows {text}" for text, everywhere in said.items() if text]
