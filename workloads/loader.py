"""From a YAML file to a `Workload`, or to a list of faults with line and column.

    workload.yaml:7:5: allocators.0.block_sise: unknown key (did you mean block_size?)

All faults of a file are reported at once, each with its place in the file and its dotted
path.  pydantic finds them by path; `workloads.document` knows where a path stands.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from allocators.options import meant
from workloads.document import Document, Place, Step, read
from workloads.errors import WorkloadError
from workloads.labels import named, places, steps
from workloads.schema import PRESETS, Workload
from workloads.values import shown
from workloads.variants import vary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic_core import ErrorDetails


def presets() -> list[str]:
    """Return the names of the shipped workload files."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load(path: str | Path, overrides: Sequence[str] = ()) -> Workload:
    """Read a workload file, or a shipped preset by its bare name.

    Args:
        path: the YAML file; relative file names inside it start from its folder.
        overrides: settings `a.b.c=value` that replace what the file says; values are YAML.  A key that the command line
            has an option for may be written like that, `--seed 3`, and messages name it so.

    Raises:
        WorkloadError: one line for every fault, as `file:line:col: dotted.path: message`.

    """
    return parse(*open_document(path, overrides))


def place(path: str | Path, overrides: Sequence[str], dotted: str) -> str | None:
    """Return where `dotted.path` stands in a file that `load` takes, as `file:line:col`; None if it does not.

    For faults that only show when the workload is resolved: an unknown model, say.  An override of something
    inside is likelier at fault than the file.
    """
    for setting in reversed(overrides):
        key, _, source = _taken_apart(setting)
        if f"{key}.".startswith(f"{dotted}."):
            return source
    document, _ = open_document(path, overrides)
    where = steps(dotted)
    return document.where(where).text if isinstance(document.data, dict) and where[0] in document.data else None


def open_document(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Document, Path]:
    """Read a workload file or preset without validating it.

    Args:
        path: as in `load`.
        overrides: as in `load`.

    Returns:
        The document, and the folder that file names inside it start from.

    Raises:
        WorkloadError: there is no such file, it is not YAML, or an override leads nowhere.

    """
    file = Path(path)
    preset = PRESETS / f"{path}.yaml" if file.name == str(path) else None
    if preset is not None and preset.is_file() and not file.is_file():  # a folder of that name holds its results
        file = preset
    if not file.exists():
        if file.name != str(path):
            raise WorkloadError(f"{path}: no such file")
        raise WorkloadError(f"{path}: no such file or preset{meant(path, presets()) or '; `list presets` shows them'}")
    document = read(file, str(file))
    for setting in overrides:
        override(document, setting)
    return document, file.parent


def override(document: Document, setting: str) -> None:
    """Apply `a.b.c=value`, the value in YAML, or `--key value`; a name that stands for a mapping becomes one.

    Raises:
        WorkloadError: the setting has no value, names no allocator, or leads through something that has no parts.

    """
    key, text, source = _taken_apart(setting)
    if text is None or "" in key.split("."):
        raise WorkloadError(f"{source}: write it as key.key=value")
    value = Document(text, source).data
    held = document.data.get("allocators") if isinstance(document.data, dict) else None
    for where in places(key, named(held), source):
        document.put(where, value, source)


def _taken_apart(setting: str) -> tuple[str, str | None, str]:
    """Take a setting apart: its key, the text of its value if it has one, and how the user wrote it."""
    option = setting.startswith("--")
    key, between, text = setting.removeprefix("--").partition(" " if option else "=")
    return key.strip(), text.strip() if between else None, setting if option else f"--set {setting}"


def parse(document: Document, folder: Path) -> Workload:
    """Validate a document whose relative file names start from `folder`.

    Raises:
        WorkloadError: as in `load`.

    """
    if not isinstance(document.data, dict):
        raise WorkloadError(f"{document.where(()).text}: a workload is a mapping of keys, such as name and requests")
    try:
        workload = Workload.model_validate(document.data, context={"folder": folder})
    except ValidationError as error:
        lines = sorted((_line(document, fault) for fault in error.errors(include_url=False)), key=lambda line: line[0])
        raise WorkloadError(*dict.fromkeys(line for _, line in lines)) from None
    faults = [line for place in range(len(workload.variants)) for line in _variant_faults(document, workload, place)]
    if faults:
        raise WorkloadError(*faults)
    return workload


