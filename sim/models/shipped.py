"""Finding a model's config.json: shipped with the simulator, or the user's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sim.errors import UserError, suggest
from workloads.paths import is_file, is_folder, is_there, led
from workloads.values import shown

MODELS = Path(__file__).parent / "configs"
CONFIG = "config.json"
"""The file of a model's folder that says what its geometry is."""


def shipped_models() -> tuple[str, ...]:
    """Names of the geometries that come with the simulator."""
    return tuple(sorted(path.stem for path in MODELS.glob("*.json")))


def path_of(name: str, base_dir: Path | str) -> Path:
    """Return where a model's files are: from `base_dir` on, or where the workload's loader has found them already."""
    path, found = led(base_dir, name), led("", name)
    return found if "/" in name and is_there(found) and not is_there(path) else path


def read_config(name: str, base_dir: Path | str = ".") -> tuple[str, dict[str, Any]]:
    """Read the config.json of a shipped model, of a path, or of a directory that holds one.

    A shipped name wins over a file of the same name; write `./name` for the file.

    Returns:
        how to name it in reports and errors, and the parsed file.

    Raises:
        UserError: not found, not readable, or not a JSON object.

    """
    shipped = MODELS / f"{name.lower()}.json"
    if name.lower() in shipped_models():
        return shipped.stem, json.loads(shipped.read_text(encoding="utf-8"))
    path = path_of(name, base_dir)
    if is_folder(path):
        path = path / CONFIG
    if not is_file(path):
        shipped_names = shipped_models()
        if "/" in name or name.endswith(".json"):
            of_hub = name.rpartition("/")[2].lower()  # as in meta-llama/Llama-3.1-8B
            hint = suggest(of_hub, shipped_names) if of_hub != CONFIG else ""
            raise UserError(f"model: {path} does not exist (wanted a Hugging Face config.json){hint}")
        hint = f"{suggest(name, shipped_names)}; shipped are {', '.join(shipped_names)}"
        raise UserError(f"model: {shown(name)} is neither shipped nor the path of a config.json{hint}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"model: {path}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"model: {path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from None
    except ValueError as error:
        raise UserError(f"model: {path}: not JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"model: {path}: wanted a JSON object, as in a Hugging Face config.json")
    return str(path), values
