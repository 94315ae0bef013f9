"""What sweeps and capacity searches show, in sentences.  A ratio is said only with its interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from analysis.numbers import listed, short
from analysis.page.words import Finding
from analysis.planner.refusals import left_out, sweep_left_out
from analysis.planner.rows import distinct, last_words, said
from analysis.planner.tables import GPUS, a_gpu, interval, sustained
from analysis.slo import Limits

Cell = Mapping[str, Any]
FEW_STAYS = 5.0
"""Stays below which a capacity still depends on how long the run is: of Llama-3.1-70B on 8 H100 it was 0.57, 0.81,
0.88 and 1.04 times that of 12.5 stays at 1.2, 2.3, 3.3 and 6.3 of them."""

TOGETHER = 0.7
"""Share of the time in which the last part of a mix comes: if another comes for less of it, the rate is not that of
all of them."""


def sweep_findings(cells: Sequence[Cell], slo: Limits) -> list[Finding]:
    """Say which cells are worth a look; the bound, which nobody can have, is the best only if there is nothing else."""
    cells = distinct(cells)
    name, what = ("goodput_rps", "requests within the SLO") if slo else ("throughput_rps", "requests")
    known = [cell for cell in cells if cell["figures"][name]["mean"] is not None]
    said = []
    if known:
        known = [cell for cell in known if cell["kind"] != "ideal"] or known
        best = max(known, key=lambda cell: cell["figures"][name]["mean"])
        amount = interval(best["figures"][name])
        said.append(Finding("result", f"Most {what}: {amount} a second, with {where(best)}."))
        near = [cell for cell in known if cell is not best and _near(cell, best, name)]
        if near:
            some = "; ".join(where(cell) for cell in near[:3]) + ("; and others" if len(near) > 3 else "")
            more = "1 more cell" if len(near) == 1 else f"{len(near)} more cells"
            said.append(Finding("limit", f"{more} cannot be told apart from it: {some}."))
    front = [cell for cell in cells if cell["front"]]
    said.append(
        Finding(
            "result",
            f"{len(front)} of {len(cells)} cells are on the Pareto front of throughput, latency and memory: "
            "no other one but the bound beats them.",
        )
    )
    said += [Finding("warning", f"{text[0].upper()}{text[1:]}.") for text in sweep_left_out(cells)]
    overloaded = [cell for cell in cells if cell["verdict"] == "OVERLOADED"]
    if overloaded:
        said.append(
            Finding(
                "warning",
                f"{len(overloaded)} of {len(cells)} cells are OVERLOADED: their latencies tell how long the run was.",
            )
        )
    return said


def capacity_findings(summary: Mapping[str, Any]) -> list[Finding]:
    """Say what each allocator sustains, and how many times the others."""
    answers, unit = summary["answers"], summary["unit"]
    aims = " and ".join(one["text"] for one in summary["slo"])
    said = []
    best = max((one for one in answers if one["n"]), key=lambda one: one["capacity"]["mean"], default=None)
    if best is not None and best["capacity"]["mean"]:
        repeated = best["capacity"]["low"] is not None  # then ratios tell who sustains as much
        rivals = [one for one in answers if one["n"] and not repeated]
        them = listed([where(one) for one in rivals if _alike(one["capacity"], best["capacity"])] or [where(best)])
        said.append(Finding("result", f"Highest rate with {aims}: {sustained(best)} {unit}, by {them}."))
        each = max((one for one in answers if one["n"]), key=_a_gpu)
        if GPUS in each["settings"] and each is not best:
            said.append(Finding("result", f"Highest rate a GPU: {a_gpu(each)} {unit}, by {where(each)}."))
    said += [Finding("result", _times(ratio)) for ratio in summary["ratios"][:6]]
    drawn = summary.get("drawn", True)  # of a trace there are no replications to be had
    if drawn and not summary["ratios"] and len({one["allocator"] for one in answers}) > 1:
        need = "at least two replications that sustain some rate, and do not differ by more than the allocators"
        said.append(Finding("limit", f"No ratios: they need {need}."))
    return [*said, *_doubts(summary, aims)]


def _doubts(summary: Mapping[str, Any], aims: str) -> Iterator[Finding]:
    """Warn of capacities that were not found, or that a run is too short for; once for all that share a reason."""
    answers = summary["answers"]
    told: dict[str, list[Cell]] = {}
    for one in answers:
        if one["none"]:
            text = f"{one['none']} of {one['n']} replications hold {aims} at no rate that was tried."
            told.setdefault(f"{text}{_at_least(one, summary)}", []).append(one)
    short_of = [one for one in answers if one.get("stays") is not None and one["stays"] < FEW_STAYS]
    if short_of:
        times = _from_to([one["stays"] for one in short_of], 1)
        text = (
            f"at the rate sustained requests arrive for only {times} times as long as one stays, so the run is more "
            "start and end than steady load; more requests would tell."
        )
        told[text] = short_of
    apart = [one for one in answers if one.get("together") is not None and one["together"] < TOGETHER]
    if apart:
        shares = _from_to([100 * one["together"] for one in apart], 0)
        text = (
            f"at the rate sustained a part of the mix keeps coming for only {shares} % as long as another, so fewer "
            "come at once than the rate says; parts of the same duration_s come together."
        )
        told[text] = apart
    for one in answers:
        if one.get("beyond"):
            rate = f"{short(one['beyond'])} {summary['unit']}"
            text = f"a run at {rate} held this, too, although one at a lower rate did not: which do is partly chance"
            told.setdefault(f"{text}; more requests would tell.", []).append(one)
        if refused := left_out([one]):
            told.setdefault(f"{refused}.", []).append(one)
    if unbounded := [one for one in answers if one["at_least"]]:
        told["the search ended before a rate was too much; more requests would tell."] = unbounded
    for text, some in told.items():
        everyone = len(some) == len(answers) > 1
        yield Finding("warning", f"{'all' if everyone else listed([where(one) for one in some])}: {text}")


def _from_to(values: Sequence[float], digits: int) -> str:
    """Write the least and the most of some values with so many decimals, or one if that reads alike."""
    return " to ".join(dict.fromkeys(f"{end:.{digits}f}" for end in (min(values), max(values))))


def _at_least(answer: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """Say what the objectives come to at the lowest rate that was tried."""
    place = answer["point"], answer["allocator"]
    curves = {(one["point"], one["allocator"]): one["points"] for one in summary["curves"]}
    if not curves.get(place):
        return ""
    lowest = min(curves[place], key=lambda point: point["rate"])
    means = {aim["name"]: lowest["figures"].get(aim["name"], {}).get("mean") for aim in summary["slo"]}
    figures = " and ".join(f"{name} is {short(mean)}" for name, mean in means.items() if mean is not None)
    return f" At {short(lowest['rate'])} {summary['unit']}, the lowest, {figures}." if figures else ""


def _times(ratio: Mapping[str, Any]) -> str:
    """Say which of two sustains how many times what the other does, the one that sustains more first."""
    more, less = where(ratio), str(ratio["over"])
    mean, low, high = (ratio[part] for part in ("mean", "low", "high"))
    if low == high == 1:
        return f"{more} sustains what {less} does, in every replication."
    if mean < 1:
        more, less = where({**ratio, "allocator": less}), str(ratio["allocator"])
        mean, low, high = 1 / mean, 1 / high, 1 / low
    times = f"{mean:.2f} times what {less} does (95 % interval {low:.2f} to {high:.2f})"
    return f"{more} sustains {times}{'' if low > 1 else ': which has more is unclear'}."


def _a_gpu(answer: Mapping[str, Any]) -> float:
    """What each of the GPUs that share a model sustains."""
    return float(answer["capacity"]["mean"] or 0) / int(answer["settings"].get(GPUS) or 1)


def _near(cell: Cell, best: Cell, name: str) -> bool:
    """Whether a cell may have as much as the best: by pairs of replications, if it was repeated."""
    behind = cell.get("behind", {}).get(name)
    if behind is None or behind["low"] is None:
        return _alike(cell["figures"][name], best["figures"][name])
    return bool(behind["low"] <= 0 <= behind["high"])


def _alike(one: Mapping[str, Any], best: Mapping[str, Any]) -> bool:
    """Whether the interval of one reaches that of the best; without intervals, whether both have the same three digits.

    The mean of the best is not below that of the other.
    """
    if one["low"] is None or best["low"] is None:
        return f"{one['mean']:.3g}" == f"{best['mean']:.3g}"
    return bool(one["high"] >= best["low"])


def where(cell: Cell) -> str:
    """Name a cell: its allocator and settings."""
    settings = cell["settings"]
    told = ", ".join(
        f"{word} {said(value)}" for word, value in zip(last_words(list(settings)), settings.values(), strict=True)
    )
    return f"{cell['allocator']} at {told}" if told else str(cell["allocator"])
