"""The commands by name, and what becomes of a failure.

Exit status: 0 done; 1 a bug, with its traceback (or what a command defines); 2 the input is
at fault, with one line per fault on standard error; 130 interrupted; 141 the reader of the
output has gone.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from cyclopts import App, CoercionError, CycloptsError, Parameter, Token, convert

from sim.cli.usage import fault
from workloads.errors import in_a_line, lines_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Command(NamedTuple):
    """Where a command lives, and its line in `--help`."""

    where: str
    summary: str


COMMANDS = {
    "run": Command("sim.cli.run:run", "Run a workload through each of its allocators."),
    "check": Command("sim.cli.check:check", "Check a workload file: resolved, with its pool and costs. Runs nothing."),
    "validate": Command("sim.cli.validate:validate", "Serve a workload on a real model; compare with its simulation."),
    "calibrate": Command("sim.cli.calibrate:calibrate", "Measure steps on a device; fit the cost model to them."),
    "compare": Command("sim.cli.results:compare", "Compare two run directories, or the allocators of one."),
    "report": Command("sim.cli.results:report", "Write the offline page of run directories."),
    "sweep": Command("sim.cli.sweep:sweep", "Run a workload at every combination of some values: grids, and curves."),
    "capacity": Command("sim.cli.capacity:capacity", "Find the highest rate each allocator sustains within an SLO."),
    "advise": Command("sim.cli.advise:advise", "Say what limits a workload, and which settings to change."),
    "export": Command(
        "sim.cli.export:export", "Write a run for Perfetto, PyTorch's memory viewer, Grafana, or as CSV."
    ),
    "replay": Command("sim.cli.results:replay", "Replay recordings of real engines against our allocators."),
    "trace": Command("sim.cli.traces:trace", "Describe or convert a recorded trace, or fit a generator to it."),
    "walkthrough": Command("sim.cli.walkthrough:walkthrough", "Write the page for newcomers: KV memory step by step."),
    "list": Command("sim.cli.catalogue:list_", "List what a workload file may name, and what is assumed of it."),
    "new": Command("sim.cli.starter:new", "Start a workload file from a shipped preset."),
    "schema": Command("sim.cli.starter:schema", "Print the JSON Schema of workload files, for editors."),
}
"""Every command, in the order of `--help`."""

DONE, FAILED, FAULT, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141


def make_app(program: str) -> App:
    """Name the commands.  Their modules are imported when they are called, not here."""
    app = App(
        name=program,
        help="Simulate the KV-cache memory manager of an LLM serving engine.",
        version=_version,
        default_parameter=Parameter(negative=(), show_default=_default, converter=_convert),
        help_format="markdown",  # a line of a docstring is no line of a terminal
        suppress_keyboard_interrupt=False,
    )
    for order, (name, command) in enumerate(COMMANDS.items()):
        app.command(command.where, name=name, help=command.summary, sort_key=order)
    return app


def _version() -> str:
    from sim.versions import described  # noqa: PLC0415  (start-up time)

    return described()


def _convert(kind: Any, tokens: Sequence[Token]) -> Any:
    """Convert as always, except that no number is rounded."""
    if kind is int and (given := next((token for token in tokens if "." in token.value), None)):
        raise CoercionError(token=given, target_type=int)
    return convert(kind, tokens)


def _default(value: object) -> str | None:
    """Return a default as `--help` shows it: not where it is that nothing is given."""
    return None if value is None or value is False or value == () else str(value)


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
            return _run(arguments, program)
        except ImportError as error:
            if error.name != "allocators":  # whose sources are not what was compiled
                raise
            return _fail([str(error)])


def _run(arguments: Sequence[str] | None, program: str) -> int:
    try:
        status = make_app(program)(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        return _fail([fault(error, program)])
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
    except Exception as error:
        if isinstance(error, _for_users()):
            return _fail(lines_of(error))
        raise
    return status if isinstance(status, int) else DONE


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