def _variant_faults(document: Document, workload: Workload, place: int) -> list[str]:
    """Say what is wrong with a variant, at the place in the file where it is."""
    variant = workload.variants[place]
    where = document.where(("variants", place)).text
    try:
        vary(workload, variant)
    except WorkloadError as error:
        return [f"{where}: {line}" for line in error.lines]
    except ValidationError as error:
        return [
            f"{where}: variants: {variant.label}: {'.'.join(map(str, path))}: {worded(fault, fault['type'], context)}"
            for fault in error.errors(include_url=False)
            for context in [fault.get("ctx", {})]
            for whole in [fault["type"] in {"missing", "extra_forbidden"}]  # keys that the file itself does not have
            for path in [_path(workload.resolved(), fault["loc"], whole=whole)]
        ]
    return []


def _line(document: Document, fault: ErrorDetails) -> tuple[Place, str]:
    """Write one fault as `where: dotted.path: message`, after its place."""
    kind, context = fault["type"], fault.get("ctx", {})
    path = _path(document.data, fault["loc"], whole=kind == "missing")
    if kind in {"union_tag_invalid", "union_tag_not_found"} and "kind" in context.get("discriminator", ""):
        path = (*path, "kind")
    dotted, said = ".".join(map(str, path)), worded(fault, kind, context)
    blamed = said.partition(":")[0]  # of what is wrong with the whole: the key that it is about
    if not path and blamed in document.data:
        path = (blamed,)
    where = document.where(path, key=kind in {"extra_forbidden", "unknown_option"})
    if where.text.startswith(f"--{dotted} "):  # an option that has the key's name
        dotted = ""
    return where, f"{where.text}: {dotted + ': ' if dotted else ''}{said}"


def _path(data: Any, loc: tuple[Step, ...], *, whole: bool) -> tuple[Step, ...]:
    """Strip from pydantic's location what is no key of the data: the tags of unions."""
    path: list[Step] = []
    for depth, step in enumerate(loc):
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
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "finite_number": "a finite number",
}


def worded(fault: ErrorDetails, kind: str, context: dict[str, Any]) -> str:
    """Say what is wrong and what would be right."""
    given, message = fault["input"], fault["msg"]
    got = f", got {shown(given)}"
    match kind:
        case "missing":
            return "missing"
        case "extra_forbidden":
            return f"unknown key{_meant_key(fault['loc'])}"
        case "union_tag_invalid":
            known = _words(context["expected_tags"])
            kind = given["kind"]
            message = f"unknown kind {shown(kind)}{meant(kind, known)}; known: {', '.join(known)}"
        case "union_tag_not_found":
            message = "missing" if isinstance(given, dict) else f"must be a mapping with a kind{got}"
        case "literal_error":
            known = _words(context["expected"])
            message = f"must be one of {', '.join(known)}{got}{meant(given, known)}"
        case "value_error":
            message = str(context["error"])
        case _ if kind in _TYPES:
            message = f"must be {_TYPES[kind]}{got}"
        case "string_too_short" | "string_too_long" | "too_short" | "too_long":
            message = _sized(given, context)
        case _ if message.startswith("Input should"):
            message = message.replace("Input should", "must") + got
    return message.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")


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


def _meant_key(loc: tuple[Step, ...]) -> str:
    """Guess which key was meant, of the same block or of that name in another one; else say what there is."""
    blocks = _blocks_at(loc[:-1])
    if having := [block for block in blocks if loc[-1] in block.model_fields]:  # others are told by what they demand
        without = [name for block in blocks if block not in having for name in _demanded(block)]
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


def _blocks_at(loc: tuple[Step, ...]) -> list[type[BaseModel]]:
    """Return the models that the block at a location of pydantic's may be of."""
    blocks: list[type[BaseModel]] = [Workload]
    for step in loc:
        inner = [
            part
            for block in blocks
            if step in block.model_fields
            for part in _blocks(block.model_fields[str(step)].annotation)
        ]
        tagged = [
            block
            for block in blocks
            if "kind" in block.model_fields and step in get_args(block.model_fields["kind"].annotation)
        ]
        blocks = inner or tagged or blocks
    return blocks


def _blocks(annotation: Any) -> list[type[BaseModel]]:
    """Return the models that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [block for part in get_args(annotation) for block in _blocks(part)]
