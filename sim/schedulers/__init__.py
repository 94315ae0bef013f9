"""Schedulers: which sequences prefill how many tokens and which decode, in one step.

Other packages add theirs under the entry-point group `kvsim.schedulers` (see `allocators.plugins`).
"""

import warnings

from allocators.plugins import SCHEDULERS as GROUP
from allocators.plugins import PluginError, declared, imported
from sim.engine.scheduler import Scheduler
from sim.schedulers.orca import Orca
from sim.schedulers.static import Static
from sim.schedulers.vllm_v0 import VllmV0
from sim.schedulers.vllm_v1 import VllmV1

SCHEDULERS: dict[str, type[Scheduler]] = {each.kind: each for each in (Static, Orca, VllmV0, VllmV1)}

__all__ = ["SCHEDULERS", "Orca", "Scheduler", "Static", "VllmV0", "VllmV1", "find_scheduler", "schedulers"]


def find_scheduler(kind: str) -> type[Scheduler]:
    """Return the class of a scheduler; imports it if a plug-in provides it.

    Raises:
        PluginError: there is no such scheduler, or its plug-in cannot be used.

    """
    if kind in SCHEDULERS:
        return SCHEDULERS[kind]
    points = declared(GROUP).get(kind)
    if points is None:
        raise PluginError(f"unknown scheduler {kind!r}")
    return imported(points, "scheduler", Scheduler, SCHEDULERS)  # type: ignore[type-abstract]  # never made


def schedulers() -> dict[str, type[Scheduler]]:
    """Return every scheduler that works, built-in ones first.  Imports all plug-ins; warns of broken ones."""
    found = dict(SCHEDULERS)
    for kind in declared(GROUP):
        try:
            found[kind] = find_scheduler(kind)
        except PluginError as error:
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)
    return found
