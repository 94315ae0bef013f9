"""`capacity`: the highest rate that each allocator sustains within an SLO."""

from __future__ import annotations

import math
from pathlib import Path

from analysis.planner.tables import capacity_table
from analysis.planner.words import capacity_findings
from sim.cli.planning import Work, answered, foreword, interrupted
from sim.cli.progress import counted
from sim.cli.run import folder_for
from sim.errors import UserError
from sim.planner.capacity import PRECISION
from sim.planner.capacity import capacity as find_capacity
from sim.planner.slo import objectives


def capacity(
    file: str,
    /,
    *,
    slo: tuple[str, ...] = (),
    vary: tuple[str, ...] = (),
    out: Path | None = None,
    repeat: int = 3,
    demand: float | None = None,
    part: str = "",
    precision: float = PRECISION,
    curves: bool = True,
    work: Work = Work(),
    json: bool = False,
) -> int:
    """Find the highest rate that each allocator sustains, and its latency at the rates around it.

    A rate is sustained if as many requests leave as arrive, and every --slo holds.
    Exit status 1 if some searches failed.

    Args:
        file: Workload file, or the name of a preset.
        slo: A figure and its limit: normalized_latency_s=0.2 is the mean, ttft_s.p99=1 a percentile, goodput=0.9 the
            share of requests that meet the workload's own slo, and what is asked if nothing is;
            part.chat.ttft_s.p99=1 is of one part of a mix. May be repeated.
        vary: A key and its values: device.kv_memory_gib=4,8,16; a capacity for each. May be repeated.
        out: Directory to write; runs/NAME-capacity if not given, NAME being the workload's.
        repeat: Replications; one gives no interval, and no ratio between allocators. A trace has one,
            or as many as there are engines that take turns (`one_in`); what `trace fit` writes differs every time.
        demand: A rate to be served, in the unit of the answer: also say how many GPUs that takes.
        part: Name of a part of a mix: only its rate is searched for, and the others stay as they are. All come faster
            together if not given.
        precision: The answer lies between two rates that differ by at most this share.
        curves: Whether to run each allocator at rates around what it sustains, for the page.
        work: As of every command that simulates many times.
        json: Print one JSON document instead of tables.

    """
    if repeat < 1:
        raise UserError(f"--repeat {repeat}: give at least 1")
    if not 0 < precision <= 1:
        raise UserError(f"--precision {precision:g}: give a share above 0, up to 1; 0.02 is 2 %")
    if demand is not None and not 0 < demand < math.inf:
        raise UserError(f"--demand {demand:g}: give requests a second, above 0")
    if demand is not None and part:
        raise UserError(f"--demand {demand:g}: GPUs share all parts of a mix, and --part {part} is the rate of one")
    base = work.base(file)
    with work.changes.placed(file):
        over = base.axes(vary)
    foreword(base.workload)
    aims = objectives(slo, base.workload)
    folder = out or folder_for(base.workload.name, "-capacity")
    try:
        with work.changes.placed(file), work.hands() as workers, counted(quiet=work.quiet) as progress:
            summary = find_capacity(
                base,
                over,
                aims,
                folder,
                workers,
                repeats=repeat,
                demand=demand,
                part=part,
                precision=precision,
                curves=curves,
                resume=work.resume,
                force=work.force,
                progress=progress,
            )
    except KeyboardInterrupt:
        return interrupted(folder)
    warnings = [one.text for one in capacity_findings(summary) if one.tone == "warning"]
    return answered(summary, folder, [capacity_table(summary, [axis.key for axis in over])], warnings, as_json=json)
