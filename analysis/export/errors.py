"""What stands in the way of an export, in one line for the user."""

from __future__ import annotations


class ExportError(Exception):
    """An export is not possible."""
