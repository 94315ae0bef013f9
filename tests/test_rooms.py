"""The rooms of the project: who may import what, and that whatever is imported is declared.

import-linter holds the contracts between rooms (pyproject.toml, `lint-imports`); here is what it
cannot say: an allow-list, and the packages that a fresh environment would lack.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OURS = ("allocators", "workloads", "sim", "analysis")
FOR_TYPES = "mypy_extensions"
"""Comes with mypy and mypyc, which alone import it."""
DISTRIBUTIONS = {
    **packages_distributions(),
    "pydantic_core": ["pydantic"],  # which requires it, to the very version
    "flashinfer": ["flashinfer-python"],  # installed on machines with a GPU only
}


def imported(folder: str) -> dict[str, set[str]]:
    """Top-level modules that are not ours or Python's, and the files that import them."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in {name.split(".")[0] for name in names} - {*sys.stdlib_module_names, *OURS, "tests", FOR_TYPES}:
                found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    return found


def declared(*extras: str) -> set[str]:
    """Distributions that the project, with these extras, installs by name."""
    optional = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in optional[extra])]
    return {re.split(r"[\[<>=!~; ]", line)[0].lower() for line in lines}


def undeclared(modules: dict[str, set[str]], allowed: set[str]) -> dict[str, set[str]]:
    """Modules that belong to no allowed distribution."""
    return {
        module: files
        for module, files in modules.items()
        if not {name.lower().replace("_", "-") for name in DISTRIBUTIONS.get(module, [module])} & allowed
    }


def test_allocators_import_the_standard_library_and_numpy() -> None:
    assert set(imported("allocators")) == {"numpy"}


@pytest.mark.parametrize("room", OURS)
def test_what_a_room_imports_is_declared(room: str) -> None:
    extras = set(PROJECT["optional-dependencies"]) - {"test"}
    assert undeclared(imported(room), declared(*extras)) == {}


def test_what_tests_import_is_declared() -> None:
    by_hand = {"atheris"}  # tests/workloads/fuzz.py, which is no part of the suite
    assert undeclared(imported("tests"), declared("torch", "text", "trace", "test") | by_hand) == {}


def test_constraints_pin_the_tools_whose_verdict_depends_on_their_version() -> None:
    lines = (ROOT / "tests/constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    assert pinned["torch"] == "2.13.0"
    assert {"ruff", "mypy", "import-linter", "pytest", "hypothesis"} <= set(pinned)


def test_allocators_run_where_only_numpy_is_installed() -> None:
    code = (
        "import sys\n"
        "class Only:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        top = name.partition('.')[0]\n"
        "        if top not in sys.stdlib_module_names and top not in {'allocators', 'numpy', 'kvsim__mypyc'}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Only())\n"
        "from allocators import registry\n"
        "for kind in registry.BUILT_IN:\n"
        "    registry.create(kind, num_blocks=4096, max_model_len=64).check()\n"
        "print(*registry.BUILT_IN)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "paged" in done.stdout.split()
