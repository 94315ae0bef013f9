"""The commands by name, and how a command line finds its own."""

from __future__ import annotations

import sys
from importlib import import_module
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from sim.cli.arguments import HELP, VERSION, call
from sim.errors import UserError, suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence


class Command(NamedTuple):
    """Where a command lives, or the commands below it; and its line in `--help`."""

    where: str | Mapping[str, Command]
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
    "trace": Command(
        {
            "describe": Command(
                "sim.cli.traces:describe", "Sum a trace up: arrivals, lengths, and what prompts share."
            ),
            "fit": Command("sim.cli.traces:fit", "Print a requests block that makes requests like the trace's."),
            "convert": Command("sim.cli.traces:convert", "Write a trace in another format."),
        },
        "Describe or convert a recorded trace, or fit a generator to it.",
    ),
    "walkthrough": Command("sim.cli.walkthrough:walkthrough", "Write the page for newcomers: KV memory step by step."),
    "list": Command("sim.cli.catalogue:list_", "List what a workload file may name, and what is assumed of it."),
    "new": Command("sim.cli.starter:new", "Start a workload file from a shipped preset."),
    "schema": Command("sim.cli.starter:schema", "Print the JSON Schema of workload files, for editors."),
}
"""Every command, in the order of `--help`.  Their modules are imported when they are called, not here."""

PROGRAM = Command(COMMANDS, "Simulate the KV-cache memory manager of an LLM serving engine.")


def run(words: Sequence[str], program: str) -> int | None:
    """Call the command that a command line names, or explain it; returns what the command does.

    Raises:
        UserError: the command line makes no sense.

    """
    options = list(takewhile("--".__ne__, words))
    if VERSION in options:
        _print_version()
        return None
    asked = any(word in options for word in HELP)
    name, command, rest = find([word for word in words if not asked or word not in HELP], program)
    if isinstance(command.where, str) and not asked:
        return call(function(command), rest, name)
    from sim.cli.help import show_command, show_commands  # noqa: PLC0415  (start-up time of all that is not explained)

    if isinstance(command.where, str):
        show_command(name, function(command))
    else:
        show_commands(name, command.summary, {word: below.summary for word, below in command.where.items()})
    return None


def find(words: Sequence[str], program: str) -> tuple[str, Command, Sequence[str]]:
    """Return the full name of the command that a command line names, the command, and the words behind its name.

    Raises:
        UserError: there is no such command.

    """
    name, command = program, PROGRAM
    while words and not isinstance(command.where, str):
        word, *words = words
        if word not in command.where:
            raise UserError(f"{name}: {_unknown(word, command.where)}")
        name, command = f"{name} {word}", command.where[word]
    return name, command, words


def function(command: Command) -> Callable[..., int | None]:
    """Import the module of a command that has none below it, and return its function."""
    module, _, name = str(command.where).partition(":")
    found: Callable[..., int | None] = getattr(import_module(module), name)
    return found


def _unknown(word: str, commands: Collection[str]) -> str:
    if word.startswith("-"):
        return f"unknown option {word}{suggest(word, (*HELP, VERSION))}"
    return f"unknown command {word}{suggest(word, commands)}; commands: {', '.join(commands)}"


def _print_version() -> None:
    from sim.versions import described  # noqa: PLC0415  (start-up time)

    sys.stdout.write(f"{described()}\n")
