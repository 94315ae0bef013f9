"""`validation.html`: a workload served for real beside its simulation, and what agrees.

Reads `validation.json` alone.  What happened over time, measured beside simulated, is a
report of its own (`together.html`), to which the page links.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.documents import demand_version, parse_json, read_json
from analysis.machines import differing
from analysis.report import asset, environment
from analysis.shapes import COUNT, ENDS, FLAG, MAYBE, NUMBER, POSITIVE, TEXT
from analysis.whole import write_text

NAME = "validation.json"
MECHANISMS = {
    "preemptions": "preemptions",
    "blocks_copied": "blocks copied",
    "blocks_swapped_out": "blocks swapped out",
    "blocks_swapped_in": "blocks swapped in",
    "prefill_chunks": "chunks of prompts",
    "steps_with_prefill_and_decode": "steps that prefill and decode",
    "prefix_hit_tokens": "tokens found in the prefix cache",
    "most_tokens_shared": "tokens shared at once",
    "most_tokens_left_behind_by_a_window": "tokens left behind by a window",
}
"""Counters of validation.json in words."""
FIGURES = {
    "throughput_rps": ("requests/s", 1.0),
    "batch_size": ("batch, mean", 1.0),
    "tpot_s.p50": ("ms per output token, p50", 1e3),
    "tpot_s.p99": ("ms per output token, p99", 1e3),
    "ttft_s.p99": ("s to first token, p99", 1.0),
    "normalized_latency_s.p99": ("ms per token, p99", 1e3),
}
"""Figures of the timed part: words and scale."""
AGAIN = "`validate` makes it again"
_RUN = {
    **dict.fromkeys(("label", "scheduler", "preemption", "backend"), TEXT),
    "passed": FLAG,
    "stopped": (TEXT, None),
    "numerics": (
        {
            **dict.fromkeys(("tokens?", "equal_tokens?"), COUNT),
            "largest_error?": MAYBE,
            "tolerance?": (POSITIVE, None),
            "first_difference?": (TEXT, None),
        },
        None,
    ),
    "decisions": {"passed": FLAG, "first_difference": (TEXT, None), "telemetry_difference": (TEXT, None)},
    "memory": {
        "passed": FLAG,
        "kind": TEXT,
        "simulated": {...: NUMBER},
        "measured": ({...: NUMBER}, None),
        "errors": {...: NUMBER},
    },
    "exercised": {...: COUNT},
}
_TIMED = {
    **dict.fromkeys(("workload", "label"), TEXT),
    "measured": {...: MAYBE},
    "simulated": {...: MAYBE},
    "errors": {...: NUMBER},
    "reach?": {...: ENDS},
}
_TIMING = {
    "judged": FLAG,
    "calibration": (TEXT, None),
    "machines?": NUMBER,
    "tolerances": {"median_over_runs": {...: NUMBER}, "each_run": {...: NUMBER}},
    "medians": {...: NUMBER},
    "faults": [TEXT],
    "runs": [_TIMED],
}
DOCUMENT = {
    **dict.fromkeys(("workload", "device", "date"), TEXT),
    "model": dict.fromkeys(("name", "weights", "dtype"), TEXT),
    "versions": {...: TEXT},
    "tolerances": {"logits": NUMBER},
    "not_run": {...: TEXT},
    "runs": [_RUN],
    "timing?": (_TIMING, None),
}
"""The shape of validation.json (`analysis.shapes`)."""
WIDEST = 0.25
"""Relative error at the edge of the strips of the timed part."""


def is_validation(directory: str | Path) -> bool:
    """Whether a directory is what `validate` leaves."""
    return Path(directory, NAME).exists()


def open_validation(directory: str | Path) -> dict[str, Any]:
    """Read what a validation has found.

    Raises:
        RunDirectoryError: there is no validation.json that can be read.

    """
    path = Path(directory, NAME)
    demand_version(path, parse_json(path, AGAIN), AGAIN)
    content: dict[str, Any] = read_json(path, DOCUMENT, AGAIN)
    return content


def write_validation(directory: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of a validation and return its path.

    Args:
        directory: what `validate` has written.
        out: the file; `validation.html` in the directory if None.

    Raises:
        RunDirectoryError: there is no validation.json that can be read.

    """
    content = open_validation(directory)
    target = Path(out) if out is not None else Path(directory, "validation.html")
    together = Path(directory, "together.html")
    write_text(target, render(content, together.exists() and together.parent == target.parent))
    return target


def render(content: Mapping[str, Any], together: bool = False) -> str:
    """Make the page as text.

    Args:
        content: of validation.json.
        together: whether together.html lies beside it.

    """
    rows = [_row(run) for run in content["runs"]]
    text: str = (
        environment()
        .get_template("validation.html.j2")
        .render(
            content=content,
            rows=rows,
            agree=sum(row["passed"] for row in rows),
            tokens=sum(row["tokens"] for row in rows),
            equal=sum(row["equal"] for row in rows),
            largest=max((row["error"] for row in rows), default=0.0),
            faults=[fault for row in rows for fault in row["faults"]],
            worked=_worked(content),
            timing=_timing(content.get("timing")),
            together=together,
            style=asset("report.css") + asset("validation.css"),
            script=asset("theme.js"),
        )
    )
    return text


