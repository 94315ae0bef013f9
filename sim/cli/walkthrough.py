"""`walkthrough`: the page for the newcomer, from runs of its scenes made on the spot."""

from __future__ import annotations

import tempfile
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from allocators.base import Measure
from analysis.reading import open_directory
from analysis.walkthrough import SCENES, Geometry, write_walkthrough
from sim.cli.output import AsJson, emit, terminal
from sim.devices import shipped_devices
from sim.errors import UserError
from sim.models.geometry import resolve_model
from sim.models.shipped import shipped_models
from sim.pool import make_pool
from sim.runner import run
from workloads.loader import load

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICE, MODEL = "h100-80gb", "llama-3.1-8b"
LENGTH = 2048
"""Tokens of the sequences whose number the table gives."""


def walkthrough(
    *,
    out: Path = Path("walkthrough.html"),
    open_: Annotated[bool, Parameter(name="--open")] = False,
    json: AsJson = False,
) -> None:
    """Write the walk-through: how KV memory is managed, step by step, in a pool one can see whole.

    Args:
        out: File to write; walkthrough.html if not given.
        open_: Open it in a browser.
        json: Print one JSON document.

    """
    with tempfile.TemporaryDirectory() as folder:
        for scene in SCENES:
            run(load(scene.workload), Path(folder, scene.name))
        recorded = {scene.name: open_directory(Path(folder, scene.name)) for scene in SCENES}
        page = write_walkthrough(recorded, out, list(geometries()))
    if json:
        emit({"written": str(page)})
    else:
        terminal().print(f"Written: {page}", markup=False, soft_wrap=True)
    if open_:
        webbrowser.open(page.resolve().as_uri())


def geometries() -> Iterator[Geometry]:
    """Say what fits: every shipped model on one device, in its own format and in fp8; one model on every device."""
    for name in shipped_models():
        if not name.startswith("tiny-"):
            own = resolve_model(name).kv_dtype
            for kv_dtype in (own, "fp8"):
                yield _fits(name, kv_dtype, DEVICE)
    for device in shipped_devices():
        if device != DEVICE:
            yield _fits(MODEL, resolve_model(MODEL).kv_dtype, device)


def _fits(name: str, kv_dtype: str, device: str) -> Geometry:
    """Count tokens and sequences of one model on one device; none where its weights do not fit."""
    geometry = resolve_model({"name": name, "kv_dtype": kv_dtype})
    try:
        slots = make_pool(geometry, shipped_devices()[device], Measure(1)).slots
    except UserError:
        slots = 0
    return Geometry(
        name, geometry.attention, kv_dtype, geometry.kv_bytes_per_token, device, slots, slots // LENGTH, LENGTH
    )
