"""`--help`: what a command does and takes, from its docstring and its signature."""

from __future__ import annotations

import inspect
import re
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from analysis.terminal import line
from sim.cli.arguments import HELP, VERSION, arguments
from sim.cli.output import add, lay_out, listing, terminal
from workloads.docs import field_docs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sim.cli.arguments import Argument

METAVARS = {str: "STR", int: "INT", float: "FLOAT"}
"""What stands for a value of a type; of any other that is a PATH."""

EVERYWHERE = {", ".join(HELP): "Show this and exit.", VERSION: "Show the version and exit."}


def show_commands(name: str, about: str, commands: Mapping[str, str]) -> None:
    """Print what commands there are.

    Args:
        name: of the program, or of the command that has commands of its own.
        about: what it does.
        commands: what each of them does, by name.

    """
    _print(f"{name} COMMAND", about, {"Commands": commands, "Options": EVERYWHERE})


def show_command(name: str, command: Callable[..., Any]) -> None:
    """Print what a command does and takes.

    Args:
        name: of the program and of the command.
        command: its function.

    """
    about, docs = described(command)
    asked = list(arguments(command))
    places = [one for one in asked if one.by_place]
    options = [one for one in asked if not one.by_place]
    usage = " ".join([name, "[OPTIONS]", *(_written(one) if one.required else f"[{_written(one)}]" for one in places)])
    blocks = {"Arguments": places, "Options": options}
    rows = {title: {_written(one): _told(one, docs[one.name]) for one in block} for title, block in blocks.items()}
    _print(usage, about, rows)


def described(command: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Return what a command's docstring says of it, and of each argument, in one line; data classes have their own."""
    about, _, listed = (inspect.getdoc(command) or "").partition("Args:\n")
    entries = re.findall(r"^    (\w+): (.+(?:\n     .+)*)", listed, re.MULTILINE)
    docs = {name: " ".join(text.split()) for name, text in entries}
    for hint in get_type_hints(command).values():
        if isinstance(hint, type) and is_dataclass(hint):
            docs |= field_docs(hint) | described(hint)[1]
    return about.strip(), docs


def _written(one: Argument) -> str:
    """Write an argument as it is given."""
    if one.kind is bool:
        return ", ".join(one.options)
    metavar = "CHOICE" if one.choices else METAVARS.get(one.kind, "PATH")
    return (one.label if one.by_place else f"{one.label} {metavar}") + "..." * one.many


def _told(one: Argument, doc: str) -> str:
    """Say what an argument is, what it may be, and what it is if it is not given, where that says something."""
    choices = f" [choices: {', '.join(one.choices)}]" if one.choices else ""
    silent = one.required or one.default in (None, False, ())
    return doc + choices + ("" if silent else f" [default: {one.default}]") + " [required]" * one.required


def _print(usage: str, about: str, blocks: Mapping[str, Mapping[str, str]]) -> None:
    """Print paragraphs and lists; a line of a docstring is no line of a terminal."""
    console = terminal()
    console.say(f"Usage: {usage}")
    for paragraph in about.split("\n\n"):
        console.print()
        console.print(line(" ".join(paragraph.split())))
    for title, rows in blocks.items():
        if rows:
            table = listing({"what": "", "is": ""}, title=title)
            table.columns[0].style = "bold"
            for row in rows.items():
                add(table, *row)
            console.print()
            lay_out(console, table)
