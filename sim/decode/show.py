"""A validation in the terminal: one line per run, and the differences in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from analysis.machines import differing
from analysis.numbers import short
from analysis.terminal import plain, put
from analysis.timing import MACHINES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from analysis.timing import Timing
    from sim.decode.checks import Finding, Memory
    from sim.decode.outcome import Validation


def show(result: Validation, console: Console) -> None:
    """Print a validation."""
    versions = ", ".join(f"{name} {number}" for name, number in result.versions.items())
    console.print(f"{result.workload}: {result.model} in {result.dtype}, weights {result.weights}", markup=False)
    console.print(f"{result.device} ({versions})", markup=False)
    if result.findings:
        _show_exact(result, console)
    for label, why in result.not_run.items():
        console.print(f"{label}: not run: {why}", markup=False, soft_wrap=True)
    if result.timing is not None:
        show_timing(result.timing, console)
        if not result.timing.judged:
            console.print(
                f"simulated times are those of the workload's device, not of {result.device}: `calibrate --model "
                "MODEL` measures this one, and `--calibration FILE` simulates and judges with what it wrote",
                markup=False,
                soft_wrap=True,
            )


def _show_exact(result: Validation, console: Console) -> None:
    """Print one line a run, then what differs, then how many agree."""
    table = plain("Tokens, decisions and memory, real and simulated")
    for name in ("run", "attention"):
        table.add_column(name, no_wrap=True)
    for name in ("steps", "pre-\nempted", "tokens", "equal", "largest\nerror"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("decisions", "memory", "verdict"):
        table.add_column(name, no_wrap=True)
    for finding in result.findings:
        table.add_row(*map(Text, _row(finding)))
    put(console, table)
    for finding in result.findings:
        for why in reasons(finding):
            console.print(f"{finding.name}: {why}", markup=False, soft_wrap=True)
    agree = [finding.passed for finding in result.findings]
    verdict = "everything agrees" if all(agree) else "real and simulated runs DIFFER"
    console.print(f"{sum(agree)} of {len(agree)} runs: {verdict}")


COLUMNS = {
    "throughput_rps": "req/s",
    "batch_size": "batch",
    "makespan_s": "makespan\ns",
    "normalized_latency_s": "ms/token\nmean",
    "ttft_s.p50": "TTFT ms\np50",
    "ttft_s.p99": "TTFT ms\np99",
    "tpot_s.p50": "TPOT ms\np50",
    "tpot_s.p99": "TPOT ms\np99",
}
"""Figures that are shown of each run, and their headings."""


def show_timing(timing: Timing, console: Console) -> None:
    """Print what was measured of each run, and how far off the simulation was, if it is a prediction."""
    predicted = timing.calibration is not None
    table = plain("Times of real and simulated runs")
    for heading in ("run", ""):
        table.add_column(heading, no_wrap=True)
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    several = len({run.workload for run in timing.runs}) > 1
    for run in timing.runs:
        table.add_row(
            Text(f"{run.workload}: {run.label}" if several else run.label), "measured", *_values(run.measured)
        )
        if predicted:
            errors = (f"{run.errors[name]:+.1%}" if name in run.errors else "" for name in COLUMNS)
            table.add_row("", "error", *errors, style="dim")
        else:
            table.add_row("", "simulated", *_values(run.simulated), style="dim")
    if predicted:
        medians = timing.medians
        sizes = (f"{medians[name]:.1%}" if name in medians else "" for name in COLUMNS)
        table.add_row("all runs", "median error", *sizes)
        table.caption = "error: of the simulation; the median is of the errors' sizes"
    put(console, table)
    for fault in timing.faults if timing.judged else ():
        console.print(fault, markup=False, soft_wrap=True)
    within, known = timing.reached
    if timing.judged and known:
        near, steady = timing.steady
        console.print(
            f"{within} of {known} 99th percentiles measured where the simulation has them if steps take up to "
            f"{MACHINES:.0%} less or more; {steady} are moved by that no further than they may be off, and {near} of "
            "these are near enough",
            markup=False,
            soft_wrap=True,
        )
    if timing.machine:
        console.print(f"this machine, measured before: {differing(timing.machine)}", markup=False, soft_wrap=True)
    if timing.held_up:
        shares = ", ".join(f"{share:.1%}" for share in timing.held_up)
        console.print(f"others held up the host of the real runs for {shares} of the time", markup=False)
    basis = f"with {timing.calibration}" if timing.calibration else "with default costs, not judged"
    verdict = "within the tolerances" if timing.passed else "NOT within the tolerances"
    console.print(
        f"times of {len(timing.runs)} runs, {basis}" + (f": {verdict}" if timing.judged else ""), markup=False
    )


def _values(figures: Mapping[str, float]) -> list[str]:
    """Write the figures of a run, times in milliseconds but for the makespan."""
    return [
        short(figures[name] * (1e3 if name.endswith(("_s", "_s.p50", "_s.p99")) and name != "makespan_s" else 1))
        if name in figures
        else ""
        for name in COLUMNS
    ]


def _row(finding: Finding) -> tuple[str, ...]:
    numerics, work = finding.numerics, finding.exercised
    tokens, equal, error = (
        ("", "", "") if numerics is None else (numerics.tokens, numerics.equal, numerics.largest_error)
    )
    return (
        finding.name,
        finding.backend,
        str(work.get("steps", 0)),
        str(work.get("preemptions", 0)),
        str(tokens),
        str(equal),
        f"{error:.1e}" if numerics else "",
        "same" if finding.decisions.passed else "differ",
        _memory(finding.memory),
        "passed" if finding.passed else "FAILED",
    )


def _memory(memory: Memory) -> str:
    if memory.kind == "none":
        return "holds none"
    if not memory.measured:
        return "not measured"
    if not any(memory.errors.values()):
        return "exact"
    return " ".join(f"{name.removeprefix('peak_')} {error:+.1%}" for name, error in memory.errors.items())


def reasons(finding: Finding) -> list[str]:
    """Say in words what is wrong with a run; nothing if it passed."""
    words = [finding.stopped, finding.decisions.difference]
    if finding.numerics is None or not finding.numerics.tokens:
        words.append("no token was decoded")
    else:
        words.append(finding.numerics.first)
    if finding.decisions.telemetry:
        words.append(f"{finding.decisions.telemetry}.parquet of a simulation that leaps differs")
    if not finding.memory.passed:
        memory = finding.memory
        figures = (
            f"{name} {size:,} against {memory.simulated[name]:,} simulated" for name, size in memory.measured.items()
        )
        words.append("memory: " + ", ".join(figures))
    return [word for word in words if word]
