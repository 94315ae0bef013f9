"""What pydantic finds wrong with a document, in lines for people.

    workload.yaml:7:5: allocators.0.block_sise: unknown key (did you mean block_size?)

pydantic says where in the models a fault is; here that becomes the place in the file and its dotted path, and
what it says becomes what is wrong, in words of this project, and what would be right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from pydantic import BaseModel

from allocators.options import meant
from workloads.distributions import FixedShape
from workloads.schema import Workload
from workloads.spec import Spec
from workloads.values import MOST, shown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from workloads.document import Document, Place, Step


def lines(document: Document, error: ValidationError, about: str = "") -> list[str]:
    """Write what is wrong with a document, a line for each fault, in the order of the file.

    Args:
        document: it.
        error: what pydantic says of its data.
        about: what stands between the place in the file and the path.

    """
    found = sorted(
        (_line(document, fault, about) for fault in error.errors(include_url=False)), key=lambda line: line[0]
    )
    return list(dict.fromkeys(line for _, line in found))


def _line(document: Document, fault: ErrorDetails, about: str) -> tuple[Place, str]:
    """Write one fault as `where: dotted.path: message`, after its place."""
    kind, context = fault["type"], fault.get("ctx", {})
    path = _path(document.data, fault["loc"], whole=kind == "missing")
    if kind in {"union_tag_invalid", "union_tag_not_found"} and "kind" in context.get("discriminator", ""):
        path = (*path, "kind")
    dotted, said = ".".join(map(str, path)), worded(fault, kind, context, _at(document.data, path[:-1]))
    blamed = said.partition(":")[0]  # of what is wrong with the whole: the key that it is about
    if not path and blamed in document.data:
        path = (blamed,)
    where = document.where(path, key=kind in {"extra_forbidden", "unknown_option"})
    if where.text.startswith(f"--{dotted} "):  # an option that has the key's name
        dotted = ""
    return where, f"{where.text}: {about}{dotted + ': ' if dotted else ''}{said}"


def _path(data: Any, loc: tuple[Step, ...], *, whole: bool) -> tuple[Step, ...]:
    """Strip from pydantic's location what is no key of the data: the tags of unions."""
    path: list[Step] = []
    for depth, (step, tag, _) in enumerate(_followed(loc)):
        if tag:
            continue
        inside = (isinstance(data, dict) and step in data) or (
            isinstance(data, list) and isinstance(step, int) and step < len(data)
        )
        if inside:
            data = data[step]
        if inside or (whole and depth == len(loc) - 1):
            path.append(step)
    return tuple(path)


_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_unicode": "text that UTF-8 can hold",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
}


def _at(data: Any, path: tuple[Step, ...]) -> Collection[Any]:
    """Return the keys of what stands at a path; nothing if that has none."""
    for step in path:
        data = data[step]
    return data if isinstance(data, dict) else ()


def worded(fault: ErrorDetails, kind: str, context: dict[str, Any], beside: Collection[Any] = ()) -> str:
    """Say what is wrong and what would be right; `beside` are the keys of the block that a fault is in."""
    given, message = fault["input"], fault["msg"]
    got = f", got {shown(given)}"
    match kind:
        case "missing":
            return "missing"
        case "extra_forbidden":
            return f"unknown key{_meant_key(fault['loc'], beside)}"
        case "union_tag_invalid" | "union_tag_not_found":
            message = _of_no_kind(given, context, got)
        case "literal_error":
            known = _words(context["expected"])
            message = f"must be one of {', '.join(known)}{got}{meant(given, known)}"
        case "value_error":
            message = str(context["error"])
        case "model_type" | "model_attributes_type":
            message = _no_mapping(fault["loc"], given, got)
        case _ if kind in _TYPES:
            message = f"must be {_TYPES[kind]}{got}"
        case "string_too_short" | "string_too_long" | "too_short" | "too_long":
            message = _sized(given, context)
        case _ if message.startswith("Input should"):
            message = message.replace("Input should", "must") + got
    return message.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")


def _of_no_kind(given: Any, context: dict[str, Any], got: str) -> str:
    """Say that a block must be of a known kind."""
    if not isinstance(given, dict):
        return f"must be a mapping with a kind{got}"
    if "expected_tags" not in context:
        return "missing"
    known, kind = _words(context["expected_tags"]), given["kind"]
    return f"unknown kind {shown(kind)}{meant(kind, known)}; known: {', '.join(known)}"


