"""The variants of a workload: the same file with some changes, each a workload of its own.

Changes are applied to the resolved file, so that a variant lists only what differs, and the result is
checked like any other file when the workload is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workloads.document import Document
from workloads.labels import named, places
from workloads.schema import Workload

if TYPE_CHECKING:
    from workloads.published import Variant


def vary(workload: Workload, variant: Variant) -> Workload:
    """Make the workload of one variant: named after both, with the variant's published figures.

    Raises:
        WorkloadError: a change leads nowhere.
        ValidationError: what comes out is no workload.

    """
    data = workload.resolved()
    for key in ("variants", "remarks", "expect"):
        data.pop(key)
    data["name"] = f"{workload.name}, {variant.label}"
    document = Document("", variant.label)
    document.data = data
    for dotted, value in variant.set.items():
        source = f"variants: {variant.label}: {dotted}"
        for where in places(dotted, named(data["allocators"]), source):
            document.put(where, value, source)
    data["expect"] = {
        label: {name: figure.model_dump(exclude_none=True) for name, figure in figures.items()}
        for label, figures in variant.expect.items()
    }
    return Workload.model_validate(data)
