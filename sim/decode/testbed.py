"""The engine in which single steps are measured: large enough for a whole grid, and the same on every machine."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from sim.decode.executor import OutOfMemoryError
from sim.decode.grid import Extent, block_scenes, separate_scenes
from sim.decode.scene import Patience, Scene
from sim.decode.stage import Stage
from sim.devices import GIB, Device
from sim.models.geometry import resolve_model
from sim.setup import prepare
from workloads.schema import Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sim.costs.calibration import Point
    from sim.decode.model import Decoder

    Report = Callable[["Progress"], None]

EXTENTS = {"cuda": Extent(seats=256, tokens=8192, longest=4096), "cpu": Extent(seats=8, tokens=64, longest=128)}
"""How far the grid reaches, by type of device."""
UTILIZATION = 0.85
"""Share of a GPU's memory for weights, activations and K/V."""
HOST_GIB = 1.0
"""Room for swapped blocks."""
MARGIN = 64
"""Token slots a sequence needs beyond the longest: it grows with every repeat."""


class Progress(NamedTuple):
    """How far measuring has come."""

    name: str
    """The step that is measured next."""
    done: int
    total: int


def scenes_of(stage: Stage, extent: Extent) -> list[Scene]:
    """Return the grid's steps of a stage's allocator."""
    if stage.route == "blocks":
        return block_scenes(extent)
    return separate_scenes(extent, recomputes=stage.allocator.recomputes)


def measured(stage: Stage, scenes: Iterable[Scene], seconds: float, report: Report | None = None) -> Iterator[Point]:
    """Measure steps, as far as there is room for them.

    Args:
        stage: where they run.
        scenes: the steps.
        seconds: what that may take, all together.
        report: called before each step.

    """
    scenes = [scene for scene in scenes if stage.fits(scene)]
    patience = Patience(seconds=seconds / len(scenes))
    for number, scene in enumerate(scenes):
        if report is not None:
            report(Progress(scene.name, number, len(scenes)))
        try:
            yield stage.measure(scene, patience)
        except OutOfMemoryError as error:
            warnings.warn(f"{scene.name}: left out: {error}", stacklevel=2)


def stage_for(decoder: Decoder, kind: str, extent: Extent, backend: str, device: Device) -> Stage:
    """Make a stage for one kind of allocator on a model that is loaded; the pool is as large as `extent` asks for.

    Args:
        decoder: the model.
        kind: of the allocator.
        extent: how far scenes will reach.
        backend: attends, where there are blocks.
        device: for the cost model.

    """
    geometry = decoder.geometry
    words = {
        "memory_gib": device.memory_bytes / GIB,
        "bandwidth_tbps": device.bandwidth / 1e12,
        "bf16_tflops": device.peak("bf16") / 1e12,
    }
    setup = prepare(engine_for(geometry.name, geometry.model.dtype, words, kind, extent))
    return Stage(decoder, setup, backend=backend, longest=extent.longest, seats=extent.seats)


def rehearsal(workload: Workload) -> Workload:
    """Describe a short run of requests that come one by one."""
    requests = {
        "count": 48,
        "arrivals": {"kind": "poisson", "rate": 24},
        "lengths": {"kind": "uniform", "prompt": {"min": 20, "max": 300}, "output": {"min": 16, "max": 96}},
    }
    engine = workload.engine.model_copy(update={"max_num_seqs": 32, "max_num_batched_tokens": 1024})
    changed = workload.model_copy(update={"engine": engine})
    return Workload.model_validate({**changed.model_dump(exclude_unset=True), "requests": requests})


def engine_for(
    model: str, dtype: str | None, device: dict[str, Any], kind: str, extent: Extent, **options: int
) -> Workload:
    """Describe the engine in which steps are measured; its requests are never served."""
    geometry = resolve_model({"name": model, **({"dtype": dtype} if dtype else {})})
    room = extent.seats * (extent.longest + MARGIN) * geometry.kv_bytes_per_token
    given = {} if "name" in device else {"kv_memory_gib": room / GIB}
    return Workload.model_validate(
        {
            "name": f"calibrate-{kind}",
            "model": {"name": model, **({"dtype": dtype} if dtype else {})},
            "device": {**device, **given},
            "engine": {
                "max_num_seqs": extent.seats,
                "max_num_batched_tokens": extent.tokens,
                "max_model_len": min(geometry.max_model_len, 2 * extent.longest),
                "gpu_memory_utilization": UTILIZATION,
                "swap_space_gib": HOST_GIB,
            },
            "requests": {
                "count": 1,
                "arrivals": {"kind": "batch"},
                "lengths": {"kind": "fixed", "prompt": 1, "output": 1},
            },
            "allocators": [{"kind": kind, **options}],
        }
    )
