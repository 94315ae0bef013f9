"""A validation in the terminal: one line a run, and what differs in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

    from sim.decode.checks import Finding, Memory
    from sim.decode.validate import Validation


def show(result: Validation, console: Console) -> None:
    """Print a validation."""
    versions = ", ".join(f"{name} {number}" for name, number in result.versions.items())
    console.print(f"{result.workload}: {result.model} in {result.dtype}, weights {result.weights}", markup=False)
    console.print(f"{result.device} ({versions})", markup=False)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("run", "attention"):
        table.add_column(name, no_wrap=True)
    for name in ("steps", "preempted", "tokens", "equal", "error"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("decisions", "memory", "verdict"):
        table.add_column(name, no_wrap=True)
    for finding in result.findings:
        table.add_row(*map(Text, _row(finding)))
    wide = console.options.update(width=1000)  # on a narrower terminal lines run over, but nothing is cut
    console.width = max(console.width, Measurement.get(console, wide, table).maximum)
    console.print(table)
    for finding in result.findings:
        for why in reasons(finding):
            console.print(f"{finding.name}: {why}", markup=False, soft_wrap=True)
    for label, why in result.not_run.items():
        console.print(f"{label}: not run: {why}", markup=False, soft_wrap=True)
    verdict = "everything agrees" if result.passed else "real and simulated runs DIFFER"
    console.print(f"{sum(finding.passed for finding in result.findings)} of {len(result.findings)} runs: {verdict}")


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
