"""The tables that a run prints: speed, latency, memory, and published figures beside simulated ones.

They fit in 100 columns, wrap long names and do not rely on colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any, TypeAlias

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from analysis.figures import COST, SUSTAINED, Allocator, bound, group, offered, percent_of
from analysis.numbers import listed, percentage, short
from analysis.observed import LEDGER_WORDS, SHARES
from analysis.parts import LATENCIES, Row
from analysis.parts import rows as rows_of_parts
from analysis.pools import pool_of
from analysis.published import HEADINGS as PUBLISHED
from analysis.published import Row as PublishedRow
from analysis.published import cells_of, rows
from analysis.remarks import above_bound, page_calls, shortfalls
from analysis.saturation import MEANINGS, Verdict
from analysis.sustained import sustained
from analysis.terminal import line, plain, put
from analysis.variants import Variants
from workloads.errors import in_a_line

NAME = 18
"""Columns of an allocator's name."""
FIGURE = len("share.external+")
"""Columns of a figure's name, if it can be broken."""
MARK = "*"
"""Stands beside figures that mean little."""
ROUNDING = 1e-6
"""Relative gap that rounding may leave in Little's law."""
STYLES = {
    Verdict.STABLE: "green",
    Verdict.BACKLOGGED: "yellow",
    Verdict.OVERLOADED: "bold red",
    Verdict.REFUSED: "bold red",
}
Cell: TypeAlias = Callable[[Allocator], str]
LEDGER = {"internal": "intern.", "external": "extern.", "reserved": "reserv.", "rounding": "round."}


def show(entries: Iterable[Mapping[str, Any]], manifest: Mapping[str, Any], console: Console) -> None:
    """Print the tables of a run.

    Args:
        entries: `runs` of summary.json.
        manifest: the run's manifest: `runs` has the sizes of the pools, `expect` adds the table of published figures.
        console: where to.

    """
    allocators = group(entries)
    pools = {int(run["capacity"]) for run in manifest.get("runs") or ()}
    parts = [mixed(found)] if (found := [*rows_of_parts(allocators)]) else []
    for table in (speed(allocators), latency(allocators), *parts, memory(allocators, pools)):
        put(console, table)
        console.print()
    if expected := manifest.get("expect"):
        show_published(rows(allocators, expected), manifest.get("remarks") or (), console)
    for note in (*notes(allocators), *(manifest.get("notes") or ())):
        console.print(line(note), style="dim")


def show_variants(found: Variants, console: Console) -> None:
    """Print the runs of all variants, a row each, and published figures beside simulated ones."""
    put(console, overview(found.allocators))
    if rows := found.published:
        show_published(rows, found.remarks, console)


def overview(variants: Sequence[tuple[str, Sequence[Allocator]]]) -> Table:
    """What became of each variant under each allocator."""
    searched = any(math.isfinite(one.mean(SUSTAINED)) for _, allocators in variants for one in allocators)
    repeats = max(len(one.entries) for _, allocators in variants for one in allocators)
    caption = (
        "ms/token: end-to-end latency / output tokens, mean over requests; saved: share of slots that sharing avoids"
    )
    table = plain("Variants", caption + (f"; means over {repeats} replications" if repeats > 1 else ""))
    for heading in ("variant", "allocator"):
        table.add_column(heading, overflow="fold")
    table.add_column("verdict", no_wrap=True)
    columns = _numbers(
        table,
        ("batch\nmean", lambda one: short(one.mean("batch_size"))),
        ("req/s", lambda one: short(one.mean("throughput_rps"))),
        ("ms/token", lambda one: short(1e3 * one.mean("normalized_latency_s"))),
        ("saved\n%", lambda one: short(100 * one.mean("kv_sharing"), 1)),
        ("sustained\nreq/s", lambda one: short(one.mean(SUSTAINED))) if searched else None,
    )
    for variant, allocators in variants:
        for one in allocators:
            table.add_row(line(variant), _name(one.label), _verdict(one), *(cell(one) for cell in columns))
    return table


def show_published(found: Sequence[PublishedRow], remarks: Iterable[str], console: Console) -> None:
    """Print published figures beside simulated ones, and under them what remains different and why."""
    put(console, published(found))
    for remark in remarks:
        console.print(Padding(line(remark), (0, 0, 0, 1)))


