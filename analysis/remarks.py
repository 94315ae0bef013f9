"""What is to be said of runs beside figures: refused requests, figures above the bound, pages that were mapped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from analysis.figures import Allocator, bound, percent_of
from analysis.numbers import listed, short


def shortfalls(allocators: Sequence[Allocator]) -> list[str]:
    """Say which requests were refused, left unfinished or cut short; allocators with the same outcome share a line."""
    told: dict[str, list[str]] = {}
    for one in allocators:
        total = one.count("total")
        if refused := one.count("refused"):
            reasons = "; ".join(f"{number:,} {reason}" for reason, number in one.refusals.items())
            told.setdefault(f"{refused:,} of {total:,} requests refused ({reasons})", []).append(one.label)
        if unfinished := one.count("unfinished"):
            what = f"{unfinished:,} of {total:,} requests unfinished when the run ended"
            told.setdefault(what, []).append(one.label)
        if one.cut:
            what = f"{one.cut:,} of {total:,} outputs cut short where prompt and output reach max_model_len"
            told.setdefault(what, []).append(one.label)
    everyone = len(allocators) if len(allocators) > 1 else 0
    return [f"{'all' if len(who) == everyone else listed(who)}: {what}" for what, who in told.items()]


def above_bound(allocators: Sequence[Allocator]) -> list[str]:
    """Explain figures that exceed those of the ideal allocator by more than chance, in a sentence each."""
    said = []
    for name, word, why in (
        ("batch_size", "batch", "slower steps keep sequences longer, which is no gain by itself."),
        ("throughput_rps", "throughput", "look for a difference in scheduling or step times before believing it."),
    ):
        percents = [(one.label, percent_of(one, bound(allocators, one), name)) for one in allocators]
        if above := [f"{label} has {short(percent)} %" for label, percent in percents if percent > 105]:
            said.append(f"{listed(above)} of the ideal {word}: {why}")
    refused = {ideal.origin: ideal.count("refused") for ideal in allocators if ideal.kind == "ideal"}
    if said and (choosy := [one.label for one in allocators if one.count("refused") > refused.get(one.origin, 0)]):
        whose = "its" if len(choosy) == 1 else "their"
        said.append(
            f"{listed(choosy)} refused requests that the bound served, so {whose} figures are of easier requests."
        )
    return said


def page_calls(allocators: Iterable[Allocator]) -> list[str]:
    """Say how many pages each allocator has mapped on demand, and how long steps waited for that."""
    lines = []
    for one in allocators:
        pages = one.mean("mapped_pages")
        if pages > 0:
            hidden, exposed = (one.mean(f"mapping_{how}_s") for how in ("hidden", "exposed"))
            lines.append(
                f"{one.label}: {short(pages)} physical pages mapped; the driver took {short(hidden + exposed)} s, "
                f"of which {short(hidden)} s ran while the GPU computed and steps waited {short(exposed)} s"
            )
    return lines
