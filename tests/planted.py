"""Steps of a device whose coefficients are known, for calibrations to find."""

from __future__ import annotations

from itertools import product

import numpy as np

from sim.costs.calibration import Point
from sim.costs.coefficients import Coefficients
from sim.costs.evidence import seconds
from sim.costs.fit import HELD
from sim.costs.load import Load, Route
from sim.devices import resolve_device
from sim.models.geometry import resolve_model

H100, LLAMA = resolve_device("h100-80gb"), resolve_model("llama-3.1-8b")
POWER = {"power_throttle": 0.15, "power_reserve_s": 0.02, "power_constant_s": 0.03, "power_slowdown": 0.05}
"""Known otherwise (`sim.costs.power`)."""
TRUE = Coefficients(
    **HELD,
    memory_efficiency=0.8,
    compute_efficiency=0.7,
    overlap_loss=0.25,
    attention_memory_efficiency=0.75,
    attention_compute_efficiency=0.45,
    repeated_reads_cached=0.7,
    step_overhead_s=1.5e-3,
    prefill_layer_s=1.5e-5,
    sequence_overhead_s=1e-5,
    launch_layer_s=3e-4,
    launch_beside_layer_s=1.2e-4,
    launch_lead_s=2e-3,
    **POWER,
    separate_launch_layer_s=2e-4,
    sequence_launch_layer_s=1e-4,
    recompute_launch_layer_s=4e-4,
    recompute_slowdown=0.12,
    copy_efficiency=0.6,
    pcie_efficiency=0.7,
    swap_overhead_s=8e-4,
    transfer_overhead_s=2e-6,
)


def decodes() -> dict[str, Load]:
    found = {}
    for count in (1, 4, 16, 64, 128, 256):
        for context in (128, 1024, 4096):
            found[f"decode {count} x {context}"] = Load(
                decode_seqs=count, decode_context=count * context, samples=count
            )
    for count, each in ((32, 8), (64, 16), (64, 64)):
        again = (count - count // each) * 384
        found[f"alike {count}, {each} each"] = Load(
            decode_seqs=count, decode_context=count * 512, samples=count, decode_repeated=again
        )
    return found


def loads() -> dict[str, Load]:
    found = decodes() | prefills() | recomputed()
    for tokens in (700, 1300):
        for heat in (20_000_000, 40_000_000, 90_000_000, 200_000_000):
            pairs = tokens * (tokens + 1) // 2
            found[f"prefill {tokens}, heat {heat}"] = Load(tokens, pairs, tokens, 1, samples=1, heat_ns=heat)
    for n in (8, 64):
        for tokens in (16, 64, 128):
            mixed = Load(
                tokens, tokens * (tokens + 1) // 2, tokens, 1, decode_seqs=n, decode_context=512 * n, samples=n + 1
            )
            found[f"mixed {n} + {tokens}"] = mixed
            found[f"mixed {n} + {tokens} behind"] = mixed._replace(behind_ns=3_000_000)
    for blocks in (8, 64):
        moved = {"swapped_bytes": blocks * 16 * LLAMA.kv_bytes_per_token, "transfers": blocks}
        found[f"swap {blocks}"] = Load(decode_seqs=8, decode_context=4096, samples=8, **moved)
    for n in (1, 4, 16, 64):
        for context in (256, 4096, 60_000):
            load = Load(decode_seqs=n, decode_context=n * context, samples=n, copied_tokens=n * context)
            found[f"concatenate {n} x {context}"] = load
    return found


def prefills() -> dict[str, Load]:
    found = {}
    for tokens, start in product((16, 64, 256, 1024, 2048, 4096), (0, 2048)):
        pairs = tokens * start + tokens * (tokens + 1) // 2
        found[f"prefill {tokens} at {start}"] = alone = Load(tokens, pairs, tokens + start, 1, samples=1)
        if tokens >= 256:
            found[f"prefill {tokens} at {start} behind"] = alone._replace(behind_ns=3_000_000)
    return found


def recomputed() -> dict[str, Load]:
    found = {}
    for n, context in product((1, 4, 16, 64), (128, 1024)):
        tokens, pairs = n * context, n * context * (context + 1) // 2
        found[f"recompute {n} x {context}"] = Load(tokens, pairs, tokens, n, samples=n)
    return found


ROUTES: dict[str, Route] = {"concatenate": "tensors", "recompute": "recompute"}


def points(true: Coefficients = TRUE, noise: float = 0.005, outliers: int = 0, seed: int = 1) -> list[Point]:
    rng = np.random.default_rng(seed)
    bare = [Point(name, load, 1.0, route=ROUTES.get(name.split()[0], "blocks")) for name, load in loads().items()]
    times = seconds(bare, LLAMA, H100, true) * (1 + rng.normal(0, noise, len(bare)))
    others_tell = [place for place, point in enumerate(bare) if not point.load.transfers]  # of what one says, too
    times[rng.choice(others_tell, outliers, replace=False)] *= 1.5
    return [point._replace(measured_s=time) for point, time in zip(bare, times.tolist(), strict=True)]
