"""How close the times of a simulation are to those of a real run of the same requests.

Errors are relative: (simulated - measured) / measured.  Throughput, mean batch and the median time per
output token are judged by the median of their absolute errors over all runs; every 99th percentile is
judged individually.  A real run may be repeated, because other processes on the machine can delay its
host, which no simulation predicts; each figure is then the median of the repeats, and their spread is
reported.  Machines with the same device differ, too.  How much this one does is measured before, where
there is something to measure it by; reported beside the simulation is how far its figures move if all
steps take a little less or more time.  A 99th percentile of a few hundred requests can move by much more
than that: who waits for whom depends on which step a request just misses.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from analysis.figures import figure
from analysis.reading import open_directory

FIGURES = (
    "throughput_rps",
    "output_tps",
    "batch_size",
    "normalized_latency_s",
    "normalized_latency_s.p50",
    "normalized_latency_s.p99",
    "ttft_s.p50",
    "ttft_s.p99",
    "tpot_s.p50",
    "tpot_s.p99",
)
"""What is compared, by its name in `analysis.figures`, beside the makespan."""
IN_MEDIAN = {"throughput_rps": 0.03, "batch_size": 0.03, "tpot_s.p50": 0.03}
"""Largest error allowed in the median over all runs."""
IN_EACH = {"normalized_latency_s.p99": 0.08, "ttft_s.p99": 0.08, "tpot_s.p99": 0.08}
"""Largest error allowed in each run."""
MACHINES = 0.02
"""By how much machines with the same device differ: steps are also simulated to take up to this share less or more."""


@dataclass(frozen=True)
class Timed:
    """One run, measured and simulated."""

    workload: str
    label: str
    scheduler: str
    measured: Mapping[str, float]
    """Figures of the real run."""
    simulated: Mapping[str, float]
    finished: tuple[int, int]
    """Requests finished, measured and simulated."""
    judged: bool = True
    """Whether the calibration has measured steps of this kind; otherwise errors are only reported."""
    repeats: int = 1
    """Real runs of which `measured` has the medians."""
    spread: Mapping[str, float] = field(default_factory=dict)
    """Half the range of a figure over them, relative to the median."""
    reach: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Least and most of a figure in simulations whose steps take a little less or more time, by `MACHINES`."""

    @property
    def errors(self) -> dict[str, float]:
        """(simulated - measured) / measured, by figure; what neither run has is left out."""
        return {
            name: self.simulated[name] / value - 1
            for name, value in self.measured.items()
            if value and np.isfinite(value) and np.isfinite(self.simulated[name])
        }

    def scatter(self, name: str) -> str:
        """Say how far the repeats of the real run lie apart in a figure, if it was repeated."""
        return f" (repeats within {self.spread[name]:.1%} of their middle)" if name in self.spread else ""

    def within(self, name: str) -> bool:
        """Whether what was measured lies between the least and the most."""
        low, high = self.reach[name]
        return low <= self.measured[name] <= high

    def steady(self, name: str) -> bool:
        """Whether steps that take a little less or more time move a 99th percentile by no more than it may be off."""
        here = self.simulated[name]
        return all(abs(end / here - 1) <= IN_EACH[name] for end in self.reach[name])

    def unsure(self, name: str) -> str:
        """Say how far the figure moves with the time of steps, if that is known."""
        if name not in self.reach:
            return ""
        low, high = (value / self.measured[name] - 1 for value in self.reach[name])
        return f"; from {low:+.1%} to {high:+.1%} if steps take up to {MACHINES:.0%} less or more"

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "workload": self.workload,
            "label": self.label,
            "scheduler": self.scheduler,
            "judged": self.judged,
            "finished": list(self.finished),
            "repeats": self.repeats,
            "measured": _plain(self.measured),
            "spread": {name: round(share, 5) for name, share in self.spread.items()},
            "simulated": _plain(self.simulated),
            "errors": {name: round(error, 5) for name, error in self.errors.items()},
            "reach": {name: list(map(_plain_number, ends)) for name, ends in self.reach.items()},
        }


