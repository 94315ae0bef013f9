"""Whether these modules run compiled, and if so, whether from the sources that are here now.

`sim/native.py` can compile (with mypyc) the modules that every step of a run touches; it puts each extension module
beside its source, which Python then ignores.  So that no one runs code that differs from what they read, the build
leaves a record of the sources it has compiled, and importing this package compares them with it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard, TypeVar
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mypy_extensions import mypyc_attr
else:
    Class = TypeVar("Class", bound=type)

    def mypyc_attr(**_: bool) -> Callable[[Class], Class]:
        """Say to the compiler what a class must be able to do: be subclassed in Python, be copied."""
        return lambda cls: cls


__all__ = ["RECORD", "active", "copied_whole", "demand_current", "is_a", "mypyc_attr", "write_record"]

Kind = TypeVar("Kind")

ROOT = Path(__file__).parents[1]
RECORD = Path(__file__).with_name("compiled.txt")
"""The Python that the extension modules are for, then a line for each source: its checksum and its path."""


def active() -> bool:
    """Whether there are extension modules for this Python."""
    return bool(_recorded())


def write_record(sources: Iterable[str], record: Path = RECORD) -> None:
    """Write down what is compiled: `sources` are paths from the folder that holds the packages."""
    lines = [sys.implementation.cache_tag, *(f"{_checksum(source)} {source}" for source in sources)]
    record.write_text("\n".join(lines), encoding="utf-8")


def demand_current() -> None:
    """Raise ImportError if a source is not what was compiled."""
    for line in _recorded():
        known, source = line.split(maxsplit=1)
        if _checksum(source) != known:
            raise ImportError(
                f"{source} has changed since it was compiled; compile again with `python -m sim.native`, "
                "or go back to plain Python with `python -m sim.native clean`",
                name="allocators",
            )


def copied_whole(cls: type) -> None:
    """Let copies of instances keep what a class in Python adds to the compiled one that it extends."""
    fields: tuple[str, ...] = getattr(cls, "__mypyc_attrs__", ())
    if fields and "__dict__" not in fields:
        cls.__mypyc_attrs__ = (*fields, "__dict__")  # type: ignore[attr-defined]  # only compiled classes have it


def is_a(thing: object, kind: Callable[..., Kind]) -> TypeGuard[Kind]:
    """Whether something is an instance of a class, which may be compiled and abstract.

    Python code must not ask `isinstance` this: for an abstract class it looks into a cache, and compiled classes share
    the one of `abc.ABC`, so that what has been found to be of one of them would be of all others.
    """
    return kind in type(thing).__mro__


def _recorded() -> list[str]:
    if not RECORD.exists():
        return []
    tag, *lines = RECORD.read_text(encoding="utf-8").splitlines()
    return lines if tag == sys.implementation.cache_tag else []


def _checksum(source: str) -> str:
    path = ROOT / source
    return f"{crc32(path.read_bytes()):08x}" if path.exists() else "missing"
