"""The JSON Schema of workload files, with which editors complete and check them.

    # yaml-language-server: $schema=schema.json

It is made from the models and from the allocators' declared options; `schema.json` beside
this file is its output for the built-in allocators, and a test keeps it fresh.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from allocators.docs import class_doc
from allocators.options import Option
from allocators.registry import BUILT_IN
from workloads.schema import Workload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allocators.base import Allocator

FILE = Path(__file__).parent / "schema.json"
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def json_schema(kinds: Mapping[str, type[Allocator]] = BUILT_IN) -> dict[str, Any]:
    """Return the schema for workload files that may name these allocators."""
    schema = Workload.model_json_schema()
    _, common = schema["$defs"]["AllocatorSpec"]["anyOf"]  # the first is a bare word
    schema["$defs"]["AllocatorSpec"] = {
        "description": common["description"],
        "oneOf": [{"enum": [*kinds]}, *(_allocator(kind, cls, common["properties"]) for kind, cls in kinds.items())],
    }
    return {**schema, "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "kvsim workload"}


def text(kinds: Mapping[str, type[Allocator]] = BUILT_IN) -> str:
    """Return the schema as the text of a file."""
    return json.dumps(json_schema(kinds), indent=1, sort_keys=True) + "\n"


def _allocator(kind: str, cls: type[Allocator], common: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the entry of one allocator."""
    summary = (class_doc(cls) or kind).strip().split("\n", 1)[0]
    return {
        "additionalProperties": False,
        "description": summary,
        "properties": {
            **common,
            "kind": {"const": kind, "description": summary},
            **{name: _option(option) for name, option in cls.options.items()},
        },
        "required": ["kind"],
        "title": kind,
        "type": "object",
    }


def _option(option: Option) -> dict[str, Any]:
    """Describe one option."""
    kind = _TYPES[option.type]
    rules: dict[str, Any] = {"type": [kind, "null"] if option.default is None else kind}
    if option.choices:
        rules = {"enum": [*option.choices, *([None] if option.default is None else [])]}
    if option.minimum is not None:
        rules["minimum"] = option.minimum
    if option.maximum is not None:
        rules["maximum"] = option.maximum
    return {**rules, "default": option.default, "description": option.doc}