def speed(allocators: Sequence[Allocator]) -> Table:
    """Verdict, batch, throughput and preemptions, a row an allocator."""
    ideal = bound(allocators)
    priced = any(math.isfinite(one.mean(COST)) for one in allocators)
    price = "\ncost: of a million output tokens, at price_per_hour" if priced else ""
    rate = f"\nreq/s: {told}" if (told := offered(allocators)) else ""
    queued = any(one.verdict is Verdict.BACKLOGGED for one in allocators)
    backlog = f"\nBACKLOGGED: {MEANINGS[Verdict.BACKLOGGED]}" if queued else ""
    table = plain("Speed", f"batch: sequences running, mean over time{rate}{price}{backlog}")
    table.add_column("allocator", overflow="fold", min_width=_widest(_name(one.label) for one in allocators))
    table.add_column("verdict", no_wrap=True)
    columns = _numbers(
        table,
        ("batch\nmean", lambda one: short(one.mean("batch_size"))),
        ("batch\npeak", lambda one: short(one.mean("batch_size.peak"))),
        ("batch\n% ideal", lambda one: short(percent_of(one, ideal, "batch_size"), 0)) if ideal else None,
        ("req/s", lambda one: short(one.mean("throughput_rps"))),
        ("req/s\n% ideal", lambda one: short(percent_of(one, ideal, "throughput_rps"), 0)) if ideal else None,
        ("output\ntokens/s", lambda one: short(one.mean("output_tps"))),
        ("cost\n/M", lambda one: short(one.mean(COST))) if priced else None,
        ("done", lambda one: f"{one.count('finished')}/{one.count('total')}"),
        ("pre-\nempted", lambda one: short(one.mean("preemptions"), 0)),
    )
    for one in allocators:
        table.add_row(_name(one.label), _verdict(one), *(cell(one) for cell in columns))
    return table


def latency(allocators: Sequence[Allocator]) -> Table:
    """Normalized latency, TTFT, TPOT and ITL at p50 and p99, and how many requests meet the SLO, if there is one.

    Figures of a run that is OVERLOADED mean little, and are marked.
    """
    caption = "ms/token: end-to-end latency / output tokens; gap: between two tokens, stalls included"
    marks = [one.verdict is Verdict.OVERLOADED for one in allocators]
    table = plain("Latency", caption + (f"\n{MARK} OVERLOADED: grows with the length of the run" if any(marks) else ""))
    table.add_column("allocator", overflow="fold", min_width=_widest(_name(one.label) for one in allocators))
    columns = (
        ("ms/token", "normalized_latency_s", 1e3),
        ("TTFT s", "ttft_s", 1.0),
        ("TPOT ms", "tpot_s", 1e3),
        ("gap ms", "itl_s", 1e3),
    )
    for heading, _, _ in columns:
        table.add_column(f"{heading}\np50", justify="right")
        table.add_column("\np99", justify="right")
    limited = any(math.isfinite(one.within_slo) for one in allocators)
    if limited:
        table.add_column("in SLO\n%", justify="right")
    if any(marks):
        table.add_column("", no_wrap=True)
    for one, overloaded in zip(allocators, marks, strict=True):
        cells = [
            Text(short(scale * one.mean(f"{name}.{quantile}")), style="dim" if overloaded else "")
            for _, name, scale in columns
            for quantile in ("p50", "p99")
        ]
        cells += [Text(percentage(one.within_slo))] if limited else []
        cells += [Text(MARK if overloaded else "", style="bold red")] if any(marks) else []
        table.add_row(_name(one.label), *cells)
    return table


def mixed(found: Sequence[Row]) -> Table:
    """Latencies, SLO, preemptions and prefix hits of each part of a mix, and under it a row an allocator."""
    limited = any(math.isfinite(row.of.within_slo) for row in found)
    hits = any(row.of.mean("prefix_hit_rate") > 0 for row in found)
    table = plain("Parts of the mix", "gap: between two tokens; e2e: from arrival to the last token")
    names = [Text("\n").join(Text("  ") + part for part in _name(row.label, NAME - 4).split()) for row in found]
    table.add_column("part and\nallocator", overflow="fold", min_width=_widest(names))
    table.add_column("asked,\ndone", justify="right")
    for one in LATENCIES:
        for place, quantile in enumerate(one.shown):
            table.add_column(f"{'' if place else one.short}\n{quantile}", justify="right")
    for heading in (*(["in SLO\n%"] if limited else []), "pre-\nempted", *(["hits\n%"] if hits else [])):
        table.add_column(heading, justify="right")
    for place, row in enumerate(found):
        if not place or found[place - 1].part != row.part:
            table.add_row(line(row.part, "bold"), str(row.of.count("total")))
        style = "dim" if row.of.verdict is Verdict.OVERLOADED else ""
        cells = [names[place], Text(str(row.of.count("finished")))]
        cells += [Text(short(one.of(row, quantile)), style=style) for one in LATENCIES for quantile in one.shown]
        cells += [Text(percentage(row.of.within_slo))] if limited else []
        cells += [Text(short(row.of.mean("preemptions"), 0))]
        cells += [Text(percentage(100 * row.of.mean("prefix_hit_rate")))] if hits else []
        table.add_row(*cells)
    return table


