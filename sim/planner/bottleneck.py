"""What limits a workload, derived from one run: its queue, its ledger, and the terms of its step times.

Every step records what kept the head of the queue waiting, and how memory was used.  On what the steps spent
their time is found with the cost model: the same steps with infinitely fast memory, then with infinitely
fast arithmetic, then without overheads.  The more time that saves, the tighter the limit; because terms
overlap, the parts need not add up.  If requests wait, only steps during which one waited are counted, because
these determine latency even if the engine decodes without pressure for most of the time.

The record of a step does not contain lengths.  So attention of prefills is computed for the mean length of all
prompts, and sequences are assumed to get their tokens at equal intervals from the first to the last.
`accounted` says how much of the recorded time these reconstructed steps explain.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.metrics import blocked_by
from analysis.observed import SHARES, Floats
from analysis.planner.binding import SOME
from analysis.planner.observe import load
from analysis.summary import judge, without_nan
from sim.costs.load import Load
from workloads.labels import part_names

if TYPE_CHECKING:
    from allocators.base import Allocator
    from analysis.observed import Columns, Observed
    from sim.setup import Setup

FAST = 1e6
"""Times faster that stands for infinitely fast."""
OVERHEADS = ("step_overhead_s", "layer_overhead_s", "sequence_overhead_s")


def bottleneck(setup: Setup, seen: Observed, *, shared_prefixes: bool) -> dict[str, Any]:
    """Say what held up the one allocator of a setup.

    Args:
        setup: what was run.
        seen: its run.
        shared_prefixes: whether prompts had anything in common.

    Returns:
        `refused` as a share of the requests, and for which reasons, `refusals`;
        shares of the time: `waits` by cause, `idle`, and `saved` by what would be infinitely fast, of the steps
        `during` all busy time or only while a request waited;
        `ledger` as shares of the pool of `pool_slots`;
        its `scheduler`, whether it `kept_up`, its `verdict`, and `accounted`.

    """
    (case,) = setup.cases
    parts = part_names(setup.workload.requests)
    steps, offered, waits = seen.steps, load(seen, parts), blocked_by(seen)
    refused = np.asarray(seen.requests["status"] == "refused")
    busy = np.asarray(steps["running"]) > 0
    waited = busy & (np.asarray(steps["blocked"]) != "")
    pressed = sum(waits.values()) > SOME
    allocator = case.allocator(shared_prefixes=shared_prefixes)
    saved, accounted = _terms(setup, allocator, steps, seen.requests, waited if pressed else busy)
    told: dict[str, Any] = without_nan(
        {
            "refused": float(np.mean(refused)),
            "refusals": sorted(set(seen.requests["reason"][refused].tolist())),
            "waits": waits,
            "scheduler": case.scheduler,
            "idle": offered["idle"],
            "kept_up": offered["kept_up"],
            "verdict": str(judge(seen, parts)),
            "offered_rps": offered["offered_rps"],
            "ledger": {name: seen.mean(steps[name]) / case.pool.slots for name in SHARES},
            "pool_slots": case.pool.slots,
            "held_peak": float(seen.held.max(initial=0.0)) / case.pool.slots,
            "saved": saved,
            "during": "waiting" if pressed else "busy",
            "accounted": accounted,
        }
    )
    return told


def _terms(
    setup: Setup,
    allocator: Allocator,
    steps: Columns,
    requests: Columns,
    some: np.ndarray[Any, np.dtype[np.bool_]],
) -> tuple[dict[str, float], float]:
    """Time of some steps that an infinitely fast resource would save, as a share; and how much of it is explained."""
    recorded = float(np.asarray(steps["duration_s"])[some].sum())
    changing = _loads({name: np.asarray(steps[name])[some] for name in _NEEDED}, requests, setup, allocator)
    device, coefficients = setup.device, setup.coefficients
    fast_flops = {dtype: rate * FAST for dtype, rate in device.flops.items()}
    without = coefficients.changed(dict.fromkeys(OVERHEADS, 0.0), "costs")

    def seconds(device: Any, coefficients: Any) -> float:
        cost = setup._replace(device=device, coefficients=coefficients, captured=()).cost(allocator)
        return float(cost.leap_ns(Load(), **changing).sum()) / 1e9

    whole = seconds(device, coefficients)
    if not whole or not recorded:
        return {"bandwidth": 0.0, "compute": 0.0, "overhead": 0.0}, 1.0
    saved = {
        "bandwidth": 1 - seconds(replace(device, bandwidth=device.bandwidth * FAST), coefficients) / whole,
        "compute": 1 - seconds(replace(device, flops=fast_flops), coefficients) / whole,
        "overhead": 1 - seconds(device, without) / whole,
    }
    return saved, whole / recorded


_NEEDED = ("start_s", "running", "prefill_tokens", "decode_tokens", "shared_savings")


def _loads(steps: Columns, requests: Columns, setup: Setup, allocator: Allocator) -> dict[str, Any]:
    """Rebuild what each step computed, read and copied."""
    prefill, decode = steps["prefill_tokens"].astype(np.int64), steps["decode_tokens"].astype(np.int64)
    prompts = np.asarray(requests["prompt_tokens"], np.float64)
    total = max(1.0, float(prompts.sum()))
    length = mean_length(requests, np.asarray(steps["start_s"], np.float64))
    context = (decode * length).astype(np.int64)
    chunks = np.ceil(prefill * (len(prompts) / total)).astype(np.int64)
    pairs = (prefill * (float((prompts * (prompts + 1) / 2).sum()) / total)).astype(np.int64)
    samples, copied = decode + chunks, np.zeros_like(decode)
    if allocator.recomputes:  # every known token is one of a prompt again
        prefill, chunks = prefill + context, chunks + decode
        pairs = pairs + (context * (length + 1) / 2).astype(np.int64)
        decode, context = np.zeros_like(decode), np.zeros_like(context)
    elif allocator.concatenates:
        copied = context
    window = setup.geometry.window
    spared = steps["shared_savings"] // allocator.token_slots
    return {
        "prefill_tokens": prefill,
        "prefill_pairs": pairs,
        "prefill_context": prefill,
        "prefill_seqs": chunks,
        "decode_seqs": decode,
        "decode_context": context,
        "samples": samples,
        "copied_tokens": copied,
        "window_pairs": pairs if window is None else np.minimum(pairs, prefill * window),
        "window_prefill_context": prefill,
        "window_decode_context": context if window is None else np.minimum(context, decode * window),
        "decode_repeated": spared * decode // np.maximum(steps["running"], 1),
    }


def mean_length(requests: Columns, times: Floats) -> Floats:
    """Mean tokens of the sequences that decode, float64[len(times)]; 0 where none does.

    A request is taken to decode from its first token to its last, or to the end, and to get the others evenly.
    """
    begun = ~np.isnan(np.asarray(requests["first_token_s"], np.float64))
    prompt, output, first, finish, samples = (
        np.asarray(requests[name], np.float64)[begun]
        for name in ("prompt_tokens", "generated_tokens", "first_token_s", "finish_s", "samples")
    )
    finish = np.where(np.isnan(finish), times[-1] if len(times) else 0.0, finish)
    took = finish - first
    pace = np.divide(output - 1, took, out=np.zeros_like(took), where=took > 0)
    each = np.stack([samples, samples * (prompt + 1 - pace * first), samples * pace])
    count, sum_then, sum_pace = _up_to(first, each, times) - _up_to(finish, each, times)
    tokens = sum_then + sum_pace * times
    return np.asarray(np.divide(tokens, count, out=np.zeros_like(times), where=count > 0).clip(min=0.0))


def _up_to(when: Floats, values: Floats, times: Floats) -> Floats:
    """Sum up the columns of `values` that have come by each of `times`: float64[len(values), len(times)]."""
    order = np.argsort(when, kind="stable")
    sums = np.concatenate([np.zeros((len(values), 1)), values[:, order].cumsum(axis=1)], axis=1)
    return np.asarray(sums[:, np.searchsorted(when[order], times, side="right")])
