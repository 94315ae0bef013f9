"""Summing up the columns of a run as its entry in summary.json.

`summarise` is a pure function from columns to a JSON document, in which values that do not exist
are null instead of NaN.  The steady window lies between the end of the warm-up (MSER-5 on the batch
size) and the last arrival, so that neither filling nor draining the engine is part of its averages.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from analysis import saturation, stats
from analysis.metrics import OF_REQUESTS, PER_REQUEST, PER_RUN, cost_per_million_output_tokens, itl_s
from analysis.observed import CAUSES, SHARES, Columns, Observed, weighted
from analysis.shapes import COUNT, ENDS, MAYBE, NUMBER, TEXT, Kind, fault, one_of

QUANTILES = (0.5, 0.9, 0.95, 0.99)
NAMES = ("p50", "p90", "p95", "p99")
WARMUP_POINTS = 2000
SOME = 20
"""Requests of a part of a mix from which on it is judged while they come: fewer may all come just when some wait."""

BY_CAUSE = Kind(
    f"numbers for some of {', '.join(CAUSES)}",
    lambda value: not fault(value, {...: NUMBER}) and set(value) <= set(CAUSES),
)
_LEDGER = dict.fromkeys((*SHARES, "shared_savings", "swapped"), MAYBE)
_VALUES = dict.fromkeys(("mean", *NAMES, "max"), MAYBE) | {"n": COUNT, "ci95?": dict.fromkeys(("mean", *NAMES), ENDS)}
NEWER = (cost_per_million_output_tokens.__name__,)
"""Figures that runs which were summed up before there were prices lack."""
_OVER_TIME = ("batch_size", "waiting", "kv_usage")
SUSTAINED_RATE = {"rps": MAYBE}
"""The shape of sustained.json (`analysis.shapes`)."""
_REQUESTS = {
    **dict.fromkeys(("total", "finished", "refused", "unfinished", "cut?"), COUNT),
    "offered_rps?": MAYBE,
    "refusals": {...: COUNT},
}
PART: dict[str, Any] = {
    **{metric.__name__: _VALUES for metric in PER_REQUEST},
    "itl_s?": _VALUES,
    **{metric.__name__: MAYBE for metric in OF_REQUESTS},
}
"""The shape of the metrics of one part of a mix; earlier runs do not tell the gaps of parts apart."""
ENTRY: dict[str, Any] = {
    "allocator": TEXT,
    "kind": TEXT,
    "scheduler": TEXT,
    "repeat?": COUNT,
    "verdict": one_of(saturation.Verdict),
    "duration_s": NUMBER,
    "requests": _REQUESTS,
    "metrics": {
        **{metric.__name__: _VALUES for metric in (*PER_REQUEST, itl_s)},
        **{metric.__name__: MAYBE for metric in PER_RUN if metric.__name__ not in NEWER},
        **{name: {"mean": MAYBE, "peak": MAYBE} for name in _OVER_TIME},
        **dict.fromkeys((f"{name}?" for name in NEWER), MAYBE),
        "blocked_by": BY_CAUSE,
    },
    "ledger": {"mean": _LEDGER, "peak": _LEDGER},
    "steady": (
        {
            **dict.fromkeys(("from_s", "until_s", "batch_size", "throughput_rps"), NUMBER),
            "ledger": dict.fromkeys(SHARES, NUMBER),
        },
        None,
    ),
    "little": ({"gap": MAYBE}, None),
    "parts?": {...: {"requests": _REQUESTS, "metrics": PART}},
    "sustained?": SUSTAINED_RATE,
}
"""The shape of an entry."""


def summarise(
    requests: Columns, steps: Columns, run: Mapping[str, Any], slo: Mapping[str, float | None] | None = None
) -> dict[str, Any]:
    """Make one entry of summary.json.

    Args:
        requests: columns of requests.parquet, `stall_s` flat.
        steps: columns of steps.parquet.
        run: the manifest's entry: label, kind, scheduler, repeat, capacity, block_size, block_bytes, and
            price_per_hour if it is known, and the names of the parts if requests are a mix.
        slo: limits in seconds by the name of a per-request metric.

    """
    seen = Observed(requests, steps, int(run["capacity"]), slo or {}, run.get("price_per_hour"))
    draws = stats.Draws(int(run.get("repeat", 0)))
    entry = {
        "allocator": run["label"],
        "kind": run["kind"],
        "scheduler": run["scheduler"],
        "repeat": run.get("repeat", 0),
        "verdict": str(judge(seen, run.get("parts") or ())),
        "duration_s": seen.duration_s,
        "requests": count(seen),
        "metrics": {
            **{metric.__name__: distribution(metric(seen), draws) for metric in PER_REQUEST},
            "itl_s": gaps(seen),
            **{metric.__name__: metric(seen) for metric in PER_RUN},
        },
        "ledger": ledger(seen, float(run["block_bytes"]) / float(run["block_size"])),
        "steady": steady(seen),
        "little": None if run["scheduler"] == "static" else little(seen),
    }
    if names := run.get("parts"):
        entry["parts"] = {name: of_part(seen.part(name), draws) for name in names}
    cleaned: dict[str, Any] = without_nan(entry)
    return cleaned


def of_part(seen: Observed, draws: stats.Draws) -> dict[str, Any]:
    """Sum up the requests of one part of a mix; rates are over the duration of the whole run."""
    told = seen.gap_tokens in set(seen.steps)
    return {
        "requests": count(seen),
        "metrics": {
            **{metric.__name__: distribution(metric(seen), draws) for metric in PER_REQUEST},
            **({"itl_s": gaps(seen)} if told else {}),
            **{metric.__name__: metric(seen) for metric in OF_REQUESTS},
        },
    }


def distribution(values: np.ndarray[Any, np.dtype[np.float64]], draws: stats.Draws) -> dict[str, Any]:
    """Mean, percentiles and peak of one value a request, with block-bootstrap intervals."""
    values = values[~np.isnan(values)]
    if not len(values):
        return {"mean": None, **dict.fromkeys(NAMES), "max": None, "n": 0}
    percentiles = stats.percentiles(values, QUANTILES)
    mean_span, spans = stats.bootstrap(values, QUANTILES, draws)
    return {
        "mean": float(values.mean()),
        **dict(zip(NAMES, percentiles.tolist(), strict=True)),
        "max": float(values.max()),
        "n": len(values),
        "ci95": {"mean": list(mean_span), **{name: list(span) for name, span in zip(NAMES, spans, strict=True)}},
    }


def gaps(seen: Observed) -> dict[str, Any]:
    """Mean, percentiles and peak of every gap between two tokens of a sequence."""
    values, often = itl_s(seen)
    count = int(often.sum())
    if not count:
        return {"mean": None, **dict.fromkeys(NAMES), "max": None, "n": 0}
    percentiles = stats.weighted_percentiles(values, often, QUANTILES)
    return {
        "mean": float(np.dot(values, often)) / count,
        **dict(zip(NAMES, percentiles.tolist(), strict=True)),
        "max": float(values.max()),
        "n": count,
    }


def count(seen: Observed) -> dict[str, Any]:
    """How many requests there were, how fast they came, and what became of them; refusals by reason."""
    status = Counter(seen.requests["status"].tolist())
    refused, finished = (seen.requests["status"] == word for word in ("refused", "finished"))
    arrivals = seen.requests["arrival_s"]
    span = float(np.ptp(arrivals)) if len(arrivals) else 0.0  # in a closed loop the last in the file may come earlier
    return {
        "total": len(seen.requests["status"]),
        "offered_rps": (len(arrivals) - 1) / span if span else None,
        "finished": status["finished"],
        "refused": status["refused"],
        "unfinished": status["unfinished"],
        "cut": int(np.count_nonzero(finished & (seen.requests["reason"] != ""))),
        "refusals": dict(sorted(Counter(seen.requests["reason"][refused].tolist()).items())),
    }


def ledger(seen: Observed, slot_bytes: float) -> dict[str, Mapping[str, float]]:
    """The ledger in token slots: time-weighted mean, peak, and byte-seconds."""
    names = (*SHARES, "shared_savings", "swapped")
    mean = {name: seen.mean(seen.steps[name]) for name in names}
    peak = {name: int(seen.steps[name].max()) if len(seen.steps[name]) else 0 for name in names}
    return {
        "mean": mean,
        "peak": peak,
        "byte_seconds": {name: mean[name] * seen.duration_s * slot_bytes for name in names},
    }


def judge(seen: Observed, parts: Iterable[str]) -> saturation.Verdict:
    """Tell whether the load fits; of a mix of `parts` also while each of them comes, if that is of some requests."""
    kept = seen.requests["status"] != "refused"
    arrivals, departures = seen.requests["arrival_s"], seen.requests["finish_s"]
    each = [kept & (seen.requests["part"] == name) for name in parts]
    stood = np.zeros(len(seen.durations), np.bool_)
    for cause in ("memory", "seats", "order"):
        if cause in seen.blocked:
            stood |= seen.blocked[cause]
    return saturation.verdict(
        arrivals[kept],
        departures[kept],
        seen.steps["start_s"],
        seen.durations,
        stood,
        [(arrivals[some], departures[some]) for some in each if np.count_nonzero(some) >= SOME],
    )


def steady(seen: Observed) -> dict[str, Any] | None:
    """Batch, throughput and mean ledger between the warm-up and the last arrival; none for an empty window."""
    arrivals, start = seen.requests["arrival_s"], seen.steps["start_s"]
    if not len(arrivals) or not len(start):
        return None
    last = float(arrivals.max())
    grid = np.linspace(0, last, WARMUP_POINTS, endpoint=False)
    running = seen.steps["running"][np.maximum(np.searchsorted(start, grid, side="right") - 1, 0)]
    begin = float(grid[saturation.warmup(running)])
    inside = np.clip(np.minimum(start + seen.durations, last) - np.maximum(start, begin), 0, None)
    time = float(inside.sum())
    if time <= 0:
        return None
    finish = seen.requests["finish_s"]
    return {
        "from_s": begin,
        "until_s": last,
        "batch_size": float(np.dot(seen.steps["running"], inside)) / time,
        "throughput_rps": int(np.count_nonzero((finish >= begin) & (finish < last))) / time,
        "ledger": {name: weighted(seen.steps[name], inside) / time for name in SHARES},
    }


def little(seen: Observed) -> dict[str, float] | None:
    """Both sides of Little's law.

    None where steps do not count requests: they count samples one by one, which may differ in number.
    (Under `static` they also count what has finished and holds memory until its batch ends.)
    """
    kept = seen.requests["status"] != "refused"
    samples = seen.requests["samples"][kept]
    if not len(samples) or samples.min() != samples.max() or samples[0] < 1 or not seen.duration_s:
        return None
    law = saturation.little(
        seen.requests["arrival_s"][kept],
        seen.requests["finish_s"][kept],
        seen.steps["start_s"],
        seen.durations,
        seen.steps["running"] / samples[0] + seen.steps["waiting"],
    )
    return {"in_system": law.in_system, "rate_times_time": law.rate_times_time, "gap": law.gap}


def without_nan(value: Any) -> Any:
    """Copy a document with null for every number that is not finite, and plain types throughout."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
