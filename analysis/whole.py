"""Writing files completely or not at all: under another name, and renamed when everything is on the disk.

If the disk fills up, the user interrupts or an error occurs, what was there before remains, and no half-written file
looks like a result.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a name to write under; it becomes `path` at the end of the block, or is removed if the block fails.

    What is not a plain file, such as /dev/stdout, is written directly.

    Raises:
        OSError: the file cannot be written, for example because the disk is full; the error names `path`.

    """
    target = path.resolve()  # a link goes on to be one
    part = target if target.exists() and not target.is_file() else target.with_name(target.name + ".part")
    try:
        yield part
        if part != target:
            part.replace(target)
    except BaseException as error:
        if part != target:
            with suppress(OSError):  # of a disk that cannot be written; what went wrong first is what to tell
                part.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(part)):
            raise naming(error, path) from None
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole, into a folder that is made if there is none.  Raises OSError as `whole` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def naming(error: OSError, path: Path) -> OSError:
    """Return an error of the system with the name of the file added; other errors are returned unchanged."""
    return error if error.errno is None else OSError(error.errno, os.strerror(error.errno), str(path))