def memory(allocators: Sequence[Allocator], pools: Collection[int]) -> Table:
    """The ledger as percentages of the pool (mean over time), a row an allocator; prefix hits if there are any.

    The caption gives the sizes of the `pools` in slots.
    """
    hits = any(one.mean("prefix_hit_rate") > 0 for one in allocators)
    present = [name for name in SHARES[:-1] if any(one.mean(f"share.{name}") > 0 for one in allocators)]
    said = [f"% of the {pool_of(pools)}, mean over time", *(f"{name}: {LEDGER_WORDS[name]}" for name in present)]
    said.append("live / held: share of held slots with live K/V")
    table = plain("Memory", "; ".join(said + (["hits: prompt tokens found in the prefix cache"] if hits else [])))
    table.add_column("allocator", overflow="fold", min_width=_widest(_name(one.label) for one in allocators))
    for name in SHARES:
        table.add_column(LEDGER.get(name, name), justify="right")
    table.add_column("live /\nheld %", justify="right")
    if hits:
        table.add_column("prefix\nhits %", justify="right")
    for one in allocators:
        shares = [short(one.mean(f"share.{name}"), 1) for name in SHARES]
        found = [percentage(100 * one.mean("prefix_hit_rate"))] if hits else []
        table.add_row(_name(one.label), *shares, short(100 * one.mean("kv_efficiency"), 1), *found)
    return table


def published(found: Sequence[PublishedRow]) -> Table:
    """Published figures beside simulated ones, a row each."""
    table = plain("Published beside simulated")
    variants = any(row.variant for row in found)
    for heading in (*(["variant"] if variants else []), *PUBLISHED):
        number = heading in {"published", "simulated", "95 % interval", "difference"}
        table.add_column(
            heading.replace(" % ", " %\n"),
            justify="right" if number else "left",
            overflow="fold",
            no_wrap=heading == "figure",  # broken already; a least width would push others off the edge
        )
    for row in found:
        label, figure, *rest = cells_of(row)
        who = [line(row.variant), line(label)] if variants else [line(label)]
        table.add_row(*who, *map(Text, (_figure_name(figure), *rest)))
    return table


def _figure_name(name: str) -> str:
    """Write the name of a figure; a long one is broken behind a plus or between words, never inside one."""
    pieces = name.replace("+", "+ ").split(" ") if len(name) > FIGURE else [name]
    lines = [""]
    for piece in pieces:
        joined = f"{lines[-1]} {piece}".strip()
        lines[-1:] = [joined] if len(joined) <= FIGURE or not lines[-1] else [lines[-1], piece]
    return "\n".join(lines)


def notes(allocators: Sequence[Allocator]) -> list[str]:
    """What a reader of the tables must know: requests not served whole, overload, rates that were searched for."""
    lines = shortfalls(allocators)
    if overloaded := [one.label for one in allocators if one.verdict is Verdict.OVERLOADED]:
        lines.append(f"{listed(overloaded)}: OVERLOADED, so latencies grow with the length of the run")
    for one in allocators:
        if lost := [entry for entry in one.entries if (entry.get("little") or {"gap": 0})["gap"] > ROUNDING]:
            lines.append(
                f"{one.label}: steps and requests disagree by {100 * lost[0]['little']['gap']:.3g} % on how many "
                "were in the system (Little's law): the run's files are not whole"
            )
    lines += [*page_calls(allocators), *above_bound(allocators), *sustained(allocators)]
    if (repeats := {len(one.entries) for one in allocators}) != {1}:
        means = f"Figures are means over {max(repeats)} replications, but requests are counted in all of them"
        lines.append(f"{means}; `compare` gives intervals of differences.")
    return lines


def _numbers(table: Table, *columns: tuple[str, Cell] | None) -> list[Cell]:
    """Add columns of numbers, but for those that are None; return what writes the cells of each."""
    shown = [column for column in columns if column is not None]
    for heading, _ in shown:
        table.add_column(heading, justify="right")
    return [cell for _, cell in shown]


def _verdict(one: Allocator) -> Text:
    return Text(str(one.verdict), style=STYLES[one.verdict])


def _name(label: str, width: int = NAME) -> Text:
    """Write a label; a long one is broken behind a hyphen where it has one."""
    return Text("\n".join(wrap(in_a_line(label), width)))


def _widest(names: Iterable[Text]) -> int:
    """Return how wide a column of names must be so that none is broken once more; at least 12."""
    return max([12, *(len(each) for name in names for each in name.plain.split("\n"))])
