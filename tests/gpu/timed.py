"""Simulated times against real ones on a GPU: held-out workloads, and the PagedAttention paper's headline.  By hand.

    python -m tests.gpu.timed                    all that has no result yet, until --seconds have passed
    python -m tests.gpu.timed --only held-out    fixed before they were first run
    python -m tests.gpu.timed --only seen        others, on whose errors the way to calibrate was mended
    python -m tests.gpu.timed --only sosp23      Figures 12 and 13: OPT-13B, Orca and vLLM, several rates
    python -m tests.gpu.timed --list             every piece
    python -m tests.gpu.timed --again            simulate what has been measured anew: on any machine, after a new
                                                 calibration or a change of the cost model

Each piece is one allocator or a few on one workload, served for real (`--repeats` times, of which the
medians count) and simulated with the shipped calibration, and with how fast this machine was found to
be before.  It is served from the core of the machine on which others are at work least; a repeat while
which they held it up, or one beside it, for more than 1 % of the time is made again, up to twice as
many in all (`sim.decode.quiet`).  A result is written to `analysis/results/timed_<device>.json` (or into
`--out`) after every piece, and what is there already is not run again, so pieces can be spread over
several machines.  Exit status 1 if what is judged is further off than the tolerances in the file.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from rich.console import Console

from analysis.reading import open_directory
from analysis.timing import Timing, figures, gathered, repeated
from sim.decode.device import name_of, release, resolve
from sim.decode.machine import launching
from sim.decode.model import Decoder, load
from sim.decode.quiet import CALM, Quiet
from sim.decode.runtime import build_kernels, choose_backend
from sim.decode.show import show_timing
from sim.decode.timed import AS_CALIBRATED, calibration_of, compare, on_this_machine, serve, simulate, with_reach
from sim.decode.versions import versions
from sim.results.rundir import write_json
from sim.setup import prepare
from workloads.loader import load as load_workload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workloads.schema import Workload

RESULTS = Path(__file__).parents[2] / "analysis" / "results"
BLIND = ("1b", "8b", "chat", "rag", "code", "full", "swarm", "parts", "offline")
"""Presets `validate_blind_...`, fixed before they were first run; no prediction has been changed for their sake."""
SEEN = ("1b", "tensors", "8b", "prefix", "swap")
"""Presets `validate_timed_...`, whose errors showed what to mend from the beginning."""
HELD_OUT = (
    *(*SEEN, "burst", "crowd", "sharegpt", "prompts", "long", "heavy", "busy", "agents", "tight", "many", "wide"),
    *("reports", "papers", "budget", "parts_1b", "offline_1b"),
)
"""Presets `validate_heldout_...`, fixed before they were first run, whose errors have done so since."""
JUDGED = {"blind", "held-out"}
"""Groups of these that a verdict is of."""
HEADLINE = "sosp23_h100"
RATES = (3, 6, 12)
"""Requests a second of the headline: the first is more than Orca (Max) can hold, the last more than any."""


class Piece(NamedTuple):
    """What is run at once."""

    name: str
    group: str
    preset: str
    settings: tuple[str, ...] = ()


def pieces() -> list[Piece]:
    """Return everything there is to run."""
    held_out = [Piece(f"blind {name}", "blind", f"validate_blind_{name}") for name in BLIND]
    held_out += [Piece(f"held-out {name}", "held-out", f"validate_heldout_{name}") for name in HELD_OUT]
    held_out += [Piece(name, "seen", f"validate_timed_{name}") for name in SEEN]
    labels = [spec.label or spec.kind for spec in load_workload(HEADLINE).allocators]
    return held_out + [
        Piece(f"{label} at {rate}", "sosp23", HEADLINE, (f"requests.arrivals.rate={rate}", f"only={label}"))
        for rate in RATES
        for label in labels
    ]


def workload_of(piece: Piece, extra: tuple[str, ...] = ()) -> Workload:
    """Load a piece's workload, with the one allocator it is about if it is about one."""
    only = [words.removeprefix("only=") for words in piece.settings if words.startswith("only=")]
    settings = [words for words in piece.settings if not words.startswith("only=")]
    workload = load_workload(piece.preset, [*settings, *extra])
    if not only:
        return workload
    return workload.model_copy(
        update={
            "name": f"{workload.name}, {settings[0].rpartition('=')[2]} requests a second",
            "allocators": tuple(spec for spec in workload.allocators if (spec.label or spec.kind) in only),
        }
    )


class Bench:
    """A device and the model that was loaded last."""

    def __init__(self, device: torch.device, calibration: str | None) -> None:
        """Load nothing yet; judge with `calibration`, if one is named, in place of the shipped ones."""
        self.device = device
        self._calibration = calibration
        self._decoder: Decoder | None = None
        self._machine: Mapping[str, float] = AS_CALIBRATED
        self._quiet = Quiet()

    def run(self, workload: Workload, folder: Path, repeats: int, *, later: bool) -> Timing:
        """Serve a workload for real a number of times, and simulate it before."""
        geometry = prepare(workload).geometry
        backend = choose_backend(None, geometry, self.device)
        fresh = self._decoder is None or self._decoder.geometry != geometry
        if fresh:
            self._decoder = None
            release(self.device)
            self._decoder = load(workload.model.name, geometry, self.device, seed=workload.seed)
            build_kernels(backend, geometry)
        calibration = calibration_of(workload, name_of(self.device), geometry.model.dtype, self._calibration)
        if fresh or launching(workload):
            self._machine = on_this_machine(self._decoder, workload, calibration, self._quiet, backend=backend)
        simulate(workload, folder / "simulated", calibration, None, self._machine)
        facts = {"executor": {"device": name_of(self.device), "versions": versions()}}
        timings: list[Timing] = []
        while sum(map(undisturbed, timings)) < repeats and len(timings) < 2 * repeats:
            measured = folder / f"measured-{len(timings) + 1}"
            with self._quiet.watched() as watch:
                serve(self._decoder, workload, measured, backend=backend, facts=facts)
            timing = compare(measured, folder / "simulated", calibration)
            timings.append(replace(timing, held_up=(watch.share,), machine=self._machine))
        found = repeated([*filter(undisturbed, timings)] or timings)
        return found if later else with_reach(found, workload, None)


