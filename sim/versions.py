"""Versions of what takes part in a run; a checkout of kvsim that was never installed has one too."""

from __future__ import annotations

import platform
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from allocators.compiled import active

if TYPE_CHECKING:
    from collections.abc import Iterable

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def own() -> str:
    """Version of kvsim: the one installed, else that of the checkout it runs from."""
    from importlib.metadata import PackageNotFoundError  # noqa: PLC0415  (start-up time of `--help`)

    try:
        return _installed("kvsim")
    except PackageNotFoundError:
        import tomllib  # noqa: PLC0415  (only here)

        project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
        return f"{project['version']}+checkout"


def described() -> str:
    """Version of kvsim, and whether its hot rooms run compiled (`allocators.compiled`)."""
    return f"{own()} (compiled)" if active() else own()


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python, of kvsim, and of those other packages that are installed."""
    from importlib.metadata import PackageNotFoundError  # noqa: PLC0415  (start-up time of `--help`)

    found = {"python": platform.python_version(), "kvsim": described()}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = _installed(name)
    return found


def _installed(name: str) -> str:
    """Version of an installed package.  Its metadata are not parsed, which takes long where they end in a README.

    Raises:
        PackageNotFoundError: there is none of that name.

    """
    from importlib.metadata import distribution  # noqa: PLC0415  (start-up time of `--help`)

    found = distribution(name)
    line = re.search(r"^Version: (.+)$", found.read_text("METADATA") or "", re.MULTILINE)
    return line[1] if line else found.version
