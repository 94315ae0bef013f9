"""Advice in words and as a table, from the summary of a search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from analysis.figures import GOODPUT
from analysis.numbers import percentage, short
from analysis.page.words import Finding
from analysis.planner.binding import BEHIND, bound, percent
from analysis.planner.refusals import left_out
from analysis.planner.tables import OVER, QUEUE, broken, fell_behind, missed
from analysis.terminal import plain
from workloads.errors import in_a_line

TELLS = {"better": "better", "worse": "worse", "slight": "slight", "same": "unclear", "none": "same"}
STYLES = {"better": "green", "worse": "red", "slight": "dim", "same": "dim", "none": "dim"}


def words(summary: Mapping[str, Any]) -> list[Finding]:
    """Say what limits the workload, what to change, what that gains, and what makes no clear difference."""
    limits, best = summary["limits"], summary["best"]
    aims = " and ".join(map(_aim, summary["slo"]))
    limit = bound(limits, more_seats=_more_seats(summary["changes"]))["text"]
    said = [Finding("limit", limit + _as_it_is(summary["before"], aims))]
    refused = limits.get("refused", 0)
    if 0 < refused < 1:  # of all of them that is what limits
        said.append(Finding("warning", f"{left_out([limits])}."))
    if best["change"]:
        said.append(
            Finding(
                "advice", f"Change {best['change']}. {_bought(best['effect'], summary)}{_holds(best, summary, aims)}"
            )
        )
        again = best["confirmed"]
        if again is not None:
            text = (
                f"Measured once more, on replications that had no part in the choice: {_differences(again, summary)}."
            )
            said.append(Finding("advice" if again["tells"] == "better" else "warning", text))
        elif summary["basis"] == "requests":
            alike = "Nothing was repeated" if summary["drawn"] else "A trace is the same every time"
            text = (
                f"{alike}, so this choice could not be checked on other requests. The best of many settings looks a "
                "little better on the requests it was chosen on than it is."
            )
            said.append(Finding("warning", text))
    else:
        said.append(Finding("advice", _nothing(summary, aims)))
    if "kv_dtype" in best["knobs"]:
        said.append(
            Finding(
                "warning", "Whether answers stay as good with a KV cache in fp8 is not simulated; test that yourself."
            )
        )
    for tells, what in (
        ("slight", "A clear difference, but too small to be worth a change"),
        ("same", "No clear difference from the file as it is"),
        ("none", "No difference at all, request by request"),
    ):
        if some := _by_knob([one for one in summary["changes"] if one["effect"]["tells"] == tells]):
            said.append(Finding("limit", f"{what}: {some}."))
    gain = [one for one in summary["hardware"] if one["effect"]["tells"] == "better"]
    if gain:
        most = min(gain, key=_latency)
        bought = _bought(most["effect"], summary)
        text = f"Of a quarter more of each of the GPU's resources, {most['change']} gains most. {bought}"
        said.append(Finding("result", text))
    elif summary["hardware"]:
        said.append(
            Finding("result", "A quarter more bandwidth, compute or KV memory makes no difference worth a change.")
        )
    return said


def _more_seats(changes: Sequence[Mapping[str, Any]]) -> bool:
    """Whether more seats may gain something: they were not tried alone, or one number of them was better."""
    tried = [one for one in changes if one["knobs"] == ["max_num_seqs"]]
    more = [one for one in tried if _number(one["change"], -1) > _number(one["change"], -3)]
    return not more or any(one["effect"]["tells"] == "better" for one in more)


def _number(change: str, place: int) -> int:
    """Return a word of `max_num_seqs 256 -> 512` as a number."""
    return int(change.split()[place].replace(",", ""))


def _aim(one: Mapping[str, Any]) -> str:
    share = f" ({percent(one['limit'])} of requests within the SLO)" if one["name"] == GOODPUT else ""
    return f"{one['text']}{share}"


def _nothing(summary: Mapping[str, Any], aims: str) -> str:
    """Say that nothing is to be changed, or that nothing was tried."""
    before = summary["before"]
    if summary["changes"]:
        text = "Change nothing: no setting that was tried is clearly better than the file as it is, and by enough."
        return f"{text}{_holds(before, summary, aims)}"
    more = "; a larger --budget would" if summary["left_out"] else ""
    short_of = f" with {summary['budget']} simulations at most{more}"
    return f"No setting was tried{short_of}."


def _as_it_is(before: Mapping[str, Any], aims: str) -> str:
    """Say whether the SLO holds as it is, and if not, what breaks."""
    if not aims:
        return ""
    return f" As it is, {aims} {_verb(aims)} {'met' if before['meets'] else 'not met'}.{_breaks(before)}"


def _breaks(one: Mapping[str, Any]) -> str:
    """Say what of the SLO does not hold; nothing if all does, or an earlier version has not said."""
    said = broken(one.get("replications", ()))
    return f" What breaks: {said}." if said else ""


def legend(summary: Mapping[str, Any]) -> list[str]:
    """Explain what is said to break, where something is."""
    found = [one for told in (summary["before"], summary["best"]) for one in told.get("replications", ())]
    if not summary["slo"]:
        return []
    return [*([OVER] if missed(found) else []), *([QUEUE] if fell_behind(found) else [])]


def _verb(aims: str) -> str:
    return "are" if " and " in aims else "is"


def _by_knob(some: Sequence[Mapping[str, Any]]) -> str:
    """List changes knob by knob: `block_size 16 -> 8, 32; watermark 0 -> 0.01`."""
    found: dict[str, list[str]] = {}
    for one in some:
        head, _, after = one["change"].rpartition(" -> ")
        found.setdefault(head, []).append(after)
    return "; ".join(f"{head} -> {', '.join(afters)}" for head, afters in found.items())


def advice_table(summary: Mapping[str, Any]) -> Table:
    """Lay out every change with what it does; changes made together have a line each."""
    over = "replications" if summary["basis"] == "replications" else "batches of requests"
    caption = (
        f"ms/token: end-to-end latency / output tokens; differences from the file as it is, with 95 % intervals over "
        f"{over}; slight: clear, but by less than a hundredth; unclear: the interval holds 0; same: no request fares "
        "differently; changes in brackets: a quarter more of one of the GPU's resources"
    )
    made = plain(f"What each change does to {summary['allocator']}", "\n".join([caption, *legend(summary)]))
    columns = {"latency": "ms/token\nmean", "latency_effect": "difference"}
    if which := good_ones(summary):
        heading = "in SLO" if summary["slo"] else which
        columns = {"good": f"{heading}\n%", "good_effect": "difference\npoints"} | columns
    made.add_column("change", no_wrap=True)
    for heading in columns.values():
        made.add_column(heading, justify="right", no_wrap=True)
    made.add_column("", no_wrap=True)
    for one in table_rows(summary):
        change = in_a_line(one["change"]).replace(" and ", "\n  and ")
        tells = Text(one["tells"], style=STYLES.get(one["key"], ""))
        made.add_row(Text(change), *(one[name] for name in columns), tells)
    return made


def good_ones(summary: Mapping[str, Any]) -> str:
    """Say what makes a request a good one: the SLO, or without one its end; nothing where all requests come to it."""
    if summary["slo"]:
        return "within the SLO"
    tried = [summary[name] for name in ("before", "best")] + [*summary["changes"], *summary["hardware"]]
    return "finished" if any(one["figures"]["good"]["mean"] != 1 for one in tried) else ""


def table_rows(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """The rows of the table, as text: the file, single changes by what they buy, the best, the hardware."""
    order = {"better": 0, "slight": 1, "same": 2, "none": 3, "worse": 4}
    singles = sorted(
        summary["changes"],
        key=lambda one: (order[one["effect"]["tells"]], -(one["effect"]["good"]["mean"] or 0), _latency(one)),
    )
    rows = [_row("as it is", summary["before"], key="")]
    rows += [_row(one["change"], one) for one in singles]
    if len(summary["best"]["knobs"]) > 1:
        rows.append(_row(f"together: {summary['best']['change']}", summary["best"]))
    rows += [_row(f"({one['change']})", one) for one in summary["hardware"]]
    return rows


def _latency(one: Mapping[str, Any]) -> float:
    return float(one["effect"]["latency"]["mean"] or 0)


def _row(name: str, one: Mapping[str, Any], key: str | None = None) -> dict[str, str]:
    figures, effect = one["figures"], one["effect"]
    tells = effect["tells"] if key is None else key
    return {
        "change": name,
        "good": "-" if figures["good"]["mean"] is None else percentage(100 * figures["good"]["mean"]),
        "good_effect": _span(effect["good"], 100) if tells not in ("", "none") else "",
        "latency": _scaled(figures["latency"]["mean"], 1e3),
        "latency_effect": _span(effect["latency"], 1e3) if tells not in ("", "none") else "",
        "tells": TELLS.get(tells, ""),
        "key": tells,
    }


def _bought(effect: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """Write an effect as a sentence."""
    return f"Compared with the file as it is: {_differences(effect, summary)}."


def _differences(effect: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """Write an effect with its intervals, without what does not differ."""
    said = []
    if effect["good"]["mean"]:
        which = "within the SLO" if summary["slo"] else "that finish"
        said.append(f"{_span(effect['good'], 100)} percentage points of requests {which}")
    if effect["latency"]["mean"] is not None:
        said.append(f"{_span(effect['latency'], 1e3)} ms of latency per output token")
    return " and ".join(said) or "no request fares differently"


def _holds(one: Mapping[str, Any], summary: Mapping[str, Any], aims: str) -> str:
    """Say whether the SLO holds with what is advised, and if not, what breaks and with what else it does."""
    before = summary["before"]
    if not aims:
        return ""
    breaks = "" if one is before else _breaks(one)
    if one["meets"]:
        return f" {aims} {_verb(aims)} met" + (", as it was before." if before["meets"] and one is not before else ".")
    if others := [change for change in summary["changes"] if change["meets"]]:
        chance = "though that may be chance"
        more = "; a larger --repeat would tell" if summary["basis"] == "replications" else ""
        it = "it is" if _verb(aims) == "is" else "they are"
        return f" Even so {aims} {_verb(aims)} not met. With {_by_knob(others)} {it}, {chance}{more}.{breaks}"
    if not any(other["kept_up"] for other in (one, *summary["changes"])):
        return f" Even so {BEHIND}, with this and with everything else that was tried.{breaks}"
    return f" Even so {aims} {_verb(aims)} not met, neither with this nor with anything else that was tried.{breaks}"


def _span(figure: Mapping[str, float | None], scale: float) -> str:
    """Write a difference with its interval: `-1.2 (-1.5 to -0.9)`, all with the digits that the largest deserves.

    Three significant ones, but no more than three decimals unless it would then be 0.
    """
    if figure["mean"] is None:
        return "-"
    ends = [scale * end for name in ("mean", "low", "high") if (end := figure[name]) is not None]
    most = max(map(abs, ends))
    order = math.floor(math.log10(most)) if most else 2
    digits = max(0, min(3, 2 - order), -order)
    mean, *interval = (_signed(end, digits) for end in ends)
    return f"{mean} ({' to '.join(interval)})" if len(interval) > 1 else mean


def _signed(value: float, digits: int) -> str:
    written = f"{value:+,.{digits}f}"
    return written if float(written.replace(",", "")) else "0"


def _scaled(value: float | None, scale: float) -> str:
    return "-" if value is None else short(scale * value)
