"""What a GPU's power limit does to prefills that follow one another.  Run by hand; about two minutes for two models.

    python -m tests.gpu.power                     the 1B and the 8B geometry
    python -m tests.gpu.power llama-3.2-1b        one of them

Runs the series that a calibration runs, twice, while `nvidia-smi` reads clock and power.  Prints how long the first
prefills of a row took and the lowest clock, and writes all of it to `analysis/results/power_<device>.json` (or into
`--out`).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from sim.costs.shapes import captured_tokens
from sim.decode.device import as_served, name_of, release, resolve
from sim.decode.grid import Extent
from sim.decode.model import load
from sim.decode.peaks import shipped_name
from sim.decode.runtime import choose_backend
from sim.decode.series import PARTS, series
from sim.decode.testbed import stage_for
from sim.decode.versions import versions
from sim.devices import resolve_device
from sim.models.geometry import resolve_model
from sim.results.rundir import write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from sim.decode.scene import Scene
    from sim.decode.stage import Stage

RESULTS = Path(__file__).parents[2] / "analysis" / "results"
EXTENT = Extent(seats=64, tokens=8192, longest=4096)
REPEATS = 2
ASKED = ("clocks.sm", "power.draw.instant", "clocks_event_reasons.active")
"""MHz, W, and a mask in which 4 is the power limit (`nvidia-smi --help-query-gpu`)."""


class Reading:
    """Clock and power, read every hundredth of a second while this is open."""

    def __init__(self) -> None:
        """Start reading."""
        asked = ["--query-gpu=timestamp," + ",".join(ASKED), "--format=csv,noheader,nounits", "-lms", "10"]
        self._tool = subprocess.Popen(["nvidia-smi", *asked], stdout=subprocess.PIPE, text=True)

    def stop(self) -> list[tuple[float, int, float, int]]:
        """Stop, and return (seconds since 1970, MHz, W, reasons) of each reading."""
        self._tool.terminate()
        output, _ = self._tool.communicate()
        found = []
        for line in output.splitlines()[:-1]:  # the last may be cut off
            when, clock, power, reasons = (word.strip() for word in line.split(","))
            moment = datetime.strptime(when, "%Y/%m/%d %H:%M:%S.%f").astimezone().timestamp()
            found.append((moment, int(clock), float(power), int(reasons, 16)))
        return found


class Watched:
    """A stage whose series are run with clock and power beside them."""

    def __init__(self, stage: Stage) -> None:
        """Watch `stage`."""
        self._stage = stage
        self.beside: list[dict[str, Any]] = []
        """Lowest clock, highest power and whether the limit was reached, of each call of `times`."""

    def times(self, scene: Scene, prefills: Sequence[bool]) -> npt.NDArray[np.float64]:
        """See `Stage.times`."""
        reading, began = Reading(), time.time()
        seconds = self._stage.times(scene, prefills)
        ended = time.time()
        inside = [each for each in reading.stop() if began <= each[0] <= ended]
        self.beside.append(
            {
                "lowest_mhz": min((clock for _, clock, _, _ in inside), default=None),
                "highest_w": max((power for _, _, power, _ in inside), default=None),
                "limited": any(reasons & 4 for *_, reasons in inside),
            }
        )
        return seconds


def measure(name: str, device: torch.device) -> list[dict[str, Any]]:
    """Run all series with one model."""
    geometry = resolve_model({"name": name})
    decoder = load(name, geometry, device, seed=0)
    described = resolve_device(shipped_name(name_of(device)) or "h100-80gb")
    stage = stage_for(decoder, "paged", EXTENT, choose_backend(None, geometry, device), described)
    stage.captured(EXTENT.longest)  # all is warm afterwards
    found = []
    with as_served(), torch.inference_mode():
        for _ in range(REPEATS):
            watched = Watched(stage)
            rows = series(watched, EXTENT, captured_tokens(geometry))
            each = len(watched.beside) // len(PARTS)  # the first of which only tells how long the others are to be
            beside = [one for number, one in enumerate(watched.beside) if number % each]
            for row, one in zip(rows, beside, strict=True):
                ms = [round(seconds * 1e3, 3) for seconds in row.seconds]
                found.append({"tokens": row.tokens, "launched": row.launched, "order": row.order, "ms": ms, **one})
    del stage, watched, decoder
    release(device)
    return found


def show(name: str, rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Print the rows in which prefills follow one another."""
    for row in rows:
        if "d" not in row["order"].strip("d"):
            took = [each for each, step in zip(row["ms"], row["order"], strict=True) if step == "p"]
            first = "  ".join(f"{each:.2f}" for each in took[:8])
            console.print(f"{name}  {row['tokens']:5}  {first} ... {took[-1]:.2f} ms, {row['lowest_mhz']} MHz")


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["llama-3.1-8b", "llama-3.2-1b"])
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    options = parser.parse_args()
    console, device = Console(width=150), resolve("cuda")
    options.out.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in options.models:
        found[name] = measure(name, device)
        show(name, found[name], console)
    slug = re.sub(r"[^a-z0-9]+", "-", name_of(device).lower()).strip("-")
    date = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"schema": 1, "device": name_of(device), "versions": versions(), "date": date, "models": found}
    write_json(options.out / f"power_{slug}.json", content)


if __name__ == "__main__":
    main()
