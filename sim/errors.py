"""The one kind of error a user sees: a line that says where, what was wrong and what would be right."""

from __future__ import annotations

from allocators.options import meant as suggest

__all__ = ["UserError", "suggest"]


class UserError(Exception):
    """Something the user can put right.  Its text is one line; the command line prints it and exits with status 2."""
