"""The optional native build: the modules that every step of a run uses, compiled with mypyc.

    KVSIM_COMPILE=1 python -m pip install .        builds a wheel with the extension modules
    KVSIM_COMPILE=1 python -m pip install -e .     puts each of them beside its source
    python -m sim.native                           the same in a checkout, whatever is installed
    python -m sim.native clean                     removes them, as does an editable install without KVSIM_COMPILE

Without this, the sources run as ordinary Python, with the same results.  Compiled modules are one group, in which they
call each other directly; calls to and from other modules work as usual.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from contextlib import chdir
from pathlib import Path
from runpy import run_path
from tempfile import TemporaryDirectory
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # it is there when pip builds, and need not be when we are run by hand
    BuildHookInterface = object  # type: ignore[assignment, misc]  # a class, not a type that may be assigned

ROOT = Path(__file__).parents[1]
ASKED = "KVSIM_COMPILE"
NEEDS = ("mypy>=1.18", "setuptools>=77", "numpy>=2.1", "simpy>=4.1")
"""What compiling requires; the last two for their types."""
LIBRARY = "kvsim"
"""The whole group is in one extension module, `kvsim__mypyc`; those beside the sources only refer to it."""
RECORD = "allocators/compiled.txt"
GROUP = (
    "allocators",
    "sim/engine",
    "sim/schedulers",
    *(f"sim/costs/{name}.py" for name in ("attention", "heat", "host", "load", "model", "moves", "products", "replay")),
    "sim/limits.py",
)
"""The packages and files to compile."""
PLAIN = {
    "allocators/adaptors.py": "traits of what is wrapped take the place of properties",
    "allocators/compiled.py": "the build runs it as it is, and it tells whether the others are compiled",
    "allocators/cuda_caching.py": "it copies objects with what a subclass adds, field by field",
    "allocators/cuda_expandable.py": "its classes extend those",
    "allocators/limiting.py": "it is one of these adaptors",
    "allocators/plugins.py": "it judges strangers' classes, in which nothing need have the type that it should",
    "allocators/registry.py": "likewise",
}
"""Files in those packages that are not compiled, and why."""


class NoCompilerError(Exception):
    """The message says what is missing."""


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]  # of any configuration
    """Lets pip compile, if `KVSIM_COMPILE` is set."""

    def dependencies(self) -> list[str]:
        """What pip must install for the build."""
        return list(NEEDS) if _asked() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the extension modules to a wheel, or put them beside the sources that an editable one leads to."""
        if version == "editable":
            clean()
        if _asked():
            try:
                self._compile(version, build_data)
            except NoCompilerError as error:
                self.app.abort(f"{ASKED}: {error}")

    def _compile(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            build(ROOT)
            return
        self._folder = TemporaryDirectory()  # until `finalize`, for the wheel is written in between
        folder = Path(self._folder.name)
        build(folder)
        for path in folder.rglob("*.*"):
            build_data["force_include"][str(path)] = path.relative_to(folder).as_posix()
        build_data["pure_python"], build_data["infer_tag"] = False, True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Leave nothing behind."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def sources() -> list[str]:
    """List what is compiled, as paths from the root."""
    places = [ROOT / place for place in GROUP]
    found = (path for place in places for path in (place.glob("*.py") if place.is_dir() else [place]))
    paths = sorted(path.relative_to(ROOT).as_posix() for path in found if path.name != "__init__.py")
    return [path for path in paths if path not in PLAIN]


def build(target: Path) -> None:
    """Compile the group; the extension modules, and the record of what they were made from, go to `target`.

    Raises:
        NoCompilerError: there is nothing to compile with.

    """
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    if sys.platform != "win32" and not shutil.which(compiler.split()[0]):
        raise NoCompilerError(f"there is no C compiler ({compiler.split()[0]}); kvsim runs without being compiled, too")
    try:
        from mypyc.build import mypycify  # noqa: PLC0415  (not there in most environments)
        from setuptools import Distribution  # noqa: PLC0415  (comes with mypyc)
        from setuptools.command.build_ext import build_ext  # noqa: PLC0415  (comes with mypyc)
    except ModuleNotFoundError as error:
        raise NoCompilerError(f"{error.name} is not installed; compiling takes {', '.join(NEEDS)}") from error
    with TemporaryDirectory() as folder, chdir(ROOT):
        modules = mypycify(
            ["--config-file=", "--cache-dir=/dev/null", "--ignore-missing-imports", *sources()],
            group_name=LIBRARY,
            target_dir=folder,
            multi_file=True,
            debug_level="0",
            opt_level="1",  # runs are as quick as with 3 to within a hundredth, and compiling takes two thirds
        )
        command = build_ext(Distribution({"name": "kvsim", "ext_modules": modules}))
        command.build_lib, command.build_temp, command.parallel = str(target), folder, os.cpu_count()
        command.ensure_finalized()
        record = target / RECORD
        record.parent.mkdir(exist_ok=True)
        run_path(str(ROOT / "allocators" / "compiled.py"))["write_record"](sources(), record)
        command.run()


def clean() -> None:
    """Remove the extension modules and the record from beside the sources."""
    for path in [ROOT / RECORD, *_built(ROOT)]:
        path.unlink(missing_ok=True)


def _built(folder: Path) -> list[Path]:
    rooms = {Path(), *(Path(source).parent for source in sources())}
    return [path for room in rooms for path in (folder / room).iterdir() if path.suffix in {".so", ".pyd"}]


def _asked() -> bool:
    return os.environ.get(ASKED, "0") not in {"", "0"}


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["clean"]):
        sys.exit("usage: python -m sim.native [clean]")
    clean()
    if not sys.argv[1:]:
        try:
            build(ROOT)
        except NoCompilerError as error:
            sys.exit(str(error))
