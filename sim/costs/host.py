"""The host: what it does for each step of the device, and how much of that nothing hides.

A step that no CUDA graph holds is launched kernel by kernel, and takes at least as long as that.  One that is replayed
waits for what the host prepares, as far as the step before it is too short to hide it.
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
        self._ahead = c.run_ahead / 1e9 if route == "blocks" else 0.0
        self.work_s = c.prefill_host_s if route == "blocks" else 0.0
        """Seconds of work for a replayed step that prefills."""

    def floor(self, load: Load) -> Any:
        """Seconds of work for a step that is launched kernel by kernel: the least that the step takes."""
        sequences = load.decode_seqs + load.prefill_seqs
        return self._launch + sequences * self._launch_sequence - load.behind_ns * self._ahead

    def unhidden(self, load: Load, maximum: Maximum) -> Any:
        """Seconds of work for a replayed step that prefills which the step before it does not hide."""
        return maximum(self.work_s - load.before_ns / 1e9, 0.0)
