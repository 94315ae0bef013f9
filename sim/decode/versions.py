"""The versions that a measurement was made with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("kvsim", "torch", "transformers", "flashinfer-python", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python and of what decodes, as far as it is installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
