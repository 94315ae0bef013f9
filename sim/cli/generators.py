"""`list keys` and `list generators`: what a workload file and its `requests` block can say, read off the schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from pydantic import BaseModel

from workloads.distributions import Given
from workloads.docs import field_docs
from workloads.machine import Device, Model
from workloads.schema import Costs, Engine, Telemetry, Workload
from workloads.sharing import Part
from workloads.slo import Slo
from workloads.source import Generated, Mix, Named
from workloads.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Iterator

Row: TypeAlias = dict[str, Any]

CHOICES: dict[str, Any] = {
    "arrivals": Generated.model_fields["arrivals"].annotation,
    "lengths": Generated.model_fields["lengths"].annotation,
    "session": Generated.model_fields["session"].annotation,
    "a quantity": Given,
}
"""What is one of several kinds; where a quantity is asked for, a bare number will do as well."""
BLOCKS: dict[str, type[BaseModel]] = {
    "The file": Workload,
    "model": Model,
    "device": Device,
    "engine": Engine,
    "requests, from a trace": Trace,
    "requests, mixed": Mix,
    "requests, each part of a mix": Named,
    "slo": Slo,
    "telemetry": Telemetry,
    "costs": Costs,
}
"""What has keys of its own, whatever kind of requests and allocators there are."""


def keys() -> list[Row]:
    """List the keys of a workload file but those of generated requests and of allocators."""
    return [{**key, "of": block} for block, cls in BLOCKS.items() for key in _keys(cls)]


def generators() -> list[Row]:
    """List the keys of `requests`, and where one of several kinds is asked for, these and their keys."""
    rows = [
        {"block": name, "kind": None, "what": what, "keys": list(_keys(Part)) if name == "shared" else []}
        for name, what in field_docs(Generated).items()
        if name in Generated.model_fields.keys() - CHOICES.keys()
    ]
    return rows + [
        {"block": block, "kind": kind, "what": _line(cls.__doc__ or ""), "keys": list(_keys(cls))}
        for block, annotation in CHOICES.items()
        for cls in _models(annotation)
        for kind in get_args(cls.model_fields["kind"].annotation)
    ]


def with_keys(row: Row) -> list[Row]:
    """Lay out a kind, and under it its keys."""
    head = {"block": row["block"], "kind": row["kind"], "key": None, "default": None, "what": row["what"]}
    return [head, *({**head, "block": None, "kind": None, **each} for each in row["keys"])]


def _keys(cls: type[BaseModel]) -> Iterator[Row]:
    docs = field_docs(cls)
    for name, field in cls.model_fields.items():
        if name != "kind":
            default = field.default if isinstance(field.default, int | float | str) else None
            yield {"key": name, "default": default, "what": _line(docs.get(name, ""))}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models of a union that have a kind."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if "kind" in annotation.model_fields:
            yield annotation
        return
    for part in get_args(annotation):
        yield from _models(part)


def _line(doc: str) -> str:
    """Return the first paragraph in one line."""
    return " ".join(doc.split("\n\n", maxsplit=1)[0].split())
