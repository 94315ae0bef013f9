"""The `slo` block of a workload file, and of a part of a mix."""

from __future__ import annotations

from workloads.spec import Positive, Spec


class Slo(Spec):
    """Service-level objectives: a request that meets every one given counts as goodput."""

    ttft_s: Positive | None = None
    """Longest time to first token allowed, seconds."""
    tpot_s: Positive | None = None
    """Longest time per output token after the first allowed, seconds (mean over the request)."""
    itl_s: Positive | None = None
    """Longest gap between any two tokens allowed, seconds."""
    queue_s: Positive | None = None
    """Longest time from arrival to the first step allowed, seconds."""
    e2e_s: Positive | None = None
    """Longest time from arrival to last token allowed, seconds."""
    normalized_latency_s: Positive | None = None
    """Longest end-to-end latency divided by output tokens allowed, seconds."""
