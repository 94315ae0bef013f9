"""Words and colours that every page shares.

Colours are those of Okabe and Ito (2008), which people with any common colour vision tell
apart: cool ones for slots that do something, warm ones for waste.  They are CSS variables,
so both themes and all plots take them from one place.
"""

from __future__ import annotations

from analysis.slo import Limits, of_all, of_part, parts_with_own

HANDING_OUT: dict[str, str] = {
    "no-cache": "keeps nothing: every step computes every token again",
    "growing": "a sequence has tensors in one piece, copied into longer ones for every new token",
    "preallocated": "a sequence takes room for the longest one allowed, in one piece, when it starts",
    "contiguous": "a sequence takes room in one piece, when it starts",
    "paged": "a sequence takes blocks of {slots} wherever they are free, another one when its last is full",
    "radix": "a sequence takes blocks of {slots} wherever they are free; they are kept for prompts that begin alike",
    "virtual": "a sequence has addresses for the longest one allowed; memory is mapped there page by page",
    "hybrid": "a sequence takes blocks for each kind of layer wherever they are free, others when these are full",
    "ideal": "the bound: a sequence takes a slot for each of its tokens, and none besides",
}
"""How an allocator hands memory out, by its kind; {slots} stands for the size of a block."""

LIMIT_WORDS: dict[str, str] = {
    "ttft_s": "time to first token",
    "tpot_s": "time per output token",
    "itl_s": "longest gap between tokens",
    "queue_s": "time in the queue",
    "e2e_s": "end to end",
    "normalized_latency_s": "latency per token",
}
"""Names of the figures, all in seconds, that an SLO may limit."""


def limits(slo: Limits) -> str:
    """Write the limits of an SLO, in seconds, for a sentence; nothing if there is none."""
    if not any(slo.values()):
        return ""
    parts = (f"{part}: {_listed(of_part(slo, part))}" for part in parts_with_own(slo))
    return "; ".join([_listed(of_all(slo)), *parts])


def _listed(slo: Limits) -> str:
    told = (f"{LIMIT_WORDS.get(name, name)} ≤ {limit:g} s" for name, limit in slo.items() if limit is not None)
    return ", ".join(told) or "no limit"


def machine(model: str, device: str | None, gpus: int = 1) -> str:
    """Say which model is served on which GPU, or how many; one that the workload describes itself has no name."""
    if device in (None, "custom"):
        return f"{model} on {f'{gpus} GPUs' if gpus > 1 else 'a GPU'} of your own"
    return f"{model} on {gpus} {device} GPUs" if gpus > 1 else f"{model} on {device}"


HELP: tuple[tuple[str, str], ...] = (
    ("← →", "previous or next memory event (preemption, refusal, eviction)"),
    ("Shift ← →", "move the window in time"),
    ("+ -", "zoom in or out around the cursor"),
    (", .", "cursor a little back or on, with the ledger there in words"),
    ("0", "whole run"),
    ("D", "first request that the two allocators treat differently"),
    ("C", "next colouring of the block map"),
    ("S", "next order of the requests"),
    ("T", "light or dark"),
    ("Esc", "clear selection and cursor"),
)
"""Keys of the page."""
