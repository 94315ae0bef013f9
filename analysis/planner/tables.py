"""Answers of the planners in the terminal: figures with their intervals, one row per point and allocator."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from analysis.figures import COST, GOODPUT
from analysis.numbers import percentage, short
from analysis.planner import rows
from analysis.planner.capacities import FAILED, fleet, fleet_range
from analysis.planner.refusals import sweep_left_out
from analysis.pools import shared_pool
from analysis.saturation import Verdict
from analysis.table import STYLES
from analysis.terminal import line, plain

MOST = 60
"""Rows of a table; the parquet file has all."""
PRICE = "cost/M: of a million output tokens, at price_per_hour"
FLEET = "GPUs: engines, each with arrivals slowed down to its share; nothing spare for peaks or for one that fails"
BURSTS = "they share bursts, so fewer may do: sweep requests.one_in tells"
"""What is to be said of GPUs for a trace besides."""
OVER = "goodput: in brackets, requests over each limit of the slo"
MISSED = f"{OVER}, at the lowest rate that is too much"
QUEUE = "queue: fewer requests leave than arrive"
SMALLEST = 0.0005
"""Share of the requests that is written as 0.1 %."""
FEW = 4
"""Replications below which an interval is mostly Student's factor: 12.7 standard errors for 2, 4.3 for 3."""
ALIKE = "a trace is the same every time: one replication, and no interval"
ANY = "any"
"""The value of a key of another allocator."""
GPUS = "model.tensor_parallel"
"""The key that says how many GPUs serve together."""
COLUMNS: tuple[tuple[str, str, float], ...] = (
    ("batch", "batch_size", 1),
    ("req/s", "throughput_rps", 1),
    ("good\nreq/s", "goodput_rps", 1),
    ("ms/token\nmean", "normalized_latency_s", 1e3),
    ("TTFT s\np99", "ttft_s.p99", 1),
    ("TPOT ms\np99", "tpot_s.p99", 1e3),
    ("held\nGiB", "held_gib.peak", 1),
    ("cost\n/M", COST, 1),
)


def sweep_table(summary: Mapping[str, Any], keys: Sequence[str]) -> Table:
    """Lay out a sweep: one row per point and allocator, with the front marked."""
    cells = rows.distinct(summary["cells"])
    shown = cells if len(cells) <= MOST else [cell for cell in cells if cell["front"]][:MOST]
    columns = [column for column in COLUMNS if any(cell["figures"][column[1]]["mean"] is not None for cell in cells)]
    said = ["*: no other row but the bound has as many requests a second with no more latency and memory held at most"]
    if len(shown) < len(cells):
        said = [f"{len(shown)} of {len(cells)} rows: those that no other one beats; results.parquet has all"]
    counts = [cell["n"] for cell in cells]
    if max(counts, default=0) > 1:
        said.append(spread_note(counts, summary.get("different")))
    said += [] if summary.get("drawn", True) else [ALIKE]
    said.append("req/s: finished, over the whole run with its beginning and end")
    pool = shared_pool((cell["allocator"], cell.get("pool_slots")) for cell in shown)
    said.append("held: on each GPU, at its peak" + (f", of a {pool}" if pool else ""))
    said += [PRICE] if any(name == COST for _, name, _ in columns) else []
    said += sweep_left_out(cells)
    made = plain("Sweep", "\n".join(said))
    for key in [*rows.last_words(keys), "allocator", "verdict"]:
        made.add_column(key, no_wrap=True)
    for heading, *_ in columns:
        made.add_column(heading, justify="right", no_wrap=True)
    made.add_column("", no_wrap=True)
    for cell in shown:
        verdict = Verdict(cell["verdict"])
        figures = [interval(cell["figures"][name], scale) for _, name, scale in columns]
        words = [line(rows.said(cell["settings"].get(key, ANY))) for key in keys]
        mark = "*" if cell["front"] else ""
        made.add_row(*words, line(cell["allocator"]), Text(str(verdict), style=STYLES[verdict]), *figures, mark)
    return made


