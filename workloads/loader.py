"""From a YAML file to a `Workload`, or to a list of faults with line and column.

    workload.yaml:7:5: allocators.0.block_sise: unknown key (did you mean block_size?)

All faults of a file are reported at once, each with its place in the file and its dotted path (`workloads.faults`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from allocators.options import meant
from workloads import faults
from workloads.document import Document, read
from workloads.errors import WorkloadError
from workloads.labels import named, part_names, places, steps
from workloads.schema import PRESETS, Workload
from workloads.variants import changed, validated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workloads.published import Variant


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


def place(path: str | Path, overrides: Sequence[str], dotted: str, variant: str | None = None) -> str | None:
    """Return where `dotted.path` stands in a file that `load` takes, as `file:line:col`; None if it does not.

    For faults that only show when the workload is resolved: an unknown model, say.  An override of something
    inside is likelier at fault than the file, and so is what the variant of this label changes.
    """
    if variant is not None:
        document, folder = open_document(path, overrides)
        workload = parse(document, folder)
        one = next(one for one in workload.variants if one.label == variant)
        return changed(workload, one, document).where(steps(dotted)).text
    for setting in reversed(overrides):
        key, _, source = _taken_apart(setting)
        if f"{key}.".startswith(f"{dotted}."):
            return source
    document, _ = open_document(path, overrides)
    where = steps(dotted)
    return document.where(where).text if isinstance(document.data, dict) and where[0] in document.data else None


def open_document(path: str | Path, overrides: Sequence[str]) -> tuple[Document, Path]:
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
    data = document.data if isinstance(document.data, dict) else {}
    found = places(key, named(data.get("allocators")), source, part_names(data.get("requests")))
    for where in reversed(found):  # so that taking one out moves none of those that are still to come
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
        workload = Workload.model_validate(document.data, context={"folders": (folder,)})
    except ValidationError as error:
        raise WorkloadError(*faults.lines(document, error)) from None
    wrong = [line for variant in workload.variants for line in _of_variant(document, folder, workload, variant)]
    if wrong:
        raise WorkloadError(*wrong)
    return workload


def _of_variant(document: Document, folder: Path, workload: Workload, variant: Variant) -> list[str]:
    """Say what is wrong with a variant, as of the file itself."""
    try:
        varied = changed(workload, variant, document)
        validated(varied, folder)
    except WorkloadError as error:
        return list(error.lines)
    except ValidationError as error:
        return faults.lines(varied, error, f"variants: {variant.label}: ")
    return []
