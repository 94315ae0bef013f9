"""The variants of a workload: the same file with some changes, each a workload of its own.

Changes are applied to what the file sets, as those of the command line are, and the result is checked like any
other file when the workload is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from workloads.document import Document, Origin, said
from workloads.labels import named, part_names, places
from workloads.schema import Workload

if TYPE_CHECKING:
    from workloads.published import Variant

HERE = Path()


def vary(workload: Workload, variant: Variant, folder: Path = HERE) -> Workload:
    """Make the workload of one variant: named after both, with the variant's published figures.

    Args:
        workload: the file.
        variant: one of its variants.
        folder: what file names in the variant start from, as in the file.

    Raises:
        WorkloadError: a change leads nowhere.
        ValidationError: what comes out is no workload.

    """
    return validated(changed(workload, variant), folder)


def validated(document: Document, folder: Path) -> Workload:
    """Make a workload of a variant's document; file names that the variant has not changed are found already.

    Raises:
        ValidationError: it is none.

    """
    return Workload.model_validate(document.data, context={"folders": (folder, HERE)})


def changed(workload: Workload, variant: Variant, file: Document | None = None) -> Document:
    """Return the document of one variant, unchecked.

    Args:
        workload: the file.
        variant: one of its variants.
        file: what it was read from; faults are then said to be where the change stands in it.

    Raises:
        WorkloadError: a change leads nowhere.

    """
    data = workload.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    for key in ("variants", "remarks", "expect"):
        data.pop(key, None)
    data["name"] = f"{workload.name}, {variant.label}"
    here = ("variants", workload.variants.index(variant)) if file else ()
    document = Document("", file.where(here).text if file else variant.label)
    document.data = data
    for dotted, value in variant.set.items():
        about = f"variants: {variant.label}: {dotted}"
        source = Origin(file, (*here, "set", dotted), about) if file else about
        found = places(dotted, named(data["allocators"]), said(source), part_names(data["requests"]))
        for where in reversed(found):  # as in `loader.override`
            document.put(where, value, source)
    data["expect"] = {
        label: {name: figure.model_dump(exclude_none=True) for name, figure in figures.items()}
        for label, figures in variant.expect.items()
    }
    return document
