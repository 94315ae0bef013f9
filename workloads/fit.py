"""Fitting a generator to a trace: a `requests` block that draws requests like those of the trace.

It keeps the arrivals (rate over time, burstiness), the joint distribution of prompt and output lengths, how
much prompts share, and the turns of sessions.  Applications that have different system prompts are parts of a mix,
each with its own.  It does not contain any single request of the trace: every number in the block stands for five
or more of them, but where the trace has fewer.  `check` measures how good the fit is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from workloads.fit_apart import applications
from workloads.fit_arrivals import EACH, begins_late, fit_arrivals, ks_distance, strata
from workloads.fit_sharing import fit_sharing
from workloads.generate import generate
from workloads.reuse import ideal_hits
from workloads.source import Generated, Mix

if TYPE_CHECKING:
    from workloads.requests import Floats, Ints, Requests

WIDTH = 100
"""Columns of the text of a fit."""
PROMPTS, PARTS, OUTPUTS = 200, 20, 25
"""Numbers that stand for the prompts; parts they are cut into; numbers that stand for the outputs of each part."""


@dataclass(frozen=True)
class Check:
    """One quantity of the trace beside that of as many generated requests."""

    quantity: str
    trace: float
    """Mean (of a rate: the rate)."""
    fitted: float
    distance: float
    """Kolmogorov-Smirnov distance of the two distributions, 0 to 1; NaN where there is only one number."""
    critical: float
    """Distance that two samples of one distribution exceed in 5 of 100 cases."""


@dataclass(frozen=True)
class Fit:
    """A fitted generator."""

    block: dict[str, Any]
    """The `requests` block as plain data."""
    notes: tuple[str, ...]
    """What the fit found, and what it leaves out."""

    @cached_property
    def drawn(self) -> Requests:
        """As many requests as the block makes."""
        source = Mix if "mix" in self.block else Generated
        return generate(source.model_validate(self.block))

    def yaml(self) -> str:
        """Write the block as YAML, in lines of at most `WIDTH` columns."""
        return "\n".join([*(f"# {note}" for note in self.notes), *_lines("requests:", self.block)]) + "\n"


def fit(requests: Requests) -> Fit:
    """Fit a generator to requests (at least two)."""
    groups = applications(requests)
    if len(groups) == 1:
        return _alone(requests, requests.arrival_s - requests.arrival_s[0])
    parts, notes = [], ["several applications, told apart by what their prompts begin with"]
    for name, rows in groups.items():
        some = requests.take(rows)
        arrival = some.arrival_s - requests.arrival_s[0]
        one = _alone(some, arrival)
        if one.block["arrivals"]["kind"] == "profile" and begins_late(
            arrival
        ):  # or those that its rates leave over would come as late again
            del one.block["count"]
            one.block["duration_s"] = float(f"{arrival[-1]:.5g}")
        parts.append({"name": name, **one.block})
        notes += [f"{name}: {note}" for note in one.notes]
    return Fit({"mix": parts}, tuple(notes))


def _alone(requests: Requests, arrival: Floats) -> Fit:
    """Fit a generator to the requests of one application, and to when they arrive after the trace begins."""
    sharing = fit_sharing(requests)
    arrivals, notes = fit_arrivals(arrival)
    block: dict[str, Any] = {"count": len(requests), "arrivals": arrivals}
    block["lengths"] = joint_lengths(sharing.own[sharing.roots], requests.output_tokens[sharing.roots])
    if sharing.common:
        share = {} if sharing.common_share == 1 else {"share": round(sharing.common_share, 4)}
        block["shared"] = [{"tokens": sharing.common, **share}]
        notes.append(f"{sharing.common_share:.0%} of the prompts begin with the same {sharing.common} tokens")
    later = sharing.later
    if len(later):
        back = later - sharing.parent[later]
        # Early requests have none so far back that they could continue, and begin sessions although the share is kept.
        reach = float((np.arange(len(requests))[:, None] >= np.quantile(back, np.linspace(0, 1, 201))).mean())
        block["session"] = {
            "kind": "replies",
            "share": round(min(len(later) / len(requests) / reach, 1.0), 4),
            "back": {"kind": "values", "values": strata(back, PROMPTS)},
            "kept": {"kind": "values", "values": strata(sharing.kept[later], 50)},
            "later": joint_lengths(sharing.own[later], requests.output_tokens[later]),
        }
        notes.append(f"{len(later) / len(requests):.0%} of the requests continue an earlier one")
    return Fit(block, tuple(notes))


def joint_lengths(prompt: Ints, output: Ints) -> dict[str, Any]:
    """Describe lengths as the `joint` kind: prompts, and outputs of each twentieth of the prompts."""
    count = len(prompt)
    order = np.lexsort((output, prompt))
    parts = max(1, min(PARTS, count // (EACH * OUTPUTS)))
    edges = np.linspace(0, count, parts + 1).round().astype(np.int64)
    return {
        "kind": "joint",
        "prompt": strata(prompt, PROMPTS),
        "output": [strata(output[order[a:b]], OUTPUTS) for a, b in pairwise(edges)],
    }


def check(requests: Requests, fitted: Fit) -> list[Check]:
    """Compare a trace with as many requests from its fit."""
    made = fitted.drawn
    checks = [
        _compare("gap between arrivals, s", np.diff(requests.arrival_s), np.diff(made.arrival_s)),
        _compare("prompt tokens", requests.prompt_tokens, made.prompt_tokens),
        _compare("output tokens", requests.output_tokens, made.output_tokens),
        _compare(
            "prompt x output tokens",
            requests.prompt_tokens * requests.output_tokens,
            made.prompt_tokens * made.output_tokens,
        ),
    ]
    minutes = per_minute(requests.arrival_s), per_minute(made.arrival_s)
    if all(map(len, minutes)):
        checks.insert(1, _compare("arrivals a minute", *minutes))
    if requests.prefixes is not None:
        rates = [float(ideal_hits(some).sum() / some.prompt_tokens.sum()) for some in (requests, made)]
        checks.append(Check("ideal hit rate", rates[0], rates[1], math.nan, math.nan))
    return checks


def per_minute(arrival: Floats) -> Ints:
    """Count arrivals in each whole minute; none in a shorter time."""
    minutes = int(arrival[-1] // 60)
    return np.bincount((arrival // 60).astype(np.int64), minlength=minutes)[:minutes]


def _compare(quantity: str, one: Floats | Ints, other: Floats | Ints) -> Check:
    """Compare two samples by the Kolmogorov-Smirnov test (asymptotic 5 % critical value of the two-sample test)."""
    if not len(one) or not len(other):
        return Check(quantity, math.nan, math.nan, math.nan, math.nan)
    critical = 1.3581 * math.sqrt(1 / len(one) + 1 / len(other))
    return Check(quantity, float(one.mean()), float(other.mean()), ks_distance(one, other), critical)


def _lines(key: str, value: Any, indent: str = "") -> list[str]:
    """Write plain data behind a key (or dash): in one line if it fits, else its parts in lines of their own."""
    line, deeper = f"{indent}{key} {_flow(value)}", f"{indent}  "
    if isinstance(value, dict) and (len(line) > WIDTH or not indent):
        return [f"{indent}{key}", *(line for name, one in value.items() for line in _lines(f"{name}:", one, deeper))]
    if isinstance(value, list) and len(line) > WIDTH and isinstance(value[0], dict | list):
        return [f"{indent}{key}", *(line for one in value for line in _lines("-", one, deeper))]
    return wrap(line, WIDTH, subsequent_indent=deeper, break_long_words=False, break_on_hyphens=False)


def _flow(value: Any) -> str:
    """Write plain data in YAML's flow style."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return f"{value:.10g}" if isinstance(value, float) else str(value)