def _row(run: Mapping[str, Any]) -> dict[str, Any]:
    numerics, decisions, memory = run["numerics"] or {}, run["decisions"], run["memory"]
    error, tolerance = float(numerics.get("largest_error") or 0.0), float(numerics.get("tolerance") or 1.0)
    faults = [run["stopped"], numerics.get("first_difference"), decisions["first_difference"]]
    if decisions["telemetry_difference"]:
        faults.append(f"{decisions['telemetry_difference']}.parquet of a simulation that leaps differs")
    if not memory["passed"]:
        sizes = (f"{name} {size:,} against {memory['simulated'][name]:,}" for name, size in memory["measured"].items())
        faults.append(f"memory, measured against simulated: {', '.join(sizes)}")
    if not numerics.get("tokens"):
        faults.append("no token was decoded")
    return {
        "label": run["label"],
        "how": f"{run['scheduler']}, {run['preemption']}",
        "backend": run["backend"],
        "steps": run["exercised"].get("steps", 0),
        "preemptions": run["exercised"].get("preemptions", 0),
        "tokens": numerics.get("tokens", 0),
        "equal": numerics.get("equal_tokens", 0),
        "error": error,
        "tolerance": tolerance,
        "of_tolerance": _on_scale(error, tolerance),
        "decisions": decisions["passed"],
        "memory": _memory(memory),
        "memory_passed": memory["passed"],
        "passed": run["passed"],
        "faults": [f"{run['label']}: {fault}" for fault in faults if fault],
    }


def _on_scale(error: float, tolerance: float) -> float:
    """Place of an error, in per cent, on a logarithmic scale of six decades that ends at what is allowed."""
    return 0.0 if error <= 0 else min(100.0, max(1.0, 100 * (1 + math.log10(error / tolerance) / 6)))


def _memory(memory: Mapping[str, Any]) -> str:
    if memory["kind"] == "none":
        return "holds none"
    if not memory["measured"]:
        return "not measured"
    if not any(memory["errors"].values()):
        return "exact"
    return ", ".join(f"{name.removeprefix('peak_')} {error:+.1%}" for name, error in memory["errors"].items())


def _worked(content: Mapping[str, Any]) -> list[tuple[str, int]]:
    """How often each mechanism was put to work over all runs, those that were at all."""
    found = []
    for name, words in MECHANISMS.items():
        counts = [run["exercised"].get(name, 0) for run in content["runs"]]
        total = max(counts, default=0) if name.startswith("most_") else sum(counts)
        if total:
            found.append((words, total))
    return found


def _timing(timing: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The timed part: for each figure the error of every run, on a strip, and what is allowed."""
    if not timing:
        return None
    allowed = {**timing["tolerances"]["median_over_runs"], **timing["tolerances"]["each_run"]}
    strips = []
    for name, (words, _) in FIGURES.items():
        marks = [_mark(run, name) for run in timing["runs"] if name in run["errors"]]
        if marks:
            most = allowed.get(name, 0.0)
            strips.append(
                {
                    "words": words,
                    "median": timing["medians"].get(name, 0.0),
                    "allowed": most,
                    "each": name in timing["tolerances"]["each_run"],
                    "marks": marks,
                    "from": _place(-most),
                    "until": _place(most),
                }
            )
    rows = [
        {
            "label": run["label"],
            "workload": run["workload"],
            "cells": [
                (words, _scaled(run["measured"].get(name), scale), _scaled(run["simulated"].get(name), scale))
                for name, (words, scale) in FIGURES.items()
            ],
        }
        for run in timing["runs"]
    ]
    differs = differing(timing.get("machine", {}))
    return {
        **timing,
        "differs": differs,
        "strips": strips,
        "rows": rows,
        "words": [words for words, _ in FIGURES.values()],
    }


def _mark(run: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Where a run stands on a figure's strip, and how far that moves if steps take less or more time."""
    error, measured = run["errors"][name], run["measured"][name]
    mark = {"what": f"{run['label']}, {run['workload']}", "error": error, "at": _place(error)}
    low, high = run.get("reach", {}).get(name) or (None, None)
    if low is None or high is None:
        return mark
    ends = low / measured - 1, high / measured - 1
    return {**mark, "ends": ends, "from": _place(ends[0]), "until": _place(ends[1])}


def _place(error: float) -> float:
    return 50 * (1 + max(-1.0, min(1.0, error / WIDEST)))


def _scaled(value: float | None, scale: float) -> float:
    return float("nan") if value is None else value * scale
