"""How values are written in messages, tables and pages: as a workload file has them.

`null`, `true`, plain text, `[a, b]` and `{key: value}`.  What `written` returns is the value again when it stands in
such a file; text has quotes only where it would be read as something else without them.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from workloads.errors import in_a_line

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 60
"""Letters of a text or a number in a message."""
MOST = 6
"""Entries of a list or a mapping in a message."""
LARGE = 10_000
"""Bits beyond which a whole number is written in hexadecimal: Python refuses to write thousands of digits."""
_NO_TEXT = re.compile(
    r"null|true|false|~|[-+]?\.(inf|nan)|[-+]?0[box]?[\da-f_]+|[-+]?[\d_]*\.?[\d_]*(e[-+]?\d+)?", re.IGNORECASE
)
"""Words that YAML reads as something else than text, and a few more."""
_MARKED = re.compile(r"""^[\s\-?:!&*#|>@%`'"=<]|[,\[\]{}]|:(\s|$)|\s#|\s$""")
"""What may have a meaning of its own in YAML."""


def shown(value: object) -> str:
    """Write a value into a message: in one line, short, however large or nested the value is."""
    return _written(value, 1)


def written(value: object) -> str:
    """Write a value in one line, with all that is in it."""
    return _written(value, math.inf)


def _written(value: object, depth: float) -> str:
    """Write a value, and if `depth` is finite only so many lists and mappings in one another, abridged."""
    if isinstance(value, dict):
        return f"{{{', '.join(_parts(value, depth))}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_parts(value, depth))}]"
    if isinstance(value, str):
        return _text(_cut(value, depth))
    return _cut(_number(value) if isinstance(value, int | float) else "null" if value is None else str(value), depth)


def _parts(value: Any, depth: float) -> Iterator[str]:
    """Yield what is in a list or a mapping."""
    for place, one in enumerate(value):
        if depth <= 0 or (place == MOST and math.isfinite(depth)):
            yield "..."
            return
        said = _written(one, depth - 1)
        yield f"{said}: {_written(value[one], depth - 1)}" if isinstance(value, dict) else said


def _number(value: float) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return hex(value) if value.bit_length() > LARGE else str(value)
    return str(value) if math.isfinite(value) else str(value).replace("inf", ".inf").replace("nan", ".nan")


def _text(text: str) -> str:
    plain = text.isprintable() and not (_NO_TEXT.fullmatch(text) or _MARKED.search(text))
    return text if plain else in_a_line(json.dumps(text, ensure_ascii=False))


def _cut(text: str, depth: float) -> str:
    """Leave out the middle of what is too long for a message."""
    half = LONGEST // 2 - 2
    return text if math.isinf(depth) or len(text) <= LONGEST else f"{text[:half]}...{text[-half:]}"
