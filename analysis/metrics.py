"""The metrics of a run: each is a function whose docstring is its formula.

A metric reads what was observed of a run (`analysis.observed`).  Per-request metrics return one value per request,
NaN where the formula has none.  `summarise` turns them into percentiles and counts; requests that were refused or did
not finish are never dropped, but counted beside the percentiles.

Percentiles interpolate linearly between the closest ranks (NumPy's default); those of `itl_s` are taken over
all gaps that steps and stalls describe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from analysis.observed import LEDGER_WORDS, Column, Floats, Observed

NANOSECOND = 1e-9
"""Times of a run are whole numbers of these, seconds."""
UNFINISHED = "unfinished"
"""What stands for requests that were refused or cut off where limits are listed."""

# -- one value a request ---------------------------------------------------------------------


def ttft_s(run: Observed) -> Floats:
    """`first_token_s - arrival_s`: time to first token, waiting in the queue included."""
    return np.asarray(run.requests["first_token_s"] - run.requests["arrival_s"], np.float64)


def e2e_s(run: Observed) -> Floats:
    """`finish_s - arrival_s`: end to end."""
    return np.asarray(run.requests["finish_s"] - run.requests["arrival_s"], np.float64)


def tpot_s(run: Observed) -> Floats:
    """`(e2e_s - ttft_s) / (n_out - 1)`: time per output token after the first; none for one token."""
    after = np.asarray(run.requests["finish_s"] - run.requests["first_token_s"], np.float64)
    return after / np.where(run.outputs > 1, run.outputs - 1, np.nan)


def queue_s(run: Observed) -> Floats:
    """`scheduled_s - arrival_s`: until the first step that ran it started."""
    return np.asarray(run.requests["scheduled_s"] - run.requests["arrival_s"], np.float64)


def normalized_latency_s(run: Observed) -> Floats:
    """`e2e_s / n_out`: the y-axis of the PagedAttention paper (and of Orca's)."""
    return e2e_s(run) / run.outputs


PER_REQUEST: tuple[Callable[[Observed], Floats], ...] = (ttft_s, tpot_s, e2e_s, queue_s, normalized_latency_s)


def itl_s(run: Observed) -> tuple[Floats, npt.NDArray[np.int64]]:
    """All gaps between tokens: `gap_s` of each step `gap_tokens` times, and every `stall_s` once.

    Returns the gaps and how often each occurs.  A preemption between two tokens is part of their gap.  A request of
    several samples that was preempted but not swapped generates its outputs again; the gaps of both times count.
    """
    stalls = np.asarray(run.requests["stall_s"], np.float64)
    often = np.asarray(run.steps[run.gap_tokens], np.int64)
    counted = often > 0
    gaps = np.asarray(run.steps["gap_s"], np.float64)[counted]
    return np.concatenate([gaps, stalls]), np.concatenate([often[counted], np.ones(len(stalls), np.int64)])


def any_gap_over(run: Observed, limit: float) -> npt.NDArray[np.bool_]:
    """Return which requests waited longer than `limit` seconds between two of their tokens.

    The gap of a step is one of each request that had its first token when it began and was there when it ended: who
    came meanwhile, as one whose prompt the others waited for, waited less, which is among its stalls.
    """
    long_step = (np.asarray(run.steps["gap_s"]) > limit) & (np.asarray(run.steps["gap_tokens"]) > 0)
    ends = (np.asarray(run.steps["start_s"], np.float64) + run.durations)[long_step]
    begins = ends - np.asarray(run.steps["gap_s"], np.float64)[long_step]
    order = np.argsort(begins, kind="stable")
    soonest = np.append(np.minimum.accumulate(ends[order][::-1])[::-1], np.inf)  # of gaps that begin then or later
    first, last = (np.asarray(run.requests[name], np.float64) for name in ("first_token_s", "finish_s"))
    first, last = np.where(np.isnan(first), np.inf, first), np.where(np.isnan(last), np.inf, last)
    near = NANOSECOND / 2 + 4 * np.spacing(ends.max(initial=0.0))  # what sums of times are off by rounding
    end = soonest[np.searchsorted(begins[order], first - near)]
    over = np.isfinite(end) & (end <= last + near)
    stalled = np.repeat(np.arange(len(over)), run.requests["stall_count"])[np.asarray(run.requests["stall_s"]) > limit]
    over[stalled] = True
    return np.asarray(over, np.bool_)


def missed(run: Observed) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Yield, by limit of the SLO, which requests are over it; first, as `unfinished`, which did not finish."""
    yield UNFINISHED, ~run.finished
    limits = run.limits
    for metric in PER_REQUEST:
        if metric.__name__ in limits:
            yield metric.__name__, metric(run) > limits[metric.__name__]  # a value that does not exist breaks no limit
    if itl_s.__name__ in limits:
        over, given = np.zeros(len(run.finished), np.bool_), limits[itl_s.__name__]
        for limit in np.unique(given).tolist():
            over |= any_gap_over(run, limit) & (given == limit)
        yield itl_s.__name__, over


def good(run: Observed) -> npt.NDArray[np.bool_]:
    """Return which requests finished and met every limit of the SLO; without an SLO, all that finished."""
    met = np.ones(len(run.finished), np.bool_)
    for _, over in missed(run):
        met &= ~over
    return met


# -- one value a run -------------------------------------------------------------------------


def throughput_rps(run: Observed) -> float:
    """Finished requests / duration."""
    return run.rate(float(np.count_nonzero(run.finished)))


def output_tps(run: Observed) -> float:
    """Output tokens of all samples / duration, those of unfinished requests included."""
    return run.rate(float(np.dot(run.requests["generated_tokens"], np.asarray(run.requests["samples"], np.int64))))


def total_tps(run: Observed) -> float:
    """(Prompt tokens of requests that got a first token + output tokens) / duration."""
    begun = ~np.isnan(np.asarray(run.requests["first_token_s"], np.float64))
    return run.rate(int(np.dot(run.requests["prompt_tokens"], begun.astype(np.int64)))) + output_tps(run)


def goodput_rps(run: Observed) -> float | None:
    """Finished requests that meet every limit of the SLO / duration; none without an SLO."""
    return run.rate(float(np.count_nonzero(good(run)))) if any(run.slo.values()) else None


def cost_per_million_output_tokens(run: Observed) -> float | None:
    """`device.price_per_hour` x GPUs / 3600 / `output_tps` x 10^6, beginning and end included; none without a price."""
    rate = output_tps(run)
    return None if run.price_per_hour is None or not rate > 0 else run.price_per_hour / 3600 / rate * 1e6


def batch_size(run: Observed) -> dict[str, float]:
    """Running sequences: time-weighted mean, and peak."""
    return _over_time(run, run.steps["running"])


def waiting(run: Observed) -> dict[str, float]:
    """Requests queued as steps start, preempted ones included: time-weighted mean, and peak."""
    return _over_time(run, run.steps["waiting"])


def kv_usage(run: Observed) -> dict[str, float]:
    """Slots held by running sequences / capacity: time-weighted mean, and peak (vLLM's kv_cache_usage_perc)."""
    return _over_time(run, run.held / run.capacity)


def kv_efficiency(run: Observed) -> float:
    """Slots with live K/V / slots held, both integrated over time."""
    held = run.mean(run.held)
    return run.mean(run.steps["live"]) / held if held else np.nan


def kv_sharing(run: Observed) -> float:
    """Slots that sharing avoids / slots that would be held without it, both integrated over time."""
    saved, held = run.mean(run.steps["shared_savings"]), run.mean(run.held)
    return saved / (saved + held) if saved + held else np.nan


def preemptions(run: Observed) -> int:
    """Times that a running request lost its memory."""
    return _total(run, "preemptions")


def recomputed_tokens(run: Observed) -> int:
    """Tokens prefilled again after preemptions; outputs that parallel samples generate again are not counted."""
    return _total(run, "recomputed_tokens")


def swapped_blocks(run: Observed) -> int:
    """Blocks moved to the host and back."""
    return _total(run, "swapped_blocks")


def mapped_pages(run: Observed) -> int:
    """Physical pages mapped into virtual ranges."""
    return int(np.sum(run.steps["mapped_pages"], dtype=np.int64))


def mapping_hidden_s(run: Observed) -> float:
    """Time of the driver's calls for pages while the step before computed, all steps together."""
    return float(np.sum(run.steps["mapping_hidden_s"]))


def mapping_exposed_s(run: Observed) -> float:
    """Time of the driver's calls for pages that steps waited for, all together."""
    return float(np.sum(run.steps["mapping_exposed_s"]))


def prefix_hit_rate(run: Observed) -> float:
    """Prompt tokens found in the prefix cache at first admission / prompt tokens of admitted requests."""
    admitted = ~np.isnan(np.asarray(run.requests["scheduled_s"], np.float64))
    prompts = int(np.dot(run.requests["prompt_tokens"], admitted.astype(np.int64)))
    return _total(run, "cached_tokens") / prompts if prompts else np.nan


def fragmentation_external_index(run: Observed) -> float:
    """`1 - largest hole / (free + external)`: time-weighted mean over the time in which slots are free."""
    free = np.asarray(run.steps["free"] + run.steps["external"], np.float64)
    hole, durations = run.steps["largest_hole"], run.durations
    if not (some := free > 0).all():
        free, hole, durations = free[some], hole[some], durations[some]
    time = float(durations.sum())
    return float(np.dot(1 - hole / free, durations)) / time if time else np.nan


def blocked_by(run: Observed) -> dict[str, float]:
    """Share of the time in which each cause kept the head of the queue waiting."""
    return {word: run.rate(float(run.durations[steps].sum())) for word, steps in run.blocked.items()}


PER_RUN: tuple[Callable[[Observed], float | dict[str, float] | None], ...] = (
    throughput_rps,
    output_tps,
    total_tps,
    goodput_rps,
    cost_per_million_output_tokens,
    batch_size,
    waiting,
    kv_usage,
    kv_efficiency,
    kv_sharing,
    preemptions,
    recomputed_tokens,
    swapped_blocks,
    mapped_pages,
    mapping_hidden_s,
    mapping_exposed_s,
    prefix_hit_rate,
    fragmentation_external_index,
    blocked_by,
)

OF_REQUESTS = (
    throughput_rps,
    output_tps,
    total_tps,
    goodput_rps,
    preemptions,
    recomputed_tokens,
    swapped_blocks,
    prefix_hit_rate,
)
"""Those of `PER_RUN` that read, beside how long the run took, columns of requests only: some requests have them too."""


def _over_time(run: Observed, values: Column) -> dict[str, float]:
    return {"mean": run.mean(values), "peak": values.max().item() if len(values) else np.nan}


def _total(run: Observed, name: str) -> int:
    return int(np.sum(run.requests[name], dtype=np.int64))


def formulas() -> dict[str, str]:
    """Return each metric's formula, the first line of its docstring, by name."""
    return {metric.__name__: (metric.__doc__ or "").splitlines()[0] for metric in (*PER_REQUEST, itl_s, *PER_RUN)}


def of_parts() -> dict[str, str]:
    """Return what figures of one part of a mix are called, in `--slo` and in results.parquet, and which there are."""
    names = ", ".join(metric.__name__ for metric in (*PER_REQUEST, itl_s, *OF_REQUESTS))
    which = f"FIGURE is one of {names} (with `.p99` and the like), or goodput, the share within the SLO."
    return {"part.NAME.FIGURE": f"The same of the requests of one part of a mix: {which}"}


def terms() -> dict[str, str]:
    """Return what each term of the ledger means, under the names by which `analysis.figures` looks its figures up."""
    shares = {
        f"share.{share}": f"`{share}` slots / capacity in per cent, time-weighted mean; {share} slots are {words}."
        for share, words in LEDGER_WORDS.items()
    }
    return shares | {
        "steady.share.NAME": "The same between the end of the warm-up (MSER-5) and the last arrival.",
        "peak.NAME": "The most slots that are NAME at once.",
        "peak.shared_savings": "The most slots that sharing avoids at once; they are no part of the capacity.",
        "peak.swapped": "The most slots on the host at once; they are no part of the capacity.",
    }
