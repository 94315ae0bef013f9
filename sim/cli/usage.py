"""A command line that makes no sense, said in one line in the words of our other messages."""

from __future__ import annotations

from itertools import chain
from typing import get_args

from cyclopts import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from sim.errors import suggest

WANTED = {int: "a whole number", float: "a number", bool: "true or false, or the option alone"}
"""What a value must be, by its type."""


def fault(error: CycloptsError, program: str) -> str:
    """Say what is wrong with a command line, and what would be right.

    Args:
        error: what cyclopts found; its own words are kept where they are as short.
        program: what the program is called.

    """
    where = " ".join([program, *(error.command_chain or ())])
    return f"{where}: {_what(error)}"


def _what(error: CycloptsError) -> str:
    match error:
        case UnknownCommandError(unused_tokens=[word, *_]) if word.startswith("-"):
            said = f"unknown option {word}{suggest(word, ('--help', '--version'))}"
        case UnknownCommandError(unused_tokens=[word, *_]):
            commands = [name for name in error.app or () if not name.startswith("-")]
            said = f"unknown command {word}{suggest(word, commands)}; commands: {', '.join(commands)}"
        case UnknownOptionError():
            word = error.token.keyword or error.token.value
            known = chain.from_iterable(argument.names for argument in error.argument_collection if argument.parse)
            said = f"unknown option {word}{suggest(word, known)}"
        case UnusedCliTokensError(unused_tokens=[word, *_]):
            said = f"unexpected argument {word}" + (
                "; each key=value needs an option of its own" if "=" in word else ""
            )
        case MissingArgumentError(keyword=None, argument=argument) if argument is not None:
            said = f"{argument.name} is missing"
        case MissingArgumentError():
            said = f"{error.keyword} needs a value"
        case CoercionError() if error.token is not None and (wanted := _wanted(error)):
            where = error.token.keyword or (error.argument.name if error.argument else "")
            said = f"{where} {error.token.value}: must be {wanted}"
        case _:
            said = " ".join(str(error).split())
    return said


def _wanted(error: CoercionError) -> str:
    """Say what a value that cannot be read would have to be; nothing for types that have no name here."""
    if error.target_type in WANTED:
        return WANTED[error.target_type]
    choices = [choice for choice in get_args(error.target_type) if isinstance(choice, str)]
    given = error.token.value if error.token else ""
    return f"one of {', '.join(choices)}{suggest(given, choices)}" if choices else ""
