"""The limits of an SLO in seconds: one mapping from the name of a per-request metric, or of one of a part of a mix.

    {"ttft_s": 1.0, "part.batch.ttft_s": None, "part.batch.e2e_s": 600.0}

All requests shall have their first token within a second but those of batch, which shall be done in ten minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Limits: TypeAlias = Mapping[str, float | None]

PART = "part."
"""What the names of metrics of a part of a mix begin with; the part's name follows."""


def limits_of(workload: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the limits that a workload sets, as manifests have it: its own, and those of parts that have others."""
    found: dict[str, float | None] = dict(workload.get("slo") or {})
    every = list(found)
    for part in (workload.get("requests") or {}).get("mix") or ():
        own = part.get("slo")
        if own is not None:
            found |= {f"{PART}{part['name']}.{name}": own.get(name) for name in dict.fromkeys([*every, *own])}
    return found


def of_all(limits: Limits) -> dict[str, float | None]:
    """Return the limits of requests that belong to no part with others."""
    return {name: limit for name, limit in limits.items() if not name.startswith(PART)}


def of_part(limits: Limits, part: str) -> dict[str, float | None]:
    """Return the limits of the requests of one part."""
    begin = f"{PART}{part}."
    own = {name.removeprefix(begin): limit for name, limit in limits.items() if name.startswith(begin)}
    return of_all(limits) | own


def parts_with_own(limits: Limits) -> list[str]:
    """Name the parts that have others than all."""
    return list(dict.fromkeys(name.split(".", 2)[1] for name in limits if name.startswith(PART)))