def undisturbed(timing: Timing) -> bool:
    """Whether others left the host of the real runs alone."""
    return max(timing.held_up) <= CALM


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--only", nargs="*", default=[], help="groups, or pieces whose names begin so")
    parser.add_argument("--list", action="store_true", help="name the pieces")
    parser.add_argument("--seconds", type=float, default=480.0, help="no piece begins later than this")
    parser.add_argument("--calibration", help="a shipped name or a file, in place of the shipped one for the model")
    parser.add_argument("--again", action="store_true", help="measure nothing, simulate all results anew")
    parser.add_argument(
        "--later", action="store_true", help="leave to --again how far figures move if steps take less or more time"
    )
    parser.add_argument("--repeats", type=int, default=3, help="real runs of each piece")
    parser.add_argument("--keep", type=Path, help="folder to leave the run directories in")
    parser.add_argument("--set", nargs="*", default=[], help="changes to every workload, such as requests.count=10")
    options = parser.parse_args()
    console = Console(width=150)
    chosen = [
        piece
        for piece in pieces()
        if not options.only or piece.group in options.only or piece.name.startswith(tuple(options.only))
    ]
    if options.list:
        console.print(*(f"{piece.group}: {piece.name}" for piece in chosen), sep="\n")
        return 0
    if options.again:
        return judge_again(options.out, {piece.name: piece for piece in chosen}, console)
    bench = Bench(resolve(options.device), options.calibration)
    options.out.mkdir(parents=True, exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", name_of(bench.device).lower()).strip("-")
    path = options.out / f"timed_{slug}.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    done: dict[str, Any] = content.get("pieces", {})
    began = time.perf_counter()
    for piece in chosen:
        if piece.name in done:
            continue
        if time.perf_counter() - began > options.seconds:
            console.print(f"{piece.name}: left for another time")
            continue
        console.rule(piece.name, align="left")
        found = attempt(bench, piece, options, console)
        if found is not None:
            done[piece.name] = {"group": piece.group, **found}
            write_json(path, document(name_of(bench.device), versions(), done))
    show_timing(gathered(piece["timing"] for piece in done.values()), console)
    return 0 if document(name_of(bench.device), versions(), done)["passed"] else 1


def judge_again(folder: Path, chosen: dict[str, Piece], console: Console) -> int:
    """Simulate what has been measured with the present shipped calibrations, and judge it again.

    What was `settled` stays as it was simulated when it was measured: the real engine does otherwise since.
    """
    passed = True
    for path in folder.glob("timed_*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        for name, found in content["pieces"].items():
            if name in chosen and not found.get("settled"):
                console.print(name)
                found["timing"] = simulated_again(workload_of(chosen[name]), content["device"], found["timing"])
                found["simulated"] = datetime.now(UTC).isoformat(timespec="seconds")
        summary = document(content["device"], content["versions"], content["pieces"])
        write_json(path, summary)
        show_timing(gathered(piece["timing"] for piece in content["pieces"].values()), console)
        passed &= summary["passed"]
    return 0 if passed else 1


def simulated_again(workload: Workload, device: str, timing: dict[str, Any]) -> dict[str, Any]:
    """Return a piece's timing with the same real runs beside new simulations."""
    calibration = calibration_of(workload, device, prepare(workload).geometry.model.dtype)
    before = gathered([timing])
    with TemporaryDirectory() as folder:
        simulate(workload, Path(folder), calibration, None, before.machine)
        made = {entry["allocator"]: entry for entry in open_directory(folder).summary()}
    runs = [replace(run, simulated=figures(made[run.label])) for run in before.runs]
    return with_reach(replace(before, calibration=calibration, runs=runs), workload, None).as_json()


def attempt(bench: Bench, piece: Piece, options: argparse.Namespace, console: Console) -> dict[str, Any] | None:
    """Run one piece and show it; a failure is reported, and the others still run."""
    clock = time.perf_counter()
    try:
        with TemporaryDirectory() as scratch:
            folder = options.keep / re.sub(r"\W+", "-", piece.name) if options.keep else Path(scratch)
            timing = bench.run(workload_of(piece, tuple(options.set)), folder, options.repeats, later=options.later)
    except Exception:  # noqa: BLE001  whatever it is, the other pieces shall still run
        console.print_exception()
        return None
    show_timing(timing, console)
    seconds = round(time.perf_counter() - clock, 1)
    console.print(f"{seconds} s")
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {"preset": piece.preset, "date": date, "seconds": seconds, "timing": timing.as_json()}


def document(device: str, packages: dict[str, str], done: dict[str, Any]) -> dict[str, Any]:
    """Return the content of the results file: judged over all pieces together on which nothing was mended at first."""
    judged = gathered(piece["timing"] for piece in done.values() if piece["group"] in JUDGED).as_json()
    summary = {name: judged[name] for name in ("passed", "judged", "tolerances", "medians", "faults")}
    return {"schema": 1, "device": device, "versions": packages, **summary, "pieces": done}


if __name__ == "__main__":
    sys.exit(main())
