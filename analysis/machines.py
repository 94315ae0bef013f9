"""How a machine differs from the one that a calibration was measured on, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FACTORS = {
    "wide_factor": "steps of more than 24 tokens",
    "many_factor": "steps of 96 and more decodes",
    "compute_factor": "prefills",
}
"""What coefficients of a machine are about, beside `step_factor`."""
LAUNCHED = {
    "launch_layer_s": "of a step that no graph holds",
    "launch_beside_layer_s": "for decodes beside its prompts",
    "separate_launch_layer_s": "where tensors grow",
    "sequence_launch_layer_s": "for each sequence there",
    "recompute_launch_layer_s": "where nothing is cached",
}
"""What coefficients of launches are about, but for `launch_lead_s`."""


def differing(machine: Mapping[str, float]) -> str:
    """Say how a machine differs from the one of the calibration."""
    words = []
    if "step_factor" in machine:
        words.append(f"decodes take {machine['step_factor']:.3f} times as long as calibrated")
    for name, what in FACTORS.items():
        if name in machine:
            words.append(f"{what} {machine.get('step_factor', 1.0) * machine[name]:.3f} times")
    if "power_throttle" in machine:
        words.append(f"prefills in a row up to {machine['power_throttle']:.1%} longer than at first")
    if "prefill_host_s" in machine:
        words.append(f"the host {1e3 * machine['prefill_host_s']:.2f} ms for a step")
    if "launch_lead_s" in machine:
        words.append(f"{1e3 * machine['launch_lead_s']:.2f} ms before the first kernel of one that no graph holds")
    for name, what in LAUNCHED.items():
        if name in machine:
            words.append(f"{1e3 * machine[name]:.2f} ms to launch a layer {what}")
    return ", ".join(words)
