"""Where the time of a run goes: CPU seconds of each stage of `python -m sim run FILE`, in one process.

    python -m tests.benchmarks.stages workload.yaml

A stage is a function of the program, and its time is what passes inside it, less the stages
within it.  What no stage covers is imports and the rest.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from sim.cli.process import settle

if TYPE_CHECKING:
    from collections.abc import Callable

STAGES = {
    "read the workload": ("sim.cli.source.Changes", "read"),
    "make or read the requests": ("sim.setup.Setup", "requests"),
    "resolve model, device, pool": ("sim.runner", "prepare"),
    "engine": ("sim.engine.loop.Engine", "run"),
    "write telemetry": ("sim.results.rundir.ParquetSink", "write"),
    "summarise": ("analysis.reading.Run", "summarise"),
    "list what was written": ("sim.results.listing", "listed"),
    "write the page": ("sim.cli.run", "write_report"),
    "print tables": ("sim.cli.run", "show"),
}


class Clock:
    """CPU seconds by stage."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self._within: list[float] = []

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that its time is booked to a stage, and not to the stage around it."""

        @wraps(function)
        def wrapper(*arguments: Any, **named: Any) -> Any:
            begin = time.process_time()
            self._within.append(0.0)
            try:
                return function(*arguments, **named)
            finally:
                passed = time.process_time() - begin
                self.spent[stage] += passed - self._within.pop()
                if self._within:
                    self._within[-1] += passed

        return wrapper


def stages(workload: Path, out: Path) -> dict[str, float]:
    """Run a workload through the command line; returns CPU seconds by stage, and of the process so far."""
    clock = Clock()
    begin = time.process_time()
    settle()
    app = importlib.import_module("sim.cli.app")
    importlib.import_module("sim.cli.run")
    imports = time.process_time() - begin
    with ExitStack() as patches:
        for stage, (where, name) in STAGES.items():
            owner = _find(where)
            patches.enter_context(patch.object(owner, name, clock.timed(stage, getattr(owner, name))))
        status = app.main(["run", str(workload), "--out", str(out), "--quiet"])
    if status:
        raise SystemExit(status)
    return {"import": imports, **clock.spent, "whole process": time.process_time()}


def _find(where: str) -> Any:
    """Import a module, or a class in one."""
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError:
        module, _, name = where.rpartition(".")
        return getattr(importlib.import_module(module), name)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        spent = stages(Path(sys.argv[1]), Path(folder, "out"))
    for stage, seconds in spent.items():
        sys.stderr.write(f"{stage:30s}{1000 * seconds:8.0f} ms\n")


if __name__ == "__main__":
    main()
