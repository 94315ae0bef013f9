"""The optional native build: the same results, what it is made from is what is there, and Python without it.

One test compiles, which takes about a minute, and does everything that needs it, so that a suite on several
processes compiles once.
"""

from __future__ import annotations

import builtins
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = run_path(str(ROOT / "sim" / "native.py"))
ROOMS = ("allocators", "workloads", "sim", "analysis")
WORKLOAD = """
name: compiled
model: tiny-llama
device: {name: h100-80gb, kv_memory_gib: 0.001}
engine: {max_num_seqs: 24, max_model_len: 512}
requests:
  count: 120
  arrivals: {kind: poisson, rate: 900}
  lengths: {kind: uniform, prompt: {min: 4, max: 200}, output: {min: 1, max: 120}}
allocators:
  - {kind: preallocated}
  - {kind: contiguous, reserve: pow2, scheduler: orca}
  - {kind: paged}
  - {kind: paged, prefix_cache: true, scheduler: vllm-v0, preemption: swap, label: swapping}
  - {kind: radix}
  - {kind: virtual, page_kib: 64}
  - {kind: hybrid}
  - {kind: growing, scheduler: static}
  - {kind: ideal}
"""
HOT = "sim/costs/model.py"


def copied(folder: Path) -> Path:
    """A checkout of the sources as they stand, not compiled."""
    unbuilt = shutil.ignore_patterns("*.so", "*.pyd", "compiled.txt", "__pycache__", "recorded")
    for room in (*ROOMS, "tests"):
        shutil.copytree(ROOT / room, folder / room, ignore=unbuilt)
    for file in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / file, folder)
    return folder


def python(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a checkout, with its modules."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTEST_ADDOPTS": "", "COLUMNS": "200", **more}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def run_directory(folder: Path, name: str) -> dict[str, bytes]:
    """Run the workload in a checkout; returns the files of the run without what depends on the clock."""
    (folder / "workload.yaml").write_text(WORKLOAD, encoding="utf-8")
    done = python(folder, "-m", "sim", "run", "workload.yaml", "--out", name, "--quiet")
    assert done.returncode == 0, done.stderr
    files = [path for path in sorted((folder / name).rglob("*")) if path.suffix in {".parquet", ".json"}]
    return {str(path.relative_to(folder / name)): path.read_bytes() for path in files if path.name != "manifest.json"}


def missing() -> str:
    """What is missing for a build, or nothing."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if not shutil.which(compiler):
        return f"there is no C compiler ({compiler})"
    return next((f"{name} is not installed" for name in ("mypyc", "setuptools") if find_spec(name) is None), "")


def test_what_stays_python_is_named_file_by_file() -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "allocators").glob("[!_]*.py")}
    assert modules - {*BUILD["sources"]()} == {*BUILD["PLAIN"]}


@pytest.mark.parametrize("path", BUILD["sources"]())
def test_fields_of_tuples_have_types_that_are_there_at_run_time(path: str) -> None:
    """Compiled modules look them up: names that only a type checker imports would end the import with a KeyError."""
    module = import_module(path.removesuffix(".py").replace("/", "."))
    for cls in vars(module).values():
        if isinstance(cls, type) and hasattr(cls, "_fields") and cls.__module__ == module.__name__:
            names = {re.split(r"\W", str(_word(kind)))[0] for kind in cls.__annotations__.values()}
            assert names <= {*vars(module), *vars(builtins)}


def _word(kind: object) -> str:
    """A type as it is written, if it is one class; a union is not looked up, nor is a callable."""
    word = getattr(kind, "__forward_arg__", kind)
    return word if isinstance(word, str) and "|" not in word and not word.startswith("Callable") else "object"


@pytest.mark.skipif(bool(missing()), reason=missing() or "everything is there")
def test_compiled_it_does_the_same_and_never_runs_sources_that_have_changed(tmp_path: Path) -> None:
    pure = copied(tmp_path / "pure")
    built = python(pure, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path), KVSIM_COMPILE="1")
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert "none-any" not in wheel.name
    compiled = copied(tmp_path / "compiled")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(compiled)

    for folder, ends in ((pure, ".py"), (compiled, sysconfig.get_config_var("EXT_SUFFIX"))):
        loaded = python(folder, "-c", "import sim.engine.loop as loop; print(loop.__file__)").stdout.strip()
        assert loaded.endswith(ends)
        assert loaded.startswith(str(folder))
        assert ("(compiled)" in python(folder, "-m", "sim", "--version").stdout) is (folder == compiled)
    assert run_directory(compiled, "out") == run_directory(pure, "out")
    manifest = json.loads((compiled / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["versions"]["kvsim"].endswith("(compiled)")

    tests = ("tests/engine/test_equality.py", "tests/conformance", "tests/test_paged_machine.py")
    wanted = "equals_the_reference and vllm-v1 or test_verbs and paged or machine and paged"
    done = python(compiled, "-m", "pytest", *tests, "-k", wanted, "-q", "-x", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 100

    with (compiled / HOT).open("a", encoding="utf-8") as source:
        source.write("# changed\n")
    for command in (["run", "workload.yaml"], ["check", "workload.yaml"], ["list", "allocators"], ["--version"]):
        done = python(compiled, "-m", "sim", *command)
        assert done.returncode == 2, command
        assert done.stderr.startswith(f"{HOT} has changed since it was compiled; compile again with `python -m sim.")
        assert done.stderr.count("\n") == 1
    assert python(compiled, "-c", "import allocators").stderr.splitlines()[-1].startswith(f"ImportError: {HOT} has ch")
    assert python(compiled, "-m", "sim.native", "clean").returncode == 0
    assert "(compiled)" not in python(compiled, "-m", "sim", "--version").stdout
    assert not list(compiled.rglob("*.so"))


def test_without_a_compiler_one_line_says_so(tmp_path: Path) -> None:
    checkout = copied(tmp_path / "checkout")
    done = python(checkout, "-m", "sim.native", CC="no-such-compiler")
    assert done.returncode == 1
    assert done.stderr == "there is no C compiler (no-such-compiler); kvsim runs without being compiled, too\n"
    line = ["-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = python(checkout, *line, CC="no-such-compiler", KVSIM_COMPILE="1")
    assert done.returncode == 1
    assert "KVSIM_COMPILE: there is no C compiler (no-such-compiler)" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.whl"))
    assert not list(checkout.rglob("compiled.txt"))
