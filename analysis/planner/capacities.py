"""Capacities summed up: the rate each allocator sustains, the ratios between them, and the curves behind.

A capacity is the mean over replications with Student's interval.  A ratio is the geometric
mean of paired ratios, replication by replication, and is given only with its interval: where
nothing was repeated, or a replication sustains no rate at all, there is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.documents import SCHEMA_VERSION
from analysis.figures import COST, Figure
from analysis.planner.rows import refusals, status_share
from analysis.planner.sweeps import FIGURES, NEWER, WITHIN, bounds
from analysis.slo import PART
from analysis.stats import is_narrow, paired_ratio, t_interval

LATENCIES = {
    "ttft_s": ("Time to first token", "s", 1.0),
    "tpot_s": ("Time per output token", "ms", 1e3),
    "e2e_s": ("End-to-end latency", "s", 1.0),
    "queue_s": ("Time in the queue", "s", 1.0),
    "normalized_latency_s": ("Latency per token", "ms", 1e3),
    "itl_s": ("Gap between tokens", "ms", 1e3),
}
"""Title, unit and scale of all that an objective may limit a mean or a percentile of."""

CURVES = (
    *(one for one in FIGURES if one.name.partition(".")[0] in LATENCIES and one.name not in NEWER),
    WITHIN,
    *(one for one in FIGURES if one.name in ("throughput_rps", "batch_size")),
)
"""Figures of a curve: latencies, goodput, throughput, batch."""
FAILED = "failed: "
"""How `limited_by` begins where a run could not be done."""


def curve_figures(aims: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Return the figures of curves, those of the objectives first."""
    known = {one.name: one for one in CURVES}
    asked = [_asked(known, aim["name"]) for aim in aims]
    return [*asked, *(one for one in CURVES if one not in asked)]


def _asked(known: Mapping[str, Figure], name: str) -> Figure:
    """Return the figure of an objective; that of a part of a mix, `part.chat.ttft_s.p99`, in the words of the whole."""
    if name.startswith(PART):
        _, part, figure = name.split(".", 2)
        whole = _asked(known, figure)
        return whole._replace(name=name, title=f"{whole.title}, of part {part}")
    if name in known:
        return known[name]
    head, _, percentile = name.partition(".")
    title, unit, scale = LATENCIES.get(head, (head, "s", 1.0))  # a later version may ask for more
    return Figure(name, f"{title}, {percentile or 'mean'}", unit, scale)


