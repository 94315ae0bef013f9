"""What settings do in vain: it runs, and does not do what was probably meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocators.registry import find
from analysis.numbers import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.case import Case
    from sim.models.geometry import Geometry
    from workloads.requests import Requests


def windows_in_vain(geometry: Geometry, cases: Sequence[Case]) -> list[str]:
    """Say so if some layers see a window only, but paging is by one block table for all layers."""
    groups, longest = geometry.kv_groups, cases[0].limits.max_model_len
    sliding = sum(group.layers for group in groups if group.window and group.window < longest)
    kinds = [(case.label, find(case.spec.kind)) for case in cases]
    one_table = [label for label, kind in kinds if kind.scattered and "groups" not in kind.options]
    apart = any("groups" in kind.options and not kind.free_preemption for _, kind in kinds)
    if apart or not one_table or not sliding or all(group.window for group in groups):
        return []
    words = (
        f"{listed(one_table)}: all layers keep all tokens, although {sliding} of {geometry.layers} read the "
        f"last {geometry.window:,} only; the allocator hybrid keeps no more than those, as vLLM does"
    )
    return [words]


def caches_in_vain(requests: Requests, cases: Sequence[Case]) -> list[str]:
    """Say so if a prefix cache was asked for, but nothing is known of what prompts share."""
    asked = [case.label for case in cases if case.spec.options.get("prefix_cache")]
    if requests.prefixes is not None or not asked:
        return []
    which = f"{listed(asked)}: prefix_cache is on, but nothing is ever found in it"
    return [f"{which}: no two prompts begin alike, as far as the requests say"]
