"""The names of a workload's allocators and of the parts of its mix, and how a dotted key refers to one of them.

The name of a run is the label that the file gives it, or else the kind of its allocator with the options
that distinguish it from others of that kind: `contiguous-pow2`.  A key that leads into the list of
allocators (in `--set`, `--vary`, or `set` of a variant) may refer to one by that label, by its position, or
by its kind, which means all allocators of that kind:

    allocators.contiguous-pow2.placement    allocators.paged.block_size    allocators.0.block_size

Likewise one that leads into a mix of requests refers to a part by its name or position: requests.mix.chat.count.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from allocators.options import meant
from allocators.registry import find
from workloads.allocator import AllocatorSpec
from workloads.errors import WorkloadError
from workloads.source import Mix
from workloads.values import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocators.options import Value
    from workloads.document import Where


class Named(NamedTuple):
    """What an allocator of the file may be called."""

    label: str
    kind: str


def labels(specs: Sequence[AllocatorSpec]) -> list[str]:
    """Name the runs: a given label; else the kind, with what tells it from others of its kind.

    That is its options, then its scheduler and preemption, then a number.
    """
    kinds = Counter(spec.kind for spec in specs)
    names = []
    for spec in specs:
        words = [spec.kind]
        if kinds[spec.kind] > 1:
            words += [_word(name, value) for name, value in spec.options.items() if _differs(specs, spec.kind, name)]
        names.append(spec.label or "-".join(words))
    for choice in ("scheduler", "preemption"):
        names = _told_apart(names, [getattr(spec, choice) for spec in specs])
    repeated = Counter(names)
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(f"{name}-{seen[name]}" if repeated[name] > 1 else name)
    return found


def named(entries: Any) -> list[Named]:
    """Say what the allocators of a file may be called.

    Args:
        entries: its `allocators`, checked or as they stand in the file; of those that are not valid only kind and
            label count, and what is no list of mappings has no names.

    """
    if not isinstance(entries, (list, tuple)):
        return []
    try:
        specs = [AllocatorSpec.model_validate(entry) for entry in entries]
    except ValidationError:
        words = [entry if isinstance(entry, dict) else {} for entry in entries]
        return [Named(str(one.get("label", one.get("kind"))), str(one.get("kind"))) for one in words]
    return [Named(label, spec.kind) for label, spec in zip(labels(specs), specs, strict=True)]


def positions(allocators: Sequence[Named]) -> dict[str, list[int]]:
    """Return where the allocators stand by everything they may be called: a label goes before a kind or a number."""
    spots = {str(position): [position] for position in range(len(allocators))}
    for position, one in enumerate(allocators):
        spots.setdefault(one.kind, []).append(position)
    return spots | {one.label: [position] for position, one in enumerate(allocators)}


def unknown(word: str, allocators: Sequence[Named], source: str) -> WorkloadError:
    """Make the error that says no allocator is called `word`; it begins with `source`."""
    known = [*dict.fromkeys([*(one.label for one in allocators), *(one.kind for one in allocators)])]
    called = f"no allocator has the label or kind {word or '(none)'}{meant(word, known)}"
    return WorkloadError(f"{source}: {called}; there are: {', '.join(known)}")


def unknown_part(name: str, parts: Sequence[str], source: str) -> WorkloadError:
    """Make the error that says none of `parts`, which may be none at all, is called `name`; it begins with `source`."""
    there = f"; there are: {', '.join(parts)}" if parts else ": requests are no mix"
    return WorkloadError(f"{source}: no part of the mix is named {name}{meant(name, parts)}{there}")


def part_names(requests: Any) -> list[str]:
    """Return the names of the parts of a mix, of a block that is checked or as it stands in the file; else none."""
    if isinstance(requests, Mix):
        return [part.name for part in requests.mix]
    entries = requests.get("mix") if isinstance(requests, dict) else None
    if not isinstance(entries, list):
        return []
    return [str(one.get("name")) if isinstance(one, dict) else "" for one in entries]


def places(key: str, allocators: Sequence[Named], source: str, parts: Sequence[str]) -> tuple[Where, ...]:
    """Find where a dotted key stands; under `allocators` the next word is a label, a kind or a position.

    A label may hold dots and spaces, as in `allocators.Orca (Max).block_size`.

    Args:
        key: the dotted key.
        allocators: those of the workload, in its order.
        source: what messages begin with.
        parts: names of the parts of its mix, in its order; under `requests.mix` the next word is one, or a position.

    Returns:
        One place, or several where a kind is named of which there are several.

    Raises:
        WorkloadError: no allocator is called so, or no part.

    """
    head, _, rest = key.partition(".")
    if parts and key.startswith("requests.mix."):
        return (_within_mix(steps(key), parts, source),)
    if head != "allocators" or not rest or not allocators:
        return (steps(key),)
    spots = positions(allocators)
    name = max((name for name in spots if f"{rest}.".startswith(f"{name}.")), key=len, default=None)
    if name is None:
        word = rest.partition(".")[0]
        if word.isdigit():  # a position that is not there, as in any other list
            return (steps(key),)
        raise unknown(word, allocators, source)
    option = steps(rest[len(name) + 1 :]) if len(rest) > len(name) else ()
    return tuple(("allocators", position, *option) for position in spots[name])


def _within_mix(where: Where, parts: Sequence[str], source: str) -> Where:
    """Put the position of a part in the place of its name.  Raises WorkloadError if none is named so."""
    name = where[2]
    if isinstance(name, int):
        return where
    if name not in parts:
        raise unknown_part(name, parts, source)
    return (*where[:2], parts.index(name), *where[3:])


def steps(dotted: str) -> Where:
    """Take a dotted key apart; numbers are positions in lists."""
    return tuple(int(step) if step.isdigit() else step for step in dotted.split("."))


def _told_apart(names: Sequence[str], choices: Sequence[str | None]) -> list[str]:
    """Add its choice to a name of which there are several with different choices."""
    alike: dict[str, set[str | None]] = {}
    for name, choice in zip(names, choices, strict=True):
        alike.setdefault(name, set()).add(choice)
    pairs = zip(names, choices, strict=True)
    return [f"{name}-{choice}" if choice and len(alike[name]) > 1 else name for name, choice in pairs]


def _differs(specs: Sequence[AllocatorSpec], kind: str, option: str) -> bool:
    default = find(kind).options[option].default
    return len({spec.options.get(option, default) for spec in specs if spec.kind == kind}) > 1


def _word(option: str, value: Value) -> str:
    if isinstance(value, bool):
        return option.replace("_", "-") if value else f"no-{option.replace('_', '-')}"
    return (
        str(value) if isinstance(value, str) or option == "block_size" else f"{option.replace('_', '-')}-{shown(value)}"
    )