@dataclass
class Timing:
    """The timed part of a validation: its runs, and what is allowed of them."""

    calibration: str | None
    """What the simulation's step times come from; None if nobody named any for this device."""
    runs: list[Timed] = field(default_factory=list)
    held_up: tuple[float, ...] = ()
    """Share of the time in which others held up the host of each real run, where that was watched."""
    machine: Mapping[str, float] = field(default_factory=dict)
    """Coefficients that were measured on the machine before the prediction, in place of the calibration's."""

    @property
    def judged(self) -> bool:
        """Whether errors count: without a calibration for the device they are only reported."""
        return self.calibration is not None

    @property
    def medians(self) -> dict[str, float]:
        """Median size of the errors over all runs that are judged (all, if nothing is), by figure."""
        runs = [run for run in self.runs if run.judged or not self.judged]
        names = dict.fromkeys(name for run in runs for name in run.errors)
        sizes = {name: [abs(run.errors[name]) for run in runs if name in run.errors] for name in names}
        return {name: float(np.median(size)) for name, size in sizes.items()}

    @property
    def faults(self) -> list[str]:
        """What is further off than allowed, in words."""
        medians, runs = self.medians, [run for run in self.runs if run.judged]
        faults = [
            f"{name}: off by {medians[name]:.1%} in the median over {len(runs)} runs, {most:.0%} allowed"
            for name, most in IN_MEDIAN.items()
            if medians.get(name, 0.0) > most
        ]
        for run in runs:
            where = f"{run.workload}, {run.label}"
            if run.finished[0] != run.finished[1]:
                faults.append(f"{where}: {run.finished[0]} requests finished, {run.finished[1]} in the simulation")
            faults += [
                f"{where}: {name}: {run.simulated[name]:.4g} against {run.measured[name]:.4g} measured, "
                f"off by {run.errors[name]:+.1%}, {most:.0%} allowed{run.scatter(name)}{run.unsure(name)}"
                for name, most in IN_EACH.items()
                if abs(run.errors.get(name, 0.0)) > most
            ]
        return faults

    @property
    def reached(self) -> tuple[int, int]:
        """How many 99th percentiles of judged runs were measured within their reach, and of how many that is known."""
        found = [run.within(name) for run in self.runs if run.judged for name in IN_EACH if name in run.reach]
        return sum(found), len(found)

    @property
    def steady(self) -> tuple[int, int]:
        """How many steady 99th percentiles (`Timed.steady`) of judged runs are near enough, and how many there are."""
        found = [
            abs(run.errors[name]) <= most
            for run in self.runs
            if run.judged
            for name, most in IN_EACH.items()
            if name in run.reach and name in run.errors and run.steady(name)
        ]
        return sum(found), len(found)

    @property
    def passed(self) -> bool:
        """Whether everything that is judged is as near as is asked."""
        return not self.judged or not self.faults

    def as_json(self) -> dict[str, Any]:
        """Return the entry `timing` of validation.json."""
        return {
            "passed": self.passed,
            "judged": self.judged,
            "calibration": self.calibration,
            "machine": dict(self.machine),
            "machines": MACHINES,
            "tolerances": {"median_over_runs": IN_MEDIAN, "each_run": IN_EACH},
            "medians": {name: round(size, 5) for name, size in self.medians.items()},
            "faults": self.faults,
            "held_up": [round(share, 5) for share in self.held_up],
            "runs": [run.as_json() for run in self.runs],
        }


def timed(measured: str | Path, simulated: str | Path, unjudged: Collection[str] = ()) -> list[Timed]:
    """Compare two run directories of one workload, run by run.

    Args:
        measured: of the real run.
        simulated: of the simulation; it has all the runs of the other, and perhaps more.
        unjudged: labels of runs whose errors are only reported.

    Raises:
        RunDirectoryError: one of them is not a run directory.
        KeyError: a run has no counterpart.

    """
    real, made = open_directory(measured), open_directory(simulated)
    counterparts = {entry["allocator"]: entry for entry in made.summary()}
    return [
        _pair(real.name, entry, counterparts[entry["allocator"]], judged=entry["allocator"] not in unjudged)
        for entry in real.summary()
    ]


def _pair(workload: str, measured: Mapping[str, Any], simulated: Mapping[str, Any], *, judged: bool) -> Timed:
    finished = (measured["requests"]["finished"], simulated["requests"]["finished"])
    label, scheduler = measured["allocator"], measured["scheduler"]
    return Timed(workload, label, scheduler, figures(measured), figures(simulated), finished, judged)


def repeated(timings: Sequence[Timing]) -> Timing:
    """Make one of several timings whose real runs are repeats of each other: medians, and their spread."""
    runs = [_median(runs) for runs in zip(*(each.runs for each in timings), strict=True)]
    return replace(timings[0], runs=runs, held_up=tuple(share for each in timings for share in each.held_up))


def _median(runs: Sequence[Timed]) -> Timed:
    columns = {name: np.array([run.measured[name] for run in runs]) for name in runs[0].measured}
    medians = {name: float(np.median(values)) for name, values in columns.items()}
    spread = {name: float(np.ptp(columns[name])) / 2 / value for name, value in medians.items() if value > 0}
    finished = min(run.finished[0] for run in runs), runs[0].finished[1]
    repeats = sum(run.repeats for run in runs)
    return replace(runs[0], finished=finished, measured=medians, repeats=repeats, spread=spread)


def with_others(timing: Timing, others: Sequence[Path]) -> Timing:
    """Add what other simulations say, whose steps take less or more time.

    Args:
        timing: without that.
        others: their run directories.

    """
    entries = [{entry["allocator"]: figures(entry) for entry in open_directory(path).summary()} for path in others]
    runs = []
    for run in timing.runs:
        made = [run.simulated, *(entry[run.label] for entry in entries)]
        values = {name: np.array([each[name] for each in made]) for name in run.simulated}
        reach = {name: (float(each.min()), float(each.max())) for name, each in values.items()}
        runs.append(replace(run, reach=reach))
    return replace(timing, runs=runs)


def figures(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return what is compared of a run, from its entry in the summary."""
    return {**{name: figure(entry, name) for name in FIGURES}, "makespan_s": float(entry["duration_s"])}


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _plain_number(value) for name, value in values.items()}


def _plain_number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def gathered(parts: Iterable[Mapping[str, Any]]) -> Timing:
    """Combine the timed parts of several validations, from their validation.json, and judge them together."""
    timings = list(parts)
    names = {timing["calibration"] for timing in timings}
    calibration = None if None in names else ", ".join(sorted(names))
    held_up = tuple(share for timing in timings for share in timing.get("held_up", ()))
    machine = timings[0].get("machine", {}) if len(timings) == 1 else {}
    return Timing(calibration, [_read(run) for timing in timings for run in timing["runs"]], held_up, machine)


def _read(run: Mapping[str, Any]) -> Timed:
    measured, simulated = (
        {name: float("nan") if value is None else value for name, value in run[which].items()}
        for which in ("measured", "simulated")
    )
    first, second = run["finished"]
    facts = run["workload"], run["label"], run["scheduler"]
    repeats = run.get("repeats", 1), run.get("spread", {})
    reach = {name: (low, high) for name, (low, high) in run.get("reach", {}).items() if low is not None}
    return Timed(*facts, measured, simulated, (first, second), run["judged"], *repeats, reach)
