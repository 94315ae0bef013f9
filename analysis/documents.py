"""Reading JSON documents back: each is looked at once, when it is opened, so that its users find what they name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from analysis.errors import RunDirectoryError
from analysis.shapes import TEXT, Shape, fault
from workloads.errors import first_line
from workloads.values import shown

SCHEMA_VERSION = 1
"""Of every document in a directory."""
WRITTEN: Shape = ({...: TEXT}, None)
"""The shape of the digests in a manifest (`analysis.written`)."""


def read_json(path: Path, shape: Shape, again: str) -> Any:
    """Read a JSON document.

    Args:
        path: the file.
        shape: what it looks like.
        again: how to get a new one, as the end of a sentence.

    Raises:
        RunDirectoryError: it cannot be read, is no JSON, or is not of this shape.

    """
    content = parse_json(path, again)
    demand_shape(path, content, shape, again)
    return content


def demand_shape(path: Path, content: Any, shape: Shape, again: str) -> None:
    """Raise RunDirectoryError unless a document is of a shape."""
    if wrong := fault(content, shape):
        raise RunDirectoryError(f"{path}: {wrong}: it was changed, or another version wrote it; {again}")


def parse_json(path: Path, again: str) -> Any:
    """Read a JSON document of any shape, in which `NaN` is no number.  Raises as `read_json`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_finite, parse_float=_finite)
    except (OSError, ValueError, RecursionError) as error:
        raise RunDirectoryError(f"{path}: not readable as JSON: {first_line(error)}; {again}") from None


def demand_version(path: Path, content: Any, again: str) -> None:
    """Raise RunDirectoryError unless a document says that it is of this version."""
    found = content.get("schema") if isinstance(content, dict) else None
    if found != SCHEMA_VERSION:
        raise RunDirectoryError(f"{path}: schema {shown(found)}; this version reads schema {SCHEMA_VERSION}; {again}")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number of JSON")
    return number
