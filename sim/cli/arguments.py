"""What a command takes, read from the signature of its function: argparse parts the words, types make values of them.

A parameter before `/` is given by its place, every other one is an option of its name: `--dry-run` is
`dry_run`.  A bool takes no value, a tuple several, a data class stands for the options that its fields
are.  `Annotated[..., "--set"]` says what a parameter is called where its own name would not do.
"""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentError, ArgumentParser, BooleanOptionalAction
from dataclasses import is_dataclass
from functools import partial
from inspect import Parameter, signature
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from sim.errors import UserError, suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Result = TypeVar("Result")

HELP, VERSION = ("--help", "-h"), "--version"
"""What every command answers, whatever else is given."""

WANTED = {int: "a whole number", float: "a number"}
"""What a value must be, by its type."""


class Argument(NamedTuple):
    """One thing that a command line may give: a word at some place, or an option."""

    name: str
    """Of the parameter, or of the field."""
    label: str
    """As it is called in messages: `FILE`, or `--seed`."""
    kind: Any
    """Type of one value; a Literal lists its choices."""
    many: bool
    """Whether it may be repeated."""
    by_place: bool
    default: Any
    """`Parameter.empty` if it must be given."""

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is Parameter.empty

    @property
    def options(self) -> tuple[str, ...]:
        """As which options it may be given: none by its place, two if it is wanted unless the line says otherwise."""
        both = self.kind is bool and self.default
        return () if self.by_place else (self.label, f"--no-{self.label[2:]}") if both else (self.label,)

    @property
    def choices(self) -> tuple[str, ...]:
        """The values it may have, if these are few words."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()


def arguments(command: Callable[..., Any]) -> Iterator[Argument]:
    """Yield what a command, or a data class of options, takes."""
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in signature(command).parameters.items():
        hint = hints[name]
        if isinstance(hint, type) and is_dataclass(hint):
            yield from arguments(hint)
            continue
        by_place = parameter.kind is Parameter.POSITIONAL_ONLY
        bare = name.strip("_")
        label = bare.upper() if by_place else "--" + bare.replace("_", "-")
        if get_origin(hint) is Annotated:
            hint, label = get_args(hint)
        yield Argument(name, label, _one(hint), get_origin(hint) is tuple, by_place, parameter.default)


def _one(hint: Any) -> Any:
    """Return the type of one value: int of `int | None` and of `tuple[int, ...]`."""
    return _one(get_args(hint)[0]) if get_origin(hint) in (Union, UnionType, tuple) else hint


def call(command: Callable[..., Result], words: Sequence[str], where: str) -> Result:
    """Call a command with what a command line gives, and return what it returns.

    Args:
        command: a function whose parameters are of the types named above.
        words: the command line behind the command's name.
        where: what messages call the command.

    Raises:
        UserError: the command line makes no sense.

    """
    try:
        values = _values(list(arguments(command)), words)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return _applied(command, values)


def _applied(command: Callable[..., Result], values: dict[str, Any]) -> Result:
    """Call a function, or make a data class, with those of the values that are its own."""
    hints = get_type_hints(command)
    bound = signature(command).bind_partial()
    for name in bound.signature.parameters:
        if is_dataclass(hints[name]):
            bound.arguments[name] = _applied(hints[name], values)
        elif name in values:
            bound.arguments[name] = values[name]
    return command(*bound.args, **bound.kwargs)


def _values(asked: Sequence[Argument], words: Sequence[str]) -> dict[str, Any]:
    """Return the values that are given, by the name of the parameter."""
    end = words.index("--") if "--" in words else len(words)  # behind it nothing is an option
    found, placed = _options(asked, words[:end])
    placed += words[end + 1 :]
    for one in asked:
        if one.by_place:
            mine = slice(None if one.many else 1)
            found[one.name] = [_value(one, word) for word in placed[mine]]
            del placed[mine]
    if placed:
        hint = "; each key=value needs an option of its own" if "=" in placed[0] else ""
        raise UserError(f"unexpected argument {placed[0]}{hint}")
    given = [one for one in asked if one.required or found[one.name] not in (None, [])]
    return {one.name: _whole(one, found[one.name]) for one in given}


def _options(asked: Sequence[Argument], words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the values of every option, or whether it is wanted, or None; and the words that are left over."""
    parser = ArgumentParser(usage=SUPPRESS, add_help=False, allow_abbrev=False, exit_on_error=False)
    for one in asked:
        if one.kind is bool:
            action: Any = BooleanOptionalAction if one.default else "store_true"
            parser.add_argument(one.label, dest=one.name, action=action, default=None)
        elif not one.by_place:
            parser.add_argument(one.label, dest=one.name, action="append", type=partial(_value, one))
    try:
        found, placed = parser.parse_known_args(words)
    except ArgumentError as error:
        valued = error.argument_name in {one.label for one in asked if one.kind is not bool}
        raise UserError(f"{error.argument_name} {'needs a value' if valued else 'takes no value'}") from None
    for word in placed:
        if word.startswith("-") and word != "-":
            option = word.partition("=")[0]
            known = [name for one in asked for name in one.options]
            raise UserError(f"unknown option {option}{suggest(option, known)}")
    return vars(found), placed


def _whole(one: Argument, found: Any) -> Any:
    """Return what the command gets: all values, or the only one, or whether an option is wanted."""
    if one.required and not found:
        raise UserError(f"{one.label} is missing")
    if one.kind is bool:
        return found
    if one.many:
        return tuple(found)
    if len(found) > 1:
        raise UserError(f"{one.label} is given {len(found)} times")
    return found[0]


def _value(one: Argument, text: str) -> Any:
    """Make a value of a word."""
    if one.choices:
        if text not in one.choices:
            wanted = f"one of {', '.join(one.choices)}{suggest(text, one.choices)}"
            raise UserError(f"{one.label} {text}: must be {wanted}")
        return text
    try:
        return one.kind(text)
    except ValueError:
        raise UserError(f"{one.label} {text}: must be {WANTED[one.kind]}") from None