def capacity_table(summary: Mapping[str, Any], keys: Sequence[str]) -> Table:
    """Lay capacities out: what is sustained, what breaks above it, and its share of the reference."""
    aims = " and ".join(one["text"] for one in summary["slo"])
    made = plain(f"Highest sustained rate with {aims}, {summary['unit']}", "\n".join(_legend(summary)))
    columns = _figures(summary, keys)
    for key in [*rows.last_words(keys), "allocator"]:
        made.add_column(key, no_wrap=True)
    for heading in columns:
        made.add_column(heading, justify="right", no_wrap=True)
    made.add_column("above it breaks", no_wrap=True)
    if summary["ratios"]:
        made.add_column(f"sustained\n{share_of(summary['ratios'])}", justify="right", no_wrap=True)
    ratios = {(one["point"], one["over"]): Text(share(one)) for one in summary["ratios"]}
    for answer in summary["answers"]:
        words = [line(rows.said(answer["settings"][key])) for key in keys]
        figures = [figure(answer) for figure in columns.values()]
        ratio = [ratios.get((answer["point"], answer["allocator"]), Text(""))] if summary["ratios"] else []
        made.add_row(*words, line(answer["allocator"]), *figures, line(broken(answer["searches"])), *ratio)
    return made


def _figures(summary: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Callable[[Mapping[str, Any]], str]]:
    """Choose the columns for an answer: each heading, and the function that writes the cell."""
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {"sustained": sustained}
    if GPUS in keys:
        columns["a GPU"] = a_gpu
    if demand := summary.get("demand"):
        columns[f"GPUs for\n{short(demand)}/s"] = lambda answer: gpus(answer, demand)
    if priced(summary):
        columns["cost\n/M"] = cost
    return columns


def _legend(summary: Mapping[str, Any]) -> list[str]:
    """Say what the columns are, a line each."""
    said = [] if summary.get("drawn", True) else [ALIKE]
    if pool := shared_pool((one["allocator"], one.get("pool_slots")) for one in summary["answers"]):
        said.append(f"sustained: with a {pool}")
    if any(one["n"] > 1 for one in summary["answers"]):
        said.append(spread_note([one["n"] for one in summary["answers"]], summary.get("different")))
        if summary["ratios"]:
            said.append("shares are of pairs of replications")
        if near := resolution(summary):
            said.append(f"{near}, which intervals do not count")
    if any(missed(one["searches"]) for one in summary["answers"]):
        said.append(MISSED)
    if any(fell_behind(one["searches"]) for one in summary["answers"]):
        said.append(QUEUE)
    if summary.get("demand"):
        said.append(fleet_note(summary))
    if priced(summary):
        said.append(f"{PRICE}, while such a rate lasts")
    return said


def resolution(summary: Mapping[str, Any]) -> str:
    """Say how near a search comes: the gap between the rate it sustains and the next one that it does not.

    Nothing where no search has found both.
    """
    gaps = [
        one["not_sustained"] / one["sustained"] - 1
        for answer in summary["answers"]
        for one in answer["searches"]
        if one["sustained"] and one["not_sustained"]
    ]
    return f"rates are tried {100 * max(gaps):.1f} % apart" if gaps else ""


def sustained(answer: Mapping[str, Any]) -> str:
    """Write a capacity with its interval."""
    if not answer["n"]:
        return "-"
    if answer["none"] == answer["n"]:
        return "none"
    return f"{'over ' if answer['at_least'] else ''}{interval(answer['capacity'])}"


def a_gpu(answer: Mapping[str, Any]) -> str:
    """Write a capacity divided by the GPUs that share the model, where their number is varied."""
    gpus, mean = answer["settings"].get(GPUS), answer["capacity"]["mean"]
    return "-" if gpus is None or mean is None else short(mean / gpus)


def gpus(answer: Mapping[str, Any], demand: float) -> str:
    """Write how many GPUs serve a rate, and in brackets how many at the ends of the capacity's interval."""
    number = fleet(answer, demand)
    if number is None:
        return "-"
    if answer["at_least"]:
        return f"at most {number:,}"
    fewest, most = fleet_range(answer, demand)
    if fewest == most:
        return f"{number:,}"
    return f"{number:,} ({fewest:,} to {most:,})" if math.isfinite(most) else f"{number:,} (at least {fewest:,})"


def fleet_note(summary: Mapping[str, Any]) -> str:
    """Say what numbers of GPUs are."""
    said = [FLEET] if summary.get("drawn", True) else [FLEET, BURSTS]
    if any(one["n"] > 1 for one in summary["answers"]):
        said.append("in brackets: at the ends of the interval")
    return "; ".join(said)


