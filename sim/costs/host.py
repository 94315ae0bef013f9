"""The host: what it does for each step of the device, and how much of that nothing hides.

A step that no CUDA graph holds is launched kernel by kernel, and takes at least as long as that.  Any step that
prefills waits for what the host does before the device can begin.  Both begin while the device runs the step before,
which hides as much of them as it lasts; but if the host waits for its end, or there is none, nothing does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.costs.coefficients import Coefficients
    from sim.costs.load import Load, Maximum, Route


class Host:
    """The host's work for a model of so many layers."""

    def __init__(self, layers: int, coefficients: Coefficients, route: Route) -> None:
        """Turn coefficients into seconds; where attention finds K/V decides what has to be launched."""
        c = coefficients
        layer_s = {
            "blocks": c.launch_layer_s,
            "tensors": c.separate_launch_layer_s,
            "recompute": c.recompute_launch_layer_s,
        }
        self._launch = c.step_overhead_s + layers * layer_s[route]
        self._launch_sequence = layers * c.sequence_launch_layer_s if route == "tensors" else 0.0
        self._launch_beside = layers * c.launch_beside_layer_s if route == "blocks" else 0.0
        self._hidden = 1e-9 if route == "blocks" else 0.0  # else the host waits for the end of every step
        self._lead_s = max(c.launch_lead_s, c.prefill_host_s) if route == "blocks" else 0.0
        self.work_s = c.prefill_host_s if route == "blocks" else 0.0
        """Seconds of work for a replayed step that prefills."""

    def floor(self, load: Load) -> Any:
        """Seconds of work for a step that is launched kernel by kernel: the least that the step takes."""
        sequences, beside = load.decode_seqs + load.prefill_seqs, load.decode_seqs > 0
        work = self._launch + sequences * self._launch_sequence + beside * self._launch_beside
        return work - load.behind_ns * self._hidden

    def lead(self, load: Load, maximum: Maximum) -> Any:
        """Seconds that the device waits for the first kernel of a step that is launched kernel by kernel."""
        return maximum(self._lead_s - load.behind_ns / 1e9, 0.0)

    def unhidden(self, load: Load, maximum: Maximum) -> Any:
        """Seconds that the device waits for what a replayed step that prefills has to be told."""
        return maximum(self.work_s - load.behind_ns / 1e9, 0.0)
