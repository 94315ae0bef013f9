"""The versions that a measurement was made with."""

from __future__ import annotations

import sim.versions

PACKAGES = ("torch", "transformers", "flashinfer-python", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python, of kvsim and of what decodes, as far as it is installed."""
    return sim.versions.versions(PACKAGES)
