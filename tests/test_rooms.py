"""The rooms of the project: who may import what, and that whatever is imported is declared.

import-linter holds the contracts between rooms (pyproject.toml, `lint-imports`); here is what it
cannot say: an allow-list, the packages that a fresh environment would lack, and whether what prose names is there.
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


NAMED = re.compile(r"`((?:allocators|workloads|sim|analysis)(?:\.\w+)+)`")
"""A module of ours, or something in one, as docstrings and pages name it."""


def defined(module: Path) -> set[str]:
    """Names that a module defines or imports, those in its classes with the class before them."""
    names: set[str] = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        names |= bound(node)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{name}" for inner in node.body for name in bound(inner)}
    return names


def bound(node: ast.stmt) -> set[str]:
    """Names that one statement binds."""
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return {alias.asname or alias.name for alias in aliases}
        case ast.Assign(targets=targets):
            return {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()


def is_there(name: str) -> bool:
    """Whether a dotted name leads to a module, or to something that one defines."""
    parts = name.split(".")
    for upto in range(len(parts), 0, -1):
        place, rest = ROOT.joinpath(*parts[:upto]), ".".join(parts[upto:])
        for module in (place.with_suffix(".py"), place / "__init__.py"):
            if module.exists():
                return not rest or rest in defined(module)
    return False


def test_what_docstrings_and_pages_name_is_there() -> None:
    """A module that is moved takes along who imports it, not who speaks of it."""
    rooms = [ROOT / room for room in (*OURS, "tests")]
    pages = [ROOT / "README.md", *(path for room in rooms for end in ("py", "md") for path in room.rglob(f"*.{end}"))]
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in pages
        for name in NAMED.findall(path.read_text(encoding="utf-8"))
        if not is_there(name)
    }
    assert missing == set()
    assert not is_there("sim.nowhere")
    assert not is_there("sim.engine.loop.Nobody")
    assert is_there("allocators.options.Option.fact")
