"""The one kind of error a user sees: a line that says where, what was wrong and what would be right."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right.  Its text is one line; the command line prints it and exits with status 2."""


def suggest(word: object, known: Iterable[str]) -> str:
    """Return " (did you mean x?)" for the known name that `word` begins, or the closest; "" if none is close."""
    names = {name.lower(): name for name in known}
    asked = str(word).lower()
    close = [name for name in names if asked and name.startswith(asked)] or get_close_matches(asked, names, n=1)
    return f" (did you mean {names[close[0]]}?)" if close else ""
