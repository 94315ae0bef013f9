"""One command line in this process, and what becomes of a failure.

Exit status: 0 done; 1 a bug, with its traceback (or what a command defines); 2 the input is
at fault, with one line per fault on standard error; 130 interrupted; 141 the reader of the
output has gone.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from sim.cli.commands import run
from workloads.errors import in_a_line, lines_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DONE, FAILED, FAULT, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141


def main(arguments: Sequence[str] | None = None, program: str = "kvsim") -> int:
    """Run one command line and return its exit status.

    Args:
        arguments: the words after the program's name; those of this process if not given.
        program: what help and messages call the program.

    """
    sys.stdout = sys.stdout or _nowhere()  # closed by whoever started us: there is nothing to print to
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a letter is no reason to stop
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        try:
            return _run(sys.argv[1:] if arguments is None else arguments, program)
        except ImportError as error:
            if error.name != "allocators":  # whose sources are not what was compiled
                raise
            return _fail([str(error)])


def _run(words: Sequence[str], program: str) -> int:
    try:
        status = run(words, program)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        _fail(["interrupted"])
        return INTERRUPTED
    except OSError as error:
        if error.errno is None:  # a library's own, not the system's
            raise
        if error.filename is None:  # standard output, then
            _drop_output()
        return _fail([f"{error.filename or program}: {error.strerror}"])
    except UnicodeEncodeError as error:  # of a file's name; what is printed is replaced
        encoding = sys.getfilesystemencoding()
        hint = "" if encoding == "utf-8" else "; PYTHONUTF8=1 allows it"
        return _fail(
            [f"{_string_at(error.object, error.start)}: no name of a file where those are in {encoding}{hint}"]
        )
    except Exception as error:
        if isinstance(error, _for_users()):
            return _fail(lines_of(error))
        raise
    return DONE if status is None else status


def _string_at(text: str, place: int) -> str:
    """Return what is in quotation marks around a place of a JSON document; all of a text without any."""
    return text[text.rfind('"', 0, place) + 1 :].partition('"')[0]


def _drop_output() -> None:
    """Let what is still buffered go nowhere; it cannot be written, and would be tried again on the way out."""
    if sys.__stdout__ is not None and sys.stdout is sys.__stdout__:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def _for_users() -> tuple[type[Exception], ...]:
    """Errors whose text is written for the user.  Imported only now: `--help` must not wait for them."""
    from analysis.errors import RunDirectoryError  # noqa: PLC0415  (start-up time)
    from analysis.export.errors import ExportError  # noqa: PLC0415  (start-up time)
    from sim.errors import UserError  # noqa: PLC0415  (start-up time)
    from workloads.errors import WorkloadError  # noqa: PLC0415  (start-up time)

    return UserError, WorkloadError, RunDirectoryError, ExportError


def _fail(lines: Iterable[str]) -> int:
    """Print lines on standard error and return the status of a fault."""
    for line in lines:
        sys.stderr.write(f"{in_a_line(line)}\n")
    return FAULT


def _warn(message: Warning | str, *_where: object, **_more: object) -> None:
    """Show a warning as one line; where in our source it was raised helps no user."""
    sys.stderr.write(f"warning: {in_a_line(str(message))}\n")
