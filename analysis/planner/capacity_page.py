"""The page of a capacity search: figures against the rate, and what each allocator sustains."""

from __future__ import annotations

from typing import Any

from analysis.numbers import short
from analysis.planner.capacities import curve_figures
from analysis.planner.content import Content, aims, drawn, drawn_value, kinds_of, legend, values_of
from analysis.planner.reading import Planned
from analysis.planner.rows import last_words, plain, said
from analysis.planner.tables import (
    ALIKE,
    GPUS,
    MISSED,
    PRICE,
    a_gpu,
    broken,
    cost,
    fleet_note,
    gpus,
    missed,
    priced,
    resolution,
    share,
    share_of,
    sustained,
)
from analysis.planner.words import capacity_findings


def content(planned: Planned) -> Content:
    """Lay a capacity search out."""
    summary, keys = planned.summary, planned.keys
    repeats = max(one["n"] for one in summary["answers"])
    demand = summary.get("demand")
    return Content(
        "capacity.html.j2",
        "capacity",
        _facts(planned),
        capacity_findings(summary),
        [
            aims(planned),
            ALIKE
            if not summary.get("drawn", True)
            else f"{repeats} replications, the same random numbers at every rate"
            if repeats > 1
            else "one replication",
            *filter(None, [resolution(summary)]),
        ],
        {
            "keys": last_words(keys),
            "unit": summary["unit"],
            "gpus": GPUS in keys,
            "demand": short(demand) if demand else "",
            "fleet": fleet_note(summary),
            "price": PRICE if priced(summary) else "",
            "missed": MISSED if any(missed(one["searches"]) for one in summary["answers"]) else "",
            "repeated": repeats > 1,
            "rows": _rows(planned),
            "share": share_of(summary["ratios"]) if summary["ratios"] else "",
        },
    )


def _facts(planned: Planned) -> dict[str, Any]:
    summary, keys, values = planned.summary, planned.keys, values_of(planned)
    labels = list(dict.fromkeys(one["allocator"] for one in summary["answers"]))
    points = [point for curve in summary["curves"] for point in curve["points"]]
    known = {name for point in points for name, figure in point["figures"].items() if figure["mean"] is not None}
    figures = [one for one in curve_figures(summary["slo"]) if one.name in known]
    return {
        "keys": [{"key": key, "values": [drawn_value(value) for value in values[key]]} for key in keys],
        "allocators": labels,
        "kinds": kinds_of(summary["answers"], labels),
        "figures": legend(figures),
        "slo": {one["name"]: one["limit"] for one in summary["slo"]},
        "unit": summary["unit"],
        "answers": [
            {
                "allocator": labels.index(one["allocator"]),
                "point": one["point"],
                "at": [values[key].index(plain(one["settings"][key])) for key in keys],
                "capacity": [one["capacity"][part] for part in ("mean", "low", "high")],
                "none": one["none"] == one["n"],
                "figures": drawn(one["figures"], figures) if "figures" in one else {},
            }
            for one in summary["answers"]
        ],
        "curves": [
            {
                "allocator": labels.index(curve["allocator"]),
                "point": curve["point"],
                "points": [
                    {
                        "rate": point["rate"],
                        "kept_up": point["kept_up"],
                        "figures": drawn(point["figures"], figures),
                    }
                    for point in curve["points"]
                ],
            }
            for curve in summary["curves"]
        ],
    }


def _rows(planned: Planned) -> list[dict[str, Any]]:
    """Rows of the table: what each allocator sustains, and what share that is of the reference."""
    summary = planned.summary
    demand = summary.get("demand")
    ratios = {(one["point"], one["over"]): share(one) for one in summary["ratios"]}
    return [
        {
            "allocator": one["allocator"],
            "settings": [said(one["settings"][key]) for key in planned.keys],
            "sustained": sustained(one),
            "a_gpu": a_gpu(one),
            "gpus": gpus(one, demand) if demand else "",
            "cost": cost(one) if priced(summary) else "",
            "broken": broken(one["searches"]),
            "ratio": ratios.get((one["point"], one["allocator"]), "-"),
        }
        for one in summary["answers"]
    ]
