"""The run in words: what it shows, what limits it, what to change first.

A ratio between two allocators is only said with its interval, so only of replicated runs;
a single run gives both figures and leaves the division to the reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import NamedTuple

from analysis.figures import Allocator, ratio
from analysis.numbers import listed, short
from analysis.remarks import above_bound, page_calls, shortfalls
from analysis.saturation import Verdict
from analysis.stats import is_narrow

BATCHES = "static"
"""The scheduler that takes a whole batch and lets nobody in before the last of it has ended."""
RESERVING = ("preallocated", "contiguous", "growing")
NEARLY = 80.0
"""Per cent from which on nearly all is: of the pool what is held at its fullest, of what is held what is live."""
WASTE = {
    "internal": "held for tokens that never come",
    "reserved": "held for tokens that come later",
    "rounding": "lost to rounding up",
    "external": "free, but in holes too small for the next request",
}


class Finding(NamedTuple):
    """One sentence or two, and how urgent it is."""

    tone: str
    """result, limit, advice, warning or note."""
    text: str


def contrast(allocators: Sequence[Allocator]) -> tuple[Allocator, Allocator]:
    """Choose two to show side by side, the worse first, of those that served anything.

    Where some reserve and others do not: the reserving one with the smallest batch, and paging or the largest batch.
    Else the slowest and the fastest per token.
    """
    served = [one for one in allocators if one.verdict is not Verdict.REFUSED] or allocators
    real = [one for one in served if one.kind not in ("ideal", "no-cache")] or list(served)
    reserving = [one for one in real if one.kind in RESERVING]
    others = [one for one in real if one not in reserving]
    if reserving and others:
        return min(reserving, key=_batch), next((one for one in others if one.kind == "paged"), max(others, key=_batch))
    return max(real, key=_slowness), min(real, key=_slowness)


def _slowness(one: Allocator) -> float:
    return _sortable(one.mean("normalized_latency_s.p50"))


def _batch(one: Allocator) -> float:
    return _sortable(one.mean("batch_size"))


def _sortable(value: float) -> float:
    return 0.0 if isnan(value) else value  # what is not known sorts last


def findings(
    allocators: Sequence[Allocator], pair: tuple[Allocator, Allocator] | None = None, *, same_pool: bool = True
) -> list[Finding]:
    """Say what the run shows, most important first.

    Args:
        allocators: all of them.
        pair: the two to contrast; chosen if None.
        same_pool: whether all have a pool of the same size.

    """
    worst, best = pair or contrast(allocators)
    headline = _headline(worst, best, "From the same pool, " if same_pool else "")
    said = [Finding("result", text) for text in (headline, _memory(worst, best))]
    said += [_limit(best), Finding("advice", _advice(best))]
    overloaded = [one.label for one in allocators if one.verdict is Verdict.OVERLOADED]
    if overloaded:
        said.append(
            Finding(
                "warning",
                f"OVERLOADED: {listed(overloaded)}. Fewer requests left than came, so these latencies tell how long "
                "the run was, not how fast the system is.",
            )
        )
    said += [Finding("warning", f"{text}.") for text in shortfalls(allocators)]
    said += [Finding("note", f"{text}.") for text in page_calls(allocators)]
    said += [Finding("warning", text) for text in above_bound(allocators)]
    return said


def _headline(worst: Allocator, best: Allocator, opening: str) -> str:
    if best.verdict is Verdict.REFUSED:
        return f"{best.label} could not serve a single request."
    if worst is best or reserves(worst):
        return _batches(worst, best, opening)
    hits = 100 * best.mean("prefix_hit_rate")
    found = f"{best.label} finds {hits:.0f} % of its prompt tokens in the cache. " if hits >= 1 else ""
    return (
        f"{found}With {best.label} a first token takes {short(best.mean('ttft_s.p50'))} s and a whole answer "
        f"{short(1e3 * best.mean('normalized_latency_s.p50'))} ms a token, with {worst.label} "
        f"{short(worst.mean('ttft_s.p50'))} s and {short(1e3 * worst.mean('normalized_latency_s.p50'))} ms (medians)."
    )


def reserves(one: Allocator) -> bool:
    """Whether it takes room ahead of need, or in one piece: what paging put an end to."""
    return one.kind in RESERVING


def _batches(worst: Allocator, best: Allocator, opening: str) -> str:
    if worst is best:
        text = f"{best.label} runs {short(best.mean('batch_size'))} sequences at once on average"
        return f"{text} and finishes {short(best.mean('throughput_rps'))} requests a second."
    less, more = ([short(one.mean(name)) for name in ("batch_size", "throughput_rps")] for one in (worst, best))
    if less == more:
        alike = f"{best.label} and {worst.label} alike run {more[0]} sequences at once"
        return f"{opening}{alike} and finish {more[1]} a second."
    text = (
        f"{opening}{best.label} runs {more[0]} sequences at once and finishes {more[1]} requests a second; "
        f"{worst.label} runs {less[0]} and finishes {less[1]}"
    )
    if is_narrow(times := ratio(worst, best, "throughput_rps")):
        text += f" ({times.value:.2f} times the throughput, 95 % interval {times.low:.2f} to {times.high:.2f})"
    return text + "."


def _memory(worst: Allocator, best: Allocator) -> str:
    if best.verdict is Verdict.REFUSED:
        return "Its pool stayed empty."
    parts = {name: worst.mean(f"share.{name}") for name in WASTE}
    worst_parts = sorted((name for name in parts if parts[name] >= 1), key=lambda name: -parts[name])
    lost = ", ".join(f"{parts[name]:.0f} % is {WASTE[name]}" for name in worst_parts[:3])
    live = f"{worst.label} fills {_percent(worst.mean('share.live'))} of the pool with live K/V"
    live += f"; {lost}" if lost else ""
    if worst is best:
        return live + "."
    return f"{live}. {best.label} fills {_percent(best.mean('share.live'))} with live K/V{_efficiency(best)}."


def _percent(share: float) -> str:
    return "less than 1 %" if 0 < share < 1 else f"{share:.0f} %"


def _efficiency(one: Allocator) -> str:
    held = one.mean("kv_efficiency")
    return "" if isnan(held) else f", {100 * held:.0f} % of what its sequences hold"


def _turned_away(one: Allocator) -> str:
    """Why most requests were refused, if they were."""
    if 2 * one.count("refused") < max(one.count("total"), 1):
        return ""
    return max(one.refusals, key=lambda reason: one.refusals[reason])


def _blocked(one: Allocator) -> dict[str, float]:
    total: dict[str, float] = {}
    for entry in one.entries:
        for word, share in entry["metrics"]["blocked_by"].items():
            total[word] = total.get(word, 0.0) + 100 * share / len(one.entries)
    return total


def _limit(one: Allocator) -> Finding:
    if reason := _turned_away(one):
        told = f"{one.label} refused {one.count('refused')} of {one.count('total')} requests: {reason}."
        return Finding("limit", told)
    blocked = _blocked(one)
    if not blocked or max(blocked.values()) < 1:
        return Finding("limit", f"Nothing limits {one.label}: hardly a request had to wait for memory or a seat.")
    word, share = max(blocked.items(), key=lambda item: item[1])
    what = awaited(word, one.scheduler)
    return Finding(
        "limit", f"What limits {one.label}: for {share:.0f} % of the time the next request waited for {what}."
    )


def awaited(cause: str, scheduler: str) -> str:
    """Say what a request waits for at the head of the queue, given as steps note it."""
    if cause == "order":
        return f"the end of the batch ({BATCHES})" if scheduler == BATCHES else "its turn behind preempted requests"
    return {
        "memory": "free KV memory",
        "seats": "a seat (max_num_seqs)",
        "budget": "room in a step (max_num_batched_tokens)",
    }[cause]


def _spare(one: Allocator) -> str:
    """Advise where hardly anything waited: whether there is room to spare depends on the fullest moment."""
    if (lost := one.mean("preemptions")) >= 1:
        return (
            f"Change first: nothing, unless {short(lost)} preemptions matter: at its fullest the pool was too small, "
            "so a larger one or a smaller token would do without them."
        )
    peak = 100 * one.mean("kv_usage.peak")
    held = f"at its fullest {_percent(peak)} of the pool was held"
    if peak > NEARLY:
        return f"Change first: nothing in memory; {held}, and that was enough."
    return f"Change first: nothing in memory. More requests fit, or a smaller pool would do: {held}."


def _advice(one: Allocator) -> str:
    if reason := _turned_away(one):
        return {
            "larger than the whole pool": "Change first: the pool. Give it more memory or several GPUs, or make a "
            "token smaller (fp8 K/V, grouped-query attention).",
            "longer than max_model_len": "Change first: max_model_len, or a model with a longer context.",
            "longer than a step's token budget": "Change first: max_num_batched_tokens, or let prompts be computed in "
            "pieces (chunked_prefill of vllm-v1).",
            "more samples than a step's token budget": "Change first: max_num_batched_tokens.",
            "more samples than seats": "Change first: max_num_seqs.",
        }.get(reason, f"Change first: what requests are refused for ({reason}).")
    blocked = _blocked(one)
    word = max(blocked, key=lambda name: blocked[name]) if blocked else ""
    if not word or blocked[word] < 5:
        return _spare(one)
    settings = {
        "seats": "nothing in memory: requests wait for a seat. A larger max_num_seqs makes steps longer, which helps "
        "only where the GPU is not busy computing anyway; `advise` tries it.",
        "budget": "nothing in memory: prompts wait for room in a step. A larger max_num_batched_tokens makes steps "
        "longer and fewer, which helps only where the GPU is not busy computing anyway; `advise` tries it.",
    }
    if one.scheduler == BATCHES:
        settings["order"] = "the scheduler. Let requests come and go between any two steps (orca, vllm-v1)."
    if word in settings:
        return f"Change first: {settings[word]}"
    waste = {name: one.mean(f"share.{name}") for name in WASTE}
    largest = max(waste, key=lambda name: waste[name])
    if waste[largest] > 15:
        return {
            "internal": "Change first: reserve less, or in smaller blocks; most of the waste is never written.",
            "reserved": "Change first: take blocks on demand instead of ahead of time.",
            "rounding": "Change first: the placement; rounding sizes up costs more than anything else.",
            "external": "Change first: hand out blocks that need not lie side by side; free memory is in pieces.",
        }[largest]
    text = "Change first: make a token smaller or the pool larger (fp8 K/V, grouped-query attention, more memory)"
    held, lost = 100 * one.mean("kv_efficiency"), one.mean("preemptions")
    if held > NEARLY:
        text += f"; {held:.0f} % of what sequences hold is live K/V, so a better allocator has little left to win"
    return f"{text}. {short(lost)} preemptions say the same." if lost >= 1 else f"{text}."