def _no_mapping(loc: tuple[Step, ...], given: Any, got: str) -> str:
    """Say that a block is wanted, and how to write it: that of the kind which a bare word names, else what there is."""
    last = list(_followed(loc))[-1]
    fields = [block.model_fields[str(last.name)] for block in last.blocks if last.name in block.model_fields]
    blocks = [block for field in fields for block in _blocks(field.annotation)] or last.blocks
    bare = "a number or " if any(issubclass(block, FixedShape) for block in blocks) else ""
    short = blocks[0].shorthand if len(blocks) == 1 and issubclass(blocks[0], Spec) else None
    message = f"must be {f'a {short} or ' if short else bare}a mapping{got}"
    kinds = {kind: block for block in reversed(blocks) for kind in reversed(_kinds(block))}
    if isinstance(given, str) and given in kinds:
        rest = [f"{name}: ..." for name in _demanded(kinds[given]) if name != "kind"]
        return f"{message}; write {{{', '.join([f'kind: {given}', *rest])}}}"
    if kinds:
        return f"{message}; kinds: {', '.join(reversed(kinds))}"
    names = [name for block in blocks for name in (*_demanded(block), *block.model_fields)]
    closed = all(block.model_config.get("extra") == "forbid" for block in blocks)
    keys = list(dict.fromkeys(names))
    return f"{message}; keys: {', '.join(keys[:MOST] + ['...'] * (len(keys) > MOST))}" if closed and keys else message


def _sized(given: Any, context: dict[str, Any]) -> str:
    """Say how long a text or a list must be."""
    if not given:
        return "must not be empty"
    what = "letters" if isinstance(given, str) else "entries"
    bound = f"at least {context['min_length']:,}" if "min_length" in context else f"at most {context['max_length']:,}"
    return f"must have {bound} {what}, got {len(given):,}"


def _words(listed: str) -> list[str]:
    """Take apart pydantic's `'a', 'b' or 'c'`."""
    return [word.strip(" '") for word in listed.replace(" or ", ",").split(",")]


def _meant_key(loc: tuple[Step, ...], beside: Collection[Any]) -> str:
    """Guess which key was meant, of the same block or of that name in another one; else say what there is."""
    blocks = list(_followed(loc))[-1].blocks
    if having := [block for block in blocks if loc[-1] in block.model_fields]:  # others are told by what they demand
        theirs = {name for block in having for name in _demanded(block)}
        others = [name for block in blocks if block not in having for name in _demanded(block)]
        without = [name for name in others if name in beside and name not in theirs]
        return f" beside {' and '.join(without)}"
    known = [name for block in blocks for name in block.model_fields]
    near = meant(loc[-1], known)
    if near:
        return near
    places = [
        f"{name}.{loc[-1]}"
        for name, field in Workload.model_fields.items()
        if any(loc[-1] in block.model_fields for block in _blocks(field.annotation))
    ]
    return f" (did you mean {' or '.join(places)}?)" if places else f"; known: {', '.join(dict.fromkeys(known))}"


def _demanded(block: type[BaseModel]) -> list[str]:
    """Return the keys that a block must have."""
    return [name for name, field in block.model_fields.items() if field.is_required()]


class _Step(NamedTuple):
    """One step of a location of pydantic's."""

    name: Step
    tag: bool
    """Whether it is the kind of a block, which pydantic names besides, and no key."""
    blocks: list[type[BaseModel]]
    """The models of which the block may be that it leads into or chooses from."""


def _followed(loc: tuple[Step, ...]) -> Iterator[_Step]:
    """Follow a location through the models."""
    blocks: list[type[BaseModel]] = [Workload]
    entered = False  # a block whose kind is yet to be named
    for name in loc:
        tagged = [block for block in blocks if entered and name in _kinds(block)]
        yield _Step(name, bool(tagged), blocks)
        inner = [
            part
            for block in blocks
            if name in block.model_fields and not tagged
            for part in _blocks(block.model_fields[str(name)].annotation)
        ]
        entered = bool(inner) or (entered and not tagged)
        blocks = tagged or inner or blocks


def _kinds(block: type[BaseModel]) -> tuple[Any, ...]:
    """Return the kinds that a block may say it is of; nothing if it does not say, or may say anything."""
    return get_args(block.model_fields["kind"].annotation) if "kind" in block.model_fields else ()


def _blocks(annotation: Any) -> list[type[BaseModel]]:
    """Return the models that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [block for part in get_args(annotation) for block in _blocks(part)]
