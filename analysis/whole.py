"""Files that are whole or not there: written under another name, and renamed when all of it is on the disk.

A disk that fills up, a key that interrupts or an error half-way leave what was there before, and nothing half-written
that looks like a result.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a name to write under; it becomes `path` at the end of the block, or is removed if the block fails.

    What is no plain file, such as /dev/stdout, is written as it is.

    Raises:
        OSError: the system refuses, a full disk say; it names `path`.

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


def naming(error: OSError, path: Path) -> OSError:
    """Return the system's error with the name of the file, which a full disk's lacks; a library's own as it is."""
    return error if error.errno is None else OSError(error.errno, os.strerror(error.errno), str(path))
