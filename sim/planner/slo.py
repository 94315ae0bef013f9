"""Objectives that a run must meet: `--slo figure=limit`.

normalized_latency_s=0.2     the mean (the paper's measure)
ttft_s.p99=1.0               a percentile: p50, p90, p95 or p99
tpot_s.p90=0.05
goodput=0.9                  share of all requests that meet every limit of the workload's own `slo`
part.chat.ttft_s.p99=1.0     of the requests of one part of a mix
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.figures import GOODPUT, figure, of_part, within_slo
from analysis.metrics import PER_REQUEST, itl_s
from analysis.planner.effects import share
from analysis.slo import PART, limits_of
from analysis.summary import NAMES
from sim.errors import UserError, suggest
from workloads.labels import part_names, unknown_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.planner.job import Record
    from workloads.schema import Workload

QUEUE = "queue"
ATTAINED = 0.9
"""Share of requests that shall meet the workload's limits if no `--slo` is given (as DistServe has it)."""
FIGURES = (*(metric.__name__ for metric in PER_REQUEST), itl_s.__name__)


@dataclass(frozen=True)
class Objective:
    """One figure and its limit."""

    name: str
    """As the user writes it, but for `.mean`; after `part.` comes the name of a part of a mix."""
    limit: float

    @property
    def part(self) -> str:
        """Name of the part of a mix whose requests count; empty if all do."""
        return _in_part(self.name)[0]

    @property
    def figure(self) -> str:
        """The figure, of that part or of all requests."""
        return _in_part(self.name)[1]

    @property
    def text(self) -> str:
        """As the user writes it."""
        return f"{self.name}={self.limit:g}"

    @property
    def document(self) -> dict[str, Any]:
        """As summaries have it."""
        return {"name": self.name, "limit": self.limit, "text": self.text}

    @property
    def more_is_better(self) -> bool:
        """Whether the limit is a least, not a most."""
        return self.figure == GOODPUT

    def value(self, record: Record) -> float:
        """Return the figure of a run; NaN if no request has it."""
        if self.name == GOODPUT:
            return share(record)
        entry = of_part(record["entry"], self.part) if self.part else record["entry"]
        return within_slo(entry) if self.figure == GOODPUT else figure(entry, self.figure)

    def met(self, record: Record) -> bool:
        """Tell whether a run holds it; one in which no request has the figure does not, but where none came at all."""
        if self.part and not record["entry"]["parts"][self.part]["requests"]["total"]:
            return True
        value = self.value(record)
        return value >= self.limit if self.more_is_better else value <= self.limit


def _in_part(name: str) -> tuple[str, str]:
    """Take `part.chat.ttft_s.p99` apart into the part and the figure."""
    if not name.startswith(PART):
        return "", name
    part, _, rest = name.removeprefix(PART).partition(".")
    return part, rest


def shortfall(record: Record, aims: Sequence[Objective]) -> dict[str, Any]:
    """Say what a run does not hold, as `analysis.planner.tables.broken` reads it.

    Returns:
        `limited_by`: the objectives that are not met, and `queue` if the run fell behind; `missed`: if goodput is among
        them, by limit of the workload's slo the requests that are over it / all requests, and under `unfinished` those
        left over.  A request may be over several.

    """
    broken = [one.text for one in aims if not one.met(record)]
    short_of = any(one.name == GOODPUT and not one.met(record) for one in aims)
    total = max(1, int(record["entry"]["requests"]["total"]))
    return {
        "limited_by": ", ".join(broken if record["load"]["kept_up"] else [*broken, QUEUE]),
        "missed": {name: count / total for name, count in record["missed"].items()} if short_of else {},
    }


def objectives(given: Sequence[str], workload: Workload) -> tuple[Objective, ...]:
    """Read `--slo` settings; without any, 90 % of requests shall meet the workload's own limits.

    Raises:
        UserError, WorkloadError: one line for what is wrong and what would be right.

    """
    own = any(limits_of(workload.resolved()).values())
    if not given:
        if not own:
            raise UserError("--slo: the workload has no slo; give one, such as --slo normalized_latency_s=0.2")
        return (Objective(GOODPUT, ATTAINED),)
    parts = part_names(workload.requests)
    found = tuple(_read(setting, parts) for setting in given)
    if any(one.figure == GOODPUT for one in found) and not own:
        raise UserError("--slo goodput: the workload has no slo for requests to meet; give it one, such as slo.ttft_s")
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"--slo {twice}: given twice")
    return found


def _read(setting: str, parts: Sequence[str]) -> Objective:
    name, equals, text = setting.partition("=")
    name = name.strip()
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not equals or not 0 < limit < math.inf:
        raise UserError(
            f"--slo {setting}: write it as figure=limit, such as ttft_s.p99=1.0 or goodput=0.9; "
            "a limit is a number above 0, of seconds where it is a time"
        )
    of, name = _in_part(name)
    if of and of not in parts:
        raise unknown_part(of, parts, f"--slo {setting}")
    head, dot, part = name.partition(".")
    known = (*FIGURES, GOODPUT)
    if head not in known:
        raise UserError(f"--slo {setting}: unknown figure {head}{suggest(head, known)}; there are: {', '.join(known)}")
    if head == GOODPUT and (dot or limit > 1):
        raise UserError(f"--slo {setting}: goodput is the share of requests within the workload's slo, at most 1")
    if dot and part not in NAMES and part != "mean":
        raise UserError(f"--slo {setting}: unknown percentile {part}; there are: mean, {', '.join(NAMES)}")
    return Objective((f"{PART}{of}." if of else "") + (head if part == "mean" else name), limit)
