"""Schedulers: which sequences prefill how many tokens and which decode, in one step."""

from sim.schedulers.base import Limits, Scheduler
from sim.schedulers.orca import Orca
from sim.schedulers.static import Static
from sim.schedulers.vllm_v0 import VllmV0
from sim.schedulers.vllm_v1 import VllmV1

SCHEDULERS: dict[str, type[Scheduler]] = {each.kind: each for each in (Static, Orca, VllmV0, VllmV1)}

__all__ = ["SCHEDULERS", "Limits", "Orca", "Scheduler", "Static", "VllmV0", "VllmV1"]
