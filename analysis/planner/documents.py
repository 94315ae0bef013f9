"""The shapes (`analysis.shapes`) of the documents that sweeps, capacity searches and advice leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.documents import WRITTEN
from analysis.planner.capacities import curve_figures
from analysis.planner.rows import plain
from analysis.planner.sweeps import FIGURES, MOST_OF, NEWER
from analysis.reading import FACTS, LIMITS
from analysis.saturation import Verdict
from analysis.shapes import ANY, COUNT, FLAG, MAYBE, NUMBER, POSITIVE, SIZE, TEXT, WHOLE, Kind, Shape, one_of
from analysis.slo import PART
from analysis.summary import BY_CAUSE, ENTRY

MANIFEST_SHAPE = {
    "name": TEXT,
    "workload": {
        "seed": WHOLE,
        "model": {"name": TEXT},
        "device": {"name?": (TEXT, None)},
        "slo?": (LIMITS, None),
        "requests?": {"mix?": [{"name": TEXT, "slo?": LIMITS}]},
    },
    "vary": [{"key": TEXT, "values": [ANY]}],
    "started?": TEXT,
    "written?": WRITTEN,
}
HELD_UP = {
    "refused?": NUMBER,
    "refusals?": [TEXT],
    "waits": BY_CAUSE,
    "saved": dict.fromkeys(("bandwidth", "compute", "overhead"), NUMBER),
    "during": one_of(("waiting", "busy")),
    "idle": NUMBER,
    "kept_up": FLAG,
    "scheduler?": TEXT,
    "ledger": {"live": MAYBE},
    "held_peak": NUMBER,
    "pool_slots?": COUNT,
}
"""What limits a workload."""
RECORD = {
    "entry": {**ENTRY, "repeat": COUNT},
    "pool": {name: shape for name, shape in FACTS.items() if name != "dir"},
    "load": {"kept_up": FLAG, "offered_rps": MAYBE, "idle": NUMBER},
    "missed": {...: COUNT},
    "batches": {...: [NUMBER]},
    "limits?": HELD_UP,
}
"""What is kept of one simulation."""

_BOUNDS = dict.fromkeys(("mean", "low", "high"), MAYBE)
_OBJECTIVES = [{"name": TEXT, "limit": NUMBER, "text": TEXT}]
_FAILURES = [{"where": TEXT, "why": TEXT}]
_SHORTFALL = {"limited_by": TEXT, "missed?": {...: NUMBER}}
_SEARCH = {"repeat": COUNT, "sustained": MAYBE, "not_sustained": MAYBE, **_SHORTFALL}
_EFFECT = {"good": _BOUNDS, "latency": _BOUNDS, "tells": one_of(("better", "worse", "slight", "same", "none"))}
_TRIED = {
    "change": TEXT,
    "knobs": [TEXT],
    "meets": FLAG,
    "kept_up": FLAG,
    "replications?": [_SHORTFALL],
    "figures": {"good": _BOUNDS, "latency": _BOUNDS},
    "effect": _EFFECT,
}
OUTLINES: dict[str, Shape] = {
    "sweep": {"cells": [{}, 1]},
    "capacity": {"slo": _OBJECTIVES, "answers": [{"allocator": TEXT}, 1]},
    "advice": {"slo": _OBJECTIVES},
}
"""By question: what tells how the rest of its summary looks."""


def shape_of(question: str, manifest: Mapping[str, Any], content: Mapping[str, Any]) -> Shape:
    """Return the shape of a summary.json.

    Args:
        question: sweep, capacity or advice.
        manifest: of the directory, which says what is varied.
        content: the summary, of the question's outline.

    """
    shapes = {"sweep": _sweep, "capacity": _capacity, "advice": _advice}
    return shapes[question](_settings(manifest["vary"]), content)


def _settings(vary: list[Mapping[str, Any]]) -> dict[str, Shape]:
    """Return the shape of the settings of one point: of each key one of the values that it takes."""

    def value_of(axis: Mapping[str, Any]) -> Kind:
        known = [plain(value) for value in axis["values"]]
        return Kind("one of the values that manifest.json lists", lambda value: plain(value) in known)

    return {axis["key"]: value_of(axis) for axis in vary}


def _sweep(settings: Mapping[str, Shape], content: Mapping[str, Any]) -> Shape:
    told = [cell["figures"] for cell in content["cells"] if isinstance(cell.get("figures"), dict)]
    named = {name for each in told for name in each}
    names = (one.name for one in FIGURES)
    figures = [name for name in names if name in named or name not in NEWER]  # all cells are of one version
    of_parts = sorted(name for name in named if name.startswith(PART))  # of which earlier ones had none
    cell = {
        "cell": COUNT,
        "settings": settings,
        "allocator": TEXT,
        "kind": TEXT,
        "pool_slots?": (COUNT, None),
        "n": SIZE,
        **dict.fromkeys(("refused?", "unfinished?"), MAYBE),
        "refusals?": [TEXT],
        "verdict": one_of(Verdict),
        "front": FLAG,
        "figures": dict.fromkeys([*figures, *of_parts], _BOUNDS),
        "behind?": {f"{name}?": _BOUNDS for name in MOST_OF},
    }
    return {"drawn?": FLAG, "different?": (SIZE, None), "cells": [cell], "failed": _FAILURES}


def _capacity(settings: Mapping[str, Shape], content: Mapping[str, Any]) -> Shape:
    who = one_of(dict.fromkeys(one["allocator"] for one in content["answers"]))
    figures = {one.name: _BOUNDS for one in curve_figures(content["slo"])}
    answer = {
        "point": COUNT,
        "settings": settings,
        "allocator": who,
        "kind": TEXT,
        "gpus": SIZE,
        "searches": [_SEARCH],
        "none": COUNT,
        "at_least": FLAG,
        **dict.fromkeys(("stays?", "cost?", "refused?", "together?", "beyond?"), MAYBE),
        "refusals?": [TEXT],
        "pool_slots?": (COUNT, None),
        "figures?": figures,
    }
    return {
        "unit": TEXT,
        "demand?": (POSITIVE, None),
        "drawn?": FLAG,
        "different?": (SIZE, None),
        "answers": [
            (
                {**answer, "n": SIZE, "capacity": {**_BOUNDS, "mean": NUMBER}},
                {**answer, "n": Kind("0", lambda value: value == 0), "capacity": _BOUNDS},
            )
        ],
        "ratios": [
            {"point": COUNT, "settings": settings, "allocator": who, "over": who, **dict.fromkeys(_BOUNDS, POSITIVE)}
        ],
        "curves": [
            {"point": COUNT, "allocator": who, "points": [{"rate": NUMBER, "kept_up": FLAG, "figures": figures}]}
        ],
        "failed": _FAILURES,
    }


def _advice(_settings: Mapping[str, Shape], _content: Mapping[str, Any]) -> Shape:
    return {
        "allocator": TEXT,
        "drawn": FLAG,
        "basis": TEXT,
        "limits": HELD_UP,
        "before": _TRIED,
        "changes": [_TRIED],
        "hardware": [{**_TRIED, "knobs": [TEXT, 1]}],
        "best": {**_TRIED, "confirmed": (_EFFECT, None)},
        "left_out": [TEXT],
        "failed": _FAILURES,
        "simulations": COUNT,
        "budget": COUNT,
    }
