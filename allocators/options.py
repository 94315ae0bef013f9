"""Options: what a workload file may say about an allocator, declared beside the allocator.

A class lists its options as data, so that a schema can validate and document them (plug-ins
included) while this package needs nothing but the standard library:

    options = {
        "block_size": Option(int, 16, "token slots per block", minimum=1, maximum=256),
        "placement": Option(str, "buddy", "how a run is placed", choices=("buddy", "first-fit", "best-fit")),
        "kv_tensors": Option(int, 64, "K and V tensors of a sequence, two a layer", minimum=1, fact="kv_tensors"),
    }

The options of a kind become keyword arguments of its constructor, under the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Value: TypeAlias = bool | int | float | str | None


class Option(NamedTuple):
    """One thing that may be set about an allocator."""

    type: type[bool | int | float | str]
    default: Value
    """Value when nothing is said; None marks an option that may stay unset."""
    doc: str
    """One line for people: what it is, with its unit."""
    choices: tuple[Value, ...] = ()
    """The only values allowed; empty if all of the type are."""
    minimum: float | None = None
    """Smallest number allowed."""
    maximum: float | None = None
    """Largest number allowed."""
    fact: str = ""
    """Fact of the model or the run that takes the place of `default` where the caller knows it.

    `kv_tensors`: K and V tensors over all layers (two an attention layer, one with MLA, none in a recurrent one).
    `tensor_token_bytes`: bytes of one token in one of them (kv_heads x head_dim x bytes of a number).
    `sliding_window`: tokens that a token attends to, where that is so in every layer.
    `host_blocks`: blocks that fit in the engine's swap space.
    `shared_prefixes`: whether any two prompts of the workload begin alike.
    `kv_groups`: groups of layers that keep the same, as `allocators.groups.parse` reads them.
    """

    def fault(self, value: object) -> str | None:
        """Say what would be right where `value` is wrong, or None where it is right."""
        if value is None and self.default is None:
            return None
        accepted = (int, float) if self.type is float else self.type
        if not isinstance(value, accepted) or (isinstance(value, bool) and self.type is not bool):
            return f"must be {NAMES[self.type]}"
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(map(str, self.choices))}{meant(value, self.choices)}"
        return _out_of_range(value, self.minimum, self.maximum) if isinstance(value, int | float) else None


BLOCK_SIZE = Option(int, 16, "token slots per block", minimum=1, maximum=1024)
"""The one that nearly every allocator has; the others are of several, too."""
HOST_BLOCKS = Option(int, 0, "blocks on the host for sequences swapped out", minimum=0, fact="host_blocks")
KV_TENSORS = Option(
    int, 64, "K and V tensors of a sequence, over all layers", minimum=1, maximum=10**9, fact="kv_tensors"
)
TENSOR_TOKEN_BYTES = Option(
    int, 2048, "bytes of a token in one of them", minimum=1, maximum=10**9, fact="tensor_token_bytes"
)


def _out_of_range(value: float, minimum: float | None, maximum: float | None) -> str | None:
    if not isfinite(value):
        return "must be a finite number"
    if minimum is not None and value < minimum:
        return f"must be at least {minimum:g}"
    if maximum is not None and value > maximum:
        return f"must be at most {maximum:g}"
    return None


NAMES: Mapping[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def meant(word: object, known: Iterable[object]) -> str:
    """Return ` (did you mean X or Y?)` for the known words that begin with `word`, or the nearest; or nothing."""
    from difflib import get_close_matches  # noqa: PLC0415  (only where something is wrong)

    names = {str(name).lower(): str(name) for name in known}
    asked = str(word).lower()
    begun = _letters(asked)
    near = [name for name in names if begun and _letters(name).startswith(begun)]
    near = near or get_close_matches(asked, names, n=1)
    return f" (did you mean {' or '.join(names[name] for name in near[:3])}?)" if near else ""


def _letters(word: str) -> str:
    """Leave out what people write differently: `llama3` begins `llama-3.1-8b`."""
    return "".join(filter(str.isalnum, word))


def resolve(
    kind: str, options: Mapping[str, Option], given: Mapping[str, object], facts: Mapping[str, Value]
) -> dict[str, Value]:
    """Fill in every option: what is given, else the model's fact, else the default.

    Raises:
        ValueError: one line naming the allocator, the option, and what would be right.

    """
    for name in given:
        if name not in options:
            known = ", ".join(options) or "none"
            raise ValueError(f"{kind}: unknown option {name}{meant(name, options)}; known: {known}")
    values: dict[str, Value] = {}
    for name, option in options.items():
        value = given.get(name, facts.get(option.fact, option.default))
        fault = option.fault(value)
        if fault:
            raise ValueError(f"{kind}.{name}: {fault}, got {value!r}")
        values[name] = value  # type: ignore[assignment] # `fault` has checked its type
    return values
