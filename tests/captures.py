"""Captured steps of simple durations, as a calibration has them, for tests of what comes of them."""

from __future__ import annotations

from sim.costs.captured import CapturedStep, CapturedSteps, merged_of, pairs_of
from sim.costs.coefficients import Coefficients
from sim.costs.load import Load
from sim.costs.shapes import MIXED_DECODES, MIXED_TOKENS, Shapes, padded_sizes
from sim.costs.splitting import Splitting
from sim.devices import resolve_device
from sim.models.geometry import resolve_model

LLAMA = resolve_model("llama-3.1-8b")
H100 = resolve_device("h100-80gb")
MS = 1e-3
RULE = Splitting.of(LLAMA, H100)
PAIR, MERGE, BEHIND = 3e-9, 2e-6, 40e-6
LOADS = [
    Load(decode_seqs=3, decode_context=900, samples=3),
    Load(decode_seqs=70, decode_context=900, samples=70),
    Load(200, 20_100, 200, 1, 5, 800, 6, prefill_merged=200),
    Load(200, 20_100 + 200 * 50, 250, 1, 5, 800, 6, before_ns=10_000),
    Load(3000, 4_501_500, 3000, 1, 5, 800, 6, behind_ns=5_000_000),
    Load(decode_seqs=8, decode_context=100, samples=8, copied_tokens=16, swapped_bytes=1 << 20, transfers=4),
    Load(copied_tokens=16),
    Load(decode_seqs=8, decode_context=900, samples=8, decode_repeated=300),
    Load(decode_seqs=70, decode_context=9000, samples=70, decode_repeated=3000),
    Load(200, 20_100, 200, 1, 5, 800, 6, decode_repeated=300),
]
COEFFICIENTS = Coefficients(prefill_host_s=1e-3, launch_layer_s=0.4e-3, captured_tokens=1024, repeated_reads_cached=0.7)


def measured(most: int = 64) -> list[CapturedStep]:
    """Steps of every shape.

    They take 5 ms, a tenth for each ten lanes and each hundred tokens, 1 us for each K/V token that decodes read, and
    with chunks that are not eight or attend to earlier tokens `PAIR`, `MERGE` and `BEHIND`.
    """
    points = [
        CapturedStep(size, 0, 0, size * each, (5 + size / 100) * MS + size * (each - 1) * 1e-6)
        for size in padded_sizes(most)
        for each in (1, 100, 1000)
    ]
    points += [
        CapturedStep(size, tokens, 8, size, (5 + size / 100 + tokens / 1000) * MS)
        for size in (*(size for size in MIXED_DECODES if size < most), most)
        for tokens in MIXED_TOKENS
    ]
    for tokens in MIXED_TOKENS:
        alone = CapturedStep(0, tokens, 1, 0, 0)
        longer = PAIR * (pairs_of(alone) - pairs_of(alone._replace(chunks=8))) + MERGE * merged_of(alone, RULE)
        points.append(alone._replace(seconds=(5 + tokens / 1000) * MS + longer))
        behind = CapturedStep(0, tokens, 8, 8 * 144, 0)
        points.append(behind._replace(seconds=(5 + tokens / 1000) * MS + BEHIND + MERGE * merged_of(behind, RULE)))
    return points


def captured(most: int, tokens: int, steps: list[CapturedStep]) -> CapturedSteps:
    return CapturedSteps(Shapes(most, tokens), steps, RULE)


def made(most: int = 64, tokens: int = 1024) -> CapturedSteps:
    return captured(most, tokens, measured(most))


def spread(most: int = 64, tokens: int = 1024) -> CapturedSteps:
    """Decodes of one length take 0.3 us a token; of very different ones, the longest four times the mean, 1 us."""
    points = [step._replace(longest=4 * (step.context // step.decodes)) for step in measured(most) if not step.tokens]
    points = [step._replace(longest=1) if step.context == step.decodes else step for step in points if step.decodes > 1]
    points += [
        CapturedStep(size, 0, 0, size * each, (5 + size / 100) * MS + size * (each - 1) * 0.3e-6, each)
        for size in padded_sizes(most)
        for each in (50, 500)
        if size > 1
    ]
    return captured(most, tokens, [*points, *(step for step in measured(most) if step.tokens)])
