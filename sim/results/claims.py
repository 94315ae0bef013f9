"""Whose results a directory holds, and for whom they give way.

Results are replaced by those of the same workload, which are the same again, and by nothing else unless
that is asked for: one rule for every command that writes a directory, wherever that is.  A single file is
not replaced at all, but for pages, which can be made again: a page gives way to a page.
"""

from __future__ import annotations

import json
from itertools import count
from typing import TYPE_CHECKING, Any

from analysis import GENERATOR
from analysis.documents import WRITTEN, demand_shape, parse_json
from analysis.reading import VARIANTS
from analysis.shapes import COUNT, FOLDER
from analysis.written import MANIFEST
from sim.errors import UserError
from workloads.values import written

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

WORDS = ("expect", "remarks")
"""Keys of a workload on which no result depends."""
CLAIM = {"workload": {}, "runs?": [{"dir": FOLDER, "repeat?": COUNT}], "written?": WRITTEN}
"""What a manifest must say for its results to give way or to be kept (`analysis.shapes`)."""
ANOTHER = "give another --out"
UNSET = "unset"


def earlier(out: Path, question: str = "run") -> dict[str, Any] | None:
    """Return the manifest of the results in a directory; None if it is empty or not there.

    Args:
        out: the directory.
        question: what its results must be of: a run, sweep, capacity search, advice or validation.

    Raises:
        UserError: it is a file, or holds something else.

    """
    path = out / MANIFEST
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; give a directory")
    if not path.exists():
        if (out / VARIANTS).exists():
            raise UserError(f"{out}: holds the variants of a workload, a directory each; {ANOTHER}")
        if not is_empty(out, MANIFEST):
            raise UserError(f"{out}: holds other files and no {MANIFEST}; give an empty or a new directory")
        return None
    content = parse_json(path, ANOTHER)
    if not isinstance(content, dict) or "workload" not in content:
        raise UserError(f"{path}: is not of kvsim, which would replace it; {ANOTHER}")
    demand_shape(path, content, CLAIM, ANOTHER)
    if (held := content.get("question", "run")) != question:
        raise UserError(f"{out}: holds {held} results, not {question} results; {ANOTHER}")
    return content


def is_empty(out: Path, first: str) -> bool:
    """Whether a directory is not there or empty, but for the beginning of what is written into it first.

    Args:
        out: the directory.
        first: the file, whose writing the end of a process may have cut short.

    """
    return not out.is_dir() or all(path.name == f"{first}.part" for path in out.iterdir())


def changed(
    before: Mapping[str, Any], now: Mapping[str, Any], keys: Sequence[str], *, aside: Sequence[str] = ()
) -> str:
    """Say what sets the results of two manifests apart, as `rate was 2, is 3`; nothing if they are of the same.

    Args:
        before: the manifest that is there.
        now: the one that is to be written.
        keys: what their results depend on; what older manifests do not say is not compared.
        aside: keys of the workload that make no difference to what is asked.

    """
    there, here = (
        {key: said.get(key) for key in keys if key in before} for said in (before, json.loads(json.dumps(now)))
    )
    for said in (there, here):
        if isinstance(workload := said.get("workload"), dict):
            said["workload"] = {key: value for key, value in workload.items() if key not in (*WORDS, *aside)}
    return _difference(there, here, "").removeprefix("workload.")


def _difference(one: Any, other: Any, at: str) -> str:
    """Describe the first value that differs."""
    if one == other:
        return ""
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        one, other = (dict(enumerate(some)) for some in (one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one | other:
            values = one.get(key), other.get(key)
            if found := _difference(*values, f"{at}.{key}" if at else str(key)):
                return found
    if isinstance(one, list | dict) or isinstance(other, list | dict):
        return f"{at} differs"
    was, is_ = (UNSET if value is None else written(value) for value in (one, other))
    return f"{at} was {was}, is {is_}"


def refuse(out: Path, change: str, *, resumable: bool = False) -> UserError:
    """Make the error of a directory whose results are of something else, or can be of use to what is asked now."""
    ways = "give another --out, --resume to keep its simulations, or" if resumable else "give another --out, or"
    return UserError(f"{out}: holds other results ({change}); {ways} --force to replace them")


def demand_new(path: Path, *, forced_by: str = "") -> None:
    """Raise UserError if there is a file or a folder of this name.

    Args:
        path: the file to be written; one that is not plain, such as /dev/stdout, cannot be lost.
        forced_by: the option that replaces it, if there is one.

    """
    if path.is_file() or path.is_dir():
        raise UserError(f"{path}: exists already; give another name{f', or {forced_by}' if forced_by else ''}")


def unused(path: Path) -> Path:
    """Return the name, or if there is a file of this name the first of NAME-2, NAME-3 and so on that is not taken."""
    names = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    return next((name for name in names if not name.exists()), path) if path.exists() else path


def demand_page(path: Path) -> None:
    """Raise UserError if there is a file of this name that is no page of ours, unless it is empty."""
    if path.is_file() and path.stat().st_size and GENERATOR not in path.read_bytes()[:500].decode(errors="replace"):
        raise UserError(
            f"{path}: exists already, and does not say that it is a page of kvsim; remove it, or give another name"
        )
