"""Words and colours that every page shares.

Colours are those of Okabe and Ito (2008), which people with any common colour vision tell
apart: cool ones for slots that do something, warm ones for waste.  They are CSS variables,
so both themes and all plots take them from one place.
"""

from __future__ import annotations

LEDGER_WORDS: dict[str, str] = {
    "live": "hold K/V of a running sequence",
    "reserved": "held for a running sequence, which will use them",
    "internal": "held, and never used",
    "rounding": "held only because placement rounds up",
    "cached": "kept for reuse, evictable",
    "external": "free, but in holes too small for the next request",
    "free": "free and usable",
}
"""What each share of the ledger is, in a few words."""

HELP: tuple[tuple[str, str], ...] = (
    ("← →", "previous or next memory event (preemption, refusal, eviction)"),
    ("Shift ← →", "move the window in time"),
    ("+ -", "zoom in or out around the cursor"),
    ("0", "whole run"),
    ("D", "first request that the two allocators treat differently"),
    ("C", "next colouring of the block map"),
    ("S", "next order of the requests"),
    ("T", "light or dark"),
    ("Esc", "clear selection and cursor"),
)
"""Keys of the page."""
