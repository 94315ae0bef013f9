"""`new` and `schema`: a workload file to begin with, and what lets an editor complete it."""

from __future__ import annotations

import sys
from pathlib import Path

from allocators.registry import kinds
from analysis.whole import write_text
from sim.cli.output import emit, print_json, terminal
from sim.errors import UserError, suggest
from sim.results.claims import demand_new
from workloads.jsonschema import json_schema, text
from workloads.loader import presets
from workloads.schema import PRESETS

SCHEMA_FILE = "workload.schema.json"
MODELINE = "# yaml-language-server: $schema="


def new(preset: str = "quickstart", /, *, out: Path | None = None, json: bool = False) -> None:
    """Start a workload file from a shipped preset.

    Args:
        preset: Name of the preset.
        out: File to write, and beside it the schema for editors; standard output if not given.
        json: Print one JSON document.

    """
    starter = starting_from(preset)
    written = [] if out is None else _write(out, starter)
    if json:
        emit({"preset": preset, "text": starter, "written": [str(path) for path in written]})
    elif out is None:
        sys.stdout.write(starter)
    else:
        console = terminal()
        console.say(f"Written: {', '.join(map(str, written))}")


def schema(*, _json: bool = False) -> None:
    """Print the JSON Schema of workload files, installed plug-ins included.

    Args:
        _json: As on every command; the schema is JSON in any case.

    """
    print_json(json_schema(kinds()))


def starting_from(preset: str) -> str:
    """Return the text of a preset, its first line naming the schema that will lie beside it.

    Raises:
        UserError: there is no such preset.

    """
    if preset not in presets():
        raise UserError(f"{preset}: no such preset{suggest(preset, presets()) or '; `list presets` shows them'}")
    lines = (PRESETS / f"{preset}.yaml").read_text("utf-8").splitlines()
    body = [line for line in lines if not line.startswith(MODELINE)]
    return "\n".join([f"{MODELINE}{SCHEMA_FILE}", *body]) + "\n"


def _write(out: Path, starter: str) -> list[Path]:
    """Write the file, which must be new, and the schema, which is ours to replace."""
    demand_new(out)
    write_text(out, starter)
    schema_file = out.parent / SCHEMA_FILE
    write_text(schema_file, text(kinds()))
    return [out, schema_file]
