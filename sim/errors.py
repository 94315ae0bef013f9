"""The one kind of error that a user sees: a line that says where it is, what is wrong and what would be right."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from workloads.errors import WorkloadError, lines_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class UserError(Exception):
    """Something the user can put right.  Its text is one line; the command line prints it and exits with status 2."""


class DoesNotFitError(UserError):
    """A model, or a block of its K/V, needs more memory than the device has.

    Of one point of a grid that is a finding, and no reason to leave the others out.
    """


class VariantError(UserError):
    """What keeps one variant of a workload from running: an error as it may be of any file, and which variant's."""

    def __init__(self, label: str, error: Exception) -> None:
        """Say both."""
        self.label, self.lines = label, lines_of(error)
        super().__init__(f"variants: {label}: {self.lines[0]}")


@contextmanager
def of_variant(label: str) -> Iterator[None]:
    """Say of an error which variant's it is.  Raises VariantError."""
    try:
        yield
    except (UserError, WorkloadError) as error:
        raise VariantError(label, error) from error


def suggest(word: object, known: Iterable[object]) -> str:
    """Return ` (did you mean X or Y?)` for the known words that come near, or nothing."""
    from allocators.options import meant  # noqa: PLC0415  (`allocators` may refuse to be imported, which `main` tells)

    return meant(word, known)
