"""`walkthrough`: the page for the newcomer, from runs of its scenes made on the spot."""

from __future__ import annotations

import tempfile
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from allocators.answers import Measure
from analysis.reading import open_directory
from analysis.walkthrough import SCENES, Attention, Geometry, write_walkthrough
from sim.cli.output import emit, terminal
from sim.devices import shipped_devices
from sim.errors import UserError
from sim.models.geometry import resolve_model
from sim.models.shipped import shipped_models
from sim.pool import make_pool
from sim.results.claims import demand_page
from sim.runner import run
from workloads.loader import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.devices import Device
    from sim.models.geometry import Geometry as ModelGeometry

MODEL = "llama-3.1-8b"
"""Whose geometry the pictures of attention vary."""


def walkthrough(
    *,
    out: Path = Path("walkthrough.html"),
    open_: bool = False,
    json: bool = False,
) -> None:
    """Write the walk-through: how KV memory is managed, step by step, in a pool one can see whole.

    Args:
        out: File to write; walkthrough.html if not given.
        open_: Open it in a browser.
        json: Print one JSON document.

    """
    demand_page(out)
    with tempfile.TemporaryDirectory() as folder:
        for scene in SCENES:
            run(load(scene.workload), Path(folder, scene.name))
        recorded = {scene.name: open_directory(Path(folder, scene.name)) for scene in SCENES}
        page = write_walkthrough(recorded, out, list(geometries()), list(attentions()))
    if json:
        emit({"written": str(page)})
    else:
        terminal().say(f"Written: {page}")
    if open_:
        webbrowser.open(page.resolve().as_uri())


def geometries() -> Iterator[Geometry]:
    """Say what fits of every shipped model, in its own format and in fp8, on every shipped device."""
    for name in shipped_models():
        if not name.startswith("tiny-"):
            for kv_dtype in dict.fromkeys((resolve_model(name).kv_dtype, "fp8")):
                geometry = resolve_model({"name": name, "kv_dtype": kv_dtype})
                yield Geometry(
                    name,
                    geometry.attention,
                    kv_dtype,
                    geometry.kv_bytes_per_token,
                    geometry.weight_bytes,
                    geometry.max_model_len,
                    {device.name: _slots(geometry, device) for device in shipped_devices().values()},
                )


def _slots(geometry: ModelGeometry, device: Device) -> int:
    """Token slots of one model on one device; none where its weights do not fit."""
    try:
        return make_pool(geometry, device, Measure(1)).slots
    except UserError:
        return 0


def attentions() -> Iterator[Attention]:
    """What each kind of attention keeps of a token, in one model's geometry with other heads."""
    config = resolve_model(MODEL)
    layers, heads, size = config.layers, config.heads, config.head_dim
    number = 2  # bytes of a bf16 number
    for kind, kv_heads, text in (
        ("MHA", heads, "Multi-head attention: every query head has a key and a value of its own."),
        ("GQA", heads // 4, "Grouped-query attention: four query heads share a key and a value."),
        ("MQA", 1, "Multi-query attention: all query heads share one key and one value."),
    ):
        yield Attention(kind, text, heads, kv_heads, 2 * layers * kv_heads * size * number)
    latent = resolve_model("deepseek-v3")
    yield Attention(
        "MLA",
        "Multi-head latent attention: one compressed vector, from which all keys and values are made again.",
        heads,
        0,
        layers * latent.kv_bytes_per_token // latent.layers,
    )
