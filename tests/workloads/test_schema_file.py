"""schema.json is what the models say."""

import json
from typing import Any

from allocators.registry import BUILT_IN
from workloads.jsonschema import FILE, json_schema, text
from workloads.loader import presets
from workloads.schema import PRESETS


def test_schema_json_is_fresh() -> None:
    """If this fails: python -c "from workloads.jsonschema import FILE, text; FILE.write_text(text())"."""
    assert FILE.read_text() == text()


def test_every_allocator_has_an_entry_with_its_options() -> None:
    words, *entries = json_schema()["$defs"]["AllocatorSpec"]["oneOf"]
    assert words == {"enum": [*BUILT_IN]}
    assert [entry["title"] for entry in entries] == list(BUILT_IN)
    for entry in entries:
        assert entry["additionalProperties"] is False
        assert set(entry["properties"]) == {
            "kind",
            "label",
            "scheduler",
            "preemption",
            *BUILT_IN[entry["title"]].options,
        }


def test_every_key_is_described() -> None:
    bare = []

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict):
            for name, value in node.get("properties", {}).items():
                if name != "kind" and "description" not in value:
                    bare.append(f"{path}.{name}")
            for name, value in node.items():
                walk(value, f"{path}.{name}")
        if isinstance(node, list):
            for value in node:
                walk(value, path)

    walk(json_schema(), "")
    assert bare == []


def test_presets_name_the_schema_on_their_first_line() -> None:
    for name in presets():
        first = (PRESETS / f"{name}.yaml").read_text().splitlines()[0]
        assert first == "# yaml-language-server: $schema=../schema.json"
        assert json.loads((PRESETS / "../schema.json").read_text())["title"] == "kvsim workload"
