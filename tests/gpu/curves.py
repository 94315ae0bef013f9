"""Two curves on a device: what a K/V cache saves, and what the scores of naive attention cost.  Run by hand.

    python -m tests.gpu.curves                  both, about a minute on an H100
    python -m tests.gpu.curves --only cache     the GPT-2 geometry with and without a cache
    python -m tests.gpu.curves --only attention SDPA's math and flash kernels on one layer of OPT-13B

Writes `analysis/results/curves_<device>.json` (or into `--out`) after every piece, measured
beside simulated; `python -m tests.browser.measured` makes the picture.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sim.costs.calibration import Calibration
from sim.costs.calibration_text import save_calibration
from sim.costs.coefficients import Coefficients
from sim.decode.calibrate import calibrate
from sim.decode.curves import attention_curve, cache_curve
from sim.decode.device import name_of, resolve
from sim.decode.model import load
from sim.decode.versions import versions
from sim.devices import resolve_device
from sim.models.geometry import resolve_model
from sim.results.rundir import write_json

RESULTS = Path(__file__).parents[2] / "analysis" / "results"
CACHE = {"cuda": (16, 32, 64, 128, 256, 384, 512, 640, 768, 896, 1000), "cpu": (8, 16)}
"""Lengths of the cache curve, by type of device."""
ATTENTION = {"cuda": (128, 256, 512, 1024, 2048, 4096, 8192), "cpu": (16, 32)}
"""Lengths of the attention curve."""
MODELS = {"cuda": ("gpt2", "bf16", "opt-13b"), "cpu": ("tiny-gpt2", "fp32", "tiny-opt")}
"""Geometry and number format of the cache curve, geometry of the attention curve."""


def cache(device: torch.device, out: Path) -> dict[str, Any]:
    """Calibrate the small model, then measure the curve beside what the calibration says."""
    model, dtype, _ = MODELS[device.type]
    found = calibrate(model, dtype=dtype, device=str(device), seconds=20.0 if device.type == "cuda" else 0.0)
    save_calibration(found, out / f"{found.name}.toml")
    decoder = load(model, resolve_model({"name": model, "dtype": dtype}), device)
    rows = cache_curve(decoder, found, reference(found), CACHE[device.type], found.backend)
    return {"model": model, "dtype": dtype, "backend": found.backend, "errors": found.errors(), "rows": rows}


def reference(found: Calibration) -> Any:
    """Return the device whose peaks a calibration refers to."""
    return resolve_device(dict(found.peaks) or {"name": found.device})


def attention(device: torch.device, _: Path) -> dict[str, Any]:
    """Measure one layer's attention beside the cost model's two formulas, with default coefficients."""
    model, dtype = MODELS[device.type][2], MODELS[device.type][1]
    geometry = resolve_model({"name": model, "dtype": dtype})
    h100 = resolve_device("h100-80gb")
    rows = list(attention_curve(geometry, h100, device, Coefficients(), ATTENTION[device.type]))
    return {"model": model, "dtype": dtype, "rows": rows}


PIECES = {"attention": attention, "cache": cache}


def main() -> int:
    """Measure the pieces that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--only", nargs="*", default=list(PIECES), choices=list(PIECES))
    options = parser.parse_args()
    device = resolve(options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", name_of(device).lower()).strip("-")
    path = options.out / f"curves_{slug}.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in options.only:
        found = PIECES[name](device, options.out)
        content |= {"schema": 1, "device": name_of(device), "versions": versions()}
        content[name] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), **found}
        write_json(path, content)
        table = Table(*found["rows"][0], box=SIMPLE_HEAD)
        for row in found["rows"]:
            table.add_row(*(f"{value:.5g}" if isinstance(value, float) else str(value) for value in row.values()))
        Console(width=120).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