def spread_note(counts: Iterable[int], different: int | None = None) -> str:
    """Say what a ± is, and what makes it wide where replications are few.

    Args:
        counts: replications of each row; one has no interval.
        different: how many there can be at most; None if as many as one likes.

    """
    repeated = [count for count in counts if count > 1]
    more = min(2 * FEW, different or 2 * FEW)
    narrower = f", --repeat {more} would narrow it" if more > max(repeated) else ""
    few = f"; of so few it is wide{narrower}" if min(repeated) < FEW else ""
    return f"±: 95 % interval over {replications(repeated)}{few}"


def replications(counts: Collection[int]) -> str:
    """Say how many replications rows have, which of a trace depends on how many engines take turns."""
    fewest, most = min(counts), max(counts)
    if most == 1:
        return "one replication"
    between = f"{fewest} {'to' if most - fewest > 1 else 'or'} " if fewest < most else ""
    return f"{between}{most} replications"


def priced(summary: Mapping[str, Any]) -> bool:
    """Whether any answer has a cost."""
    return any(answer.get("cost") is not None for answer in summary["answers"])


def cost(answer: Mapping[str, Any]) -> str:
    """Write what a million output tokens cost at the rate that is sustained; less if that is higher than was tried."""
    return "-" if answer["cost"] is None else f"{'under ' if answer['at_least'] else ''}{short(answer['cost'])}"


def broken(found: Sequence[Mapping[str, Any]]) -> str:
    """Say what does not hold in some replications, as of a search just above the capacity: objectives, or the queue.

    Behind goodput stand the limits that requests are over, worst first.  Why a run could not be done is said by
    `failures`.

    Args:
        found: of each replication what it is `limited_by` and what it `missed`.

    """
    over = ", ".join(f"{name} {percentage(100 * share)} %" for name, share in missed(found).items())
    words = _reasons(found)
    return ", ".join(f"{word} ({over})" if over and word.startswith(f"{GOODPUT}=") else word for word in words)


def fell_behind(found: Sequence[Mapping[str, Any]]) -> bool:
    """Whether fewer requests left than arrived in some replications, which `broken` calls the queue."""
    return "queue" in _reasons(found)


def _reasons(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what does not hold in some replications, each once."""
    reasons = ["failed" if one["limited_by"].startswith(FAILED) else one["limited_by"] for one in found]
    return list(dict.fromkeys(word for reason in reasons for word in reason.split(", ") if word))


def missed(found: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return what share of the requests is over each limit, the largest first.

    It is the mean over the replications in which goodput does not hold.  Empty if there are none, or nothing is known
    of limits.
    """
    over = [one["missed"] for one in found if one.get("missed")]
    names = dict.fromkeys(name for one in over for name in one)
    means = {name: sum(one.get(name, 0.0) for one in over) / len(over) for name in names}
    return {name: means[name] for name in sorted(means, key=lambda name: -means[name]) if means[name] >= SMALLEST}


def share_of(ratios: Sequence[Mapping[str, Any]]) -> str:
    """Head a column of `share`s, as those of a run are headed: `% ideal`."""
    held_against = dict.fromkeys(str(one["allocator"]) for one in ratios)
    return f"% {' or '.join(held_against)}"


def share(ratio: Mapping[str, Any]) -> str:
    """Write what an allocator sustains in per cent of what the one does that it is held against, with the interval."""
    mean, low, high = (100 / ratio[part] for part in ("mean", "high", "low"))
    return f"{mean:.0f} ({low:.0f} to {high:.0f})"


def failures(failed: Sequence[Mapping[str, Any]]) -> list[Text]:
    """Say what could not be done, and why; a line each, the first ten."""
    lines = [line(f"failed: {one['where']}: {one['why']}", style="bold red") for one in failed[:10]]
    more = [Text(f"failed: {len(failed) - 10} more; all are in summary.json", style="bold red")]
    return lines + (more if len(failed) > 10 else [])


def interval(figure: Mapping[str, float | None], scale: float = 1) -> str:
    """Write a mean with the half width of its interval: `12.3 ±0.4`; the bare mean where nothing was repeated.

    Both have the same digits after the point, as many as tell three digits of the mean.
    """
    mean, low, high = (figure[name] for name in ("mean", "low", "high"))
    if mean is None:
        return "-"
    value = scale * mean
    if low is None or high is None:
        return short(value)
    half = scale * (high - low) / 2
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 2
    around = f"{half:,.{digits}f}" if round(half, digits) else "0"
    return f"{value:,.{digits}f} ±{around}"
