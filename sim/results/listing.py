"""A run directory's manifest while its runs are done: each result is listed in it as soon as it is there.

So what an interrupted run has finished is told from what was changed afterwards, as in a directory that is complete.
A manifest of many runs takes a while to write; it is then written less often, and once more whatever ends the work.
Only a process that is killed may leave its last results unlisted, which are then read and kept as they are.
"""

from __future__ import annotations

import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, Self

from analysis.written import MANIFEST, listed, results
from sim.results.rundir import write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

RARELY = 20
"""Times as long as a manifest takes to write that pass at least until it is written again."""


class Listing:
    """Lists results in a manifest."""

    def __init__(self, out: Path, manifest: dict[str, Any], known: Mapping[str, str]) -> None:
        """Write the manifest of a directory, with what is `known` of its results: their SHA-256 by name."""
        self._out, self._manifest, self._known = out, manifest, dict(known)
        self._write()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write what is known, whatever has happened; if that is a full disk, it is what is told."""
        with nullcontext() if kind is None else suppress(OSError):
            self._write()

    def add(self, names: Iterable[str]) -> None:
        """List some results, those that are there and not listed yet."""
        self._known |= listed(self._out, (name for name in names if name not in self._known))
        if time.monotonic() >= self._next:
            self._write()

    def _write(self) -> None:
        began = time.monotonic()
        names = results(self._manifest["runs"])
        self._manifest["written"] = {name: self._known[name] for name in names if name in self._known}
        write_json(self._out / MANIFEST, self._manifest)
        ended = time.monotonic()
        self._next = ended + RARELY * (ended - began)