def summarise(
    rows: Sequence[Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
    aims: Sequence[Mapping[str, Any]],
    unit: str,
    failed: Sequence[Mapping[str, Any]],
    demand: float | None = None,
) -> dict[str, Any]:
    """Sum searches up.

    Args:
        rows: every run, `cell` being the point, with its `rate`, `goodput` and whether it was `sustained`.
        answers: of each point and allocator, on how many `gpus` it runs and what its replications found.
        aims: the objectives: name, limit and text.
        unit: of the rates.
        failed: searches that could not go on.
        demand: a rate to be served, in that unit.

    """
    kinds = {row["allocator"]: row["kind"] for row in rows}
    pools = {(row["cell"], row["allocator"]): row["pool_slots"] for row in rows}
    names = [one.name for one in curve_figures(aims)]
    told = []
    for answer in answers:
        found = _sustained(rows, answer)
        facts: dict[str, Any] = {
            "stays": _stays(found),
            "cost": _cost(found),
            "kind": kinds.get(answer["allocator"], ""),
        }
        mine = [row for row in rows if _is_of(row, answer)]
        facts["refused"], facts["refusals"] = status_share("refused", mine), refusals(mine)
        facts["pool_slots"] = pools.get((answer["point"], answer["allocator"]))
        facts["figures"] = _figures(found, names)
        facts["beyond"] = _beyond(rows, answer)
        told.append({**answer, **_capacity(answer), **facts})
    return {
        "schema": SCHEMA_VERSION,
        "unit": unit,
        "demand": demand,
        "slo": list(aims),
        "answers": told,
        "ratios": [ratio for point in {one["point"]: 0 for one in told} for ratio in _ratios(told, point)],
        "curves": [_curve(rows, answer, names) for answer in told],
        "failed": list(failed),
    }


def fleet(answer: Mapping[str, Any], demand: float) -> int | None:
    """How many GPUs serve a rate: engines that each have an equal share of it, up to the capacity, times its GPUs.

    None if a replication sustains no rate.  Of Poisson arrivals a share is the same as all of them slowed down, of
    which the capacity is; of bursts it is easier.  Nothing is spare for higher rates, or for an engine that fails.
    """
    mean = answer["capacity"]["mean"]
    return None if not mean or answer["none"] else _engines(demand, mean) * int(answer["gpus"])


def fleet_range(answer: Mapping[str, Any], demand: float) -> tuple[int, float]:
    """How many GPUs that takes at least and at most, at the ends of the capacity's interval.

    At most infinitely many if the interval reaches down to 0, and exactly `fleet` if nothing was repeated.
    """
    ends = answer["capacity"]["high"], answer["capacity"]["low"]
    fewest, most = (answer["capacity"]["mean"] if end is None else end for end in ends)
    each = int(answer["gpus"])
    return _engines(demand, fewest) * each, _engines(demand, most) * each if most > 0 else math.inf


def _engines(demand: float, capacity: float) -> int:
    return math.ceil(demand / capacity)


def _capacity(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Mean and interval; a replication that sustains no rate counts as 0, one without an end as `at_least`."""
    searches = [one for one in answer["searches"] if not one["limited_by"].startswith(FAILED)]
    values = np.array([one["sustained"] or 0.0 for one in searches])
    return {
        "n": len(values),
        "capacity": bounds(t_interval(values)),
        "none": sum(one["sustained"] is None for one in searches),
        "at_least": any(one["not_sustained"] is None for one in searches),
    }


def _is_of(row: Mapping[str, Any], answer: Mapping[str, Any]) -> bool:
    """Whether a run is one of those that an answer is made of."""
    return bool((row["cell"], row["allocator"]) == (answer["point"], answer["allocator"]))


def _sustained(rows: Sequence[Mapping[str, Any]], answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the run of each replication at the rate that it sustains, but for one whose requests come all at once."""
    best = {one["repeat"]: one["sustained"] for one in answer["searches"] if one["sustained"]}
    return [
        row
        for row in rows
        if _is_of(row, answer) and row["rate"] == best.get(row["repeat"]) and row["offered_rps"] and row["e2e_s"]
    ]


def _stays(found: Sequence[Mapping[str, Any]]) -> float | None:
    """For how many times as long as a request stays do requests arrive, at the rate that is sustained.

    Where that is little a run is all start and end, and its figures are not those of the rate.  Mean over
    replications; None if none sustains a rate, or all its requests arrive at once.
    """
    stays = [(row["requests.total"] - row["requests.refused"]) / row["offered_rps"] / row["e2e_s"] for row in found]
    return float(np.mean(stays)) if stays else None


def _beyond(rows: Sequence[Mapping[str, Any]], answer: Mapping[str, Any]) -> float | None:
    """Return the highest rate that a run sustained above one that was too much in its replication; None if none did.

    A search takes it that a higher rate is never easier, but whether a request just misses a step is chance.
    """
    limits = {one["repeat"]: one["not_sustained"] for one in answer["searches"] if one["not_sustained"]}
    mine = (row for row in rows if _is_of(row, answer) and row["sustained"] and row["repeat"] in limits)
    return max((row["rate"] for row in mine if row["rate"] > limits[row["repeat"]]), default=None)


def _cost(found: Sequence[Mapping[str, Any]]) -> float | None:
    """What a million output tokens cost at the rate that is sustained, mean over replications; None without a price.

    An engine that keeps up puts out tokens as fast as they are asked for, while the run that shows it also begins and
    ends: its cost is scaled from its own length to the time in which its requests arrive.
    """
    served = [(row["requests.total"] - row["requests.refused"]) / row["offered_rps"] for row in found]
    costs = [
        row[COST] * time / row["duration_s"]
        for row, time in zip(found, served, strict=True)
        if row.get(COST) is not None
    ]
    return float(np.mean(costs)) if costs else None


def reference(answers: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Choose whom the others are held against: paging, or else the best that is real."""
    known = [one for one in answers if one["kind"] not in ("ideal", "no-cache") and one["capacity"]["mean"]]
    paged = next((one for one in known if one["kind"] == "paged"), None)
    return paged or max(known, key=lambda one: float(one["capacity"]["mean"]), default=None)


def _ratios(answers: Sequence[Mapping[str, Any]], point: int) -> list[dict[str, Any]]:
    """Ratios of the reference to every other allocator at one point, where their interval tells something."""
    here = [one for one in answers if one["point"] == point]
    best = reference(here)
    found = []
    for other in here:
        if best is None or other is best:
            continue
        mine, theirs = ({one["repeat"]: one["sustained"] for one in each["searches"]} for each in (best, other))
        pairs = [(theirs[repeat], mine[repeat]) for repeat in mine if repeat in theirs]
        if len(pairs) < 2 or not all(one and two for one, two in pairs):
            continue
        ratio = paired_ratio(*(np.array(side) for side in zip(*pairs, strict=True)))
        if is_narrow(ratio):
            labels = {"allocator": best["allocator"], "over": other["allocator"]}
            found.append({"point": point, "settings": best["settings"], **labels, **bounds(ratio)})
    return found


def _curve(rows: Sequence[Mapping[str, Any]], answer: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Figures by rate, at the rates that every replication has been run at; all rates if they share none."""
    mine = [row for row in rows if _is_of(row, answer)]
    by_rate: dict[float, list[Mapping[str, Any]]] = {}
    for row in mine:
        by_rate.setdefault(row["rate"], []).append(row)
    most = max(map(len, by_rate.values()), default=0)
    points = []
    for rate, some in sorted(by_rate.items()):
        if len(some) < most:
            continue
        kept_up = all(row["kept_up"] for row in some)
        points.append({"rate": rate, "n": len(some), "kept_up": kept_up, "figures": _figures(some, names)})
    return {"point": answer["point"], "allocator": answer["allocator"], "points": points}


def _figures(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Means of some runs with their intervals; none where a run lacks the figure."""
    found = {}
    for name in names:
        values = np.array([row[name] for row in rows if row.get(name) is not None])
        found[name] = bounds(t_interval(values if len(values) == len(rows) else values[:0]))
    return found
