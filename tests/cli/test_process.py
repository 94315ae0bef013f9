"""The process of a command: what it leaves out at its start and at its end, and what it does not."""

from __future__ import annotations

import subprocess
import sys

import pytest


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_process_ends_when_threads_have_and_libraries_were_told_and_all_is_written() -> None:
    done = _python(
        "import atexit, threading, time\n"
        "from sim.cli.process import whole\n"
        "def command():\n"
        "    atexit.register(print, 'told')\n"
        "    threading.Thread(target=lambda: (time.sleep(0.2), print('waited for'))).start()\n"
        "    print('ran')\n"
        "    return 3\n"
        "whole(command)\n"
    )
    assert (done.returncode, done.stdout.split("\n"), done.stderr) == (3, ["ran", "waited for", "told", ""], "")


def test_nothing_is_taken_apart_after_a_status() -> None:
    code = (
        "from sim.cli.process import whole\n"
        "class Last:\n"
        "    def __del__(self):\n"
        "        print('taken apart')\n"
        "last = Last()\n"
    )
    assert _python(f"{code}whole(lambda: 0)").stdout == ""
    failed = _python(f"{code}whole(lambda: 1 // 0)")
    assert failed.returncode == 1
    assert failed.stdout == "taken apart\n"
    assert failed.stderr.endswith("ZeroDivisionError: integer division or modulo by zero\n")


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [(["--help"], 0, "usage"), (["run", "no-such-file"], 2, "no such file"), (["nothing"], 2, "nothing")],
)
def test_the_status_of_a_command_is_that_of_its_process(words: list[str], status: int, says: str) -> None:
    done = subprocess.run([sys.executable, "-m", "sim", *words], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert says in (done.stderr if status else done.stdout).lower()


def test_modules_that_no_run_uses_run_once_they_are_asked_for() -> None:
    done = _python(
        "from sim.cli.process import UNUSED, settle\n"
        "settle()\n"
        "import sys, numpy, pyarrow\n"
        "lazy = {name: type(sys.modules[name]).__name__ for name in UNUSED if name in sys.modules}\n"
        "assert numpy.ndarray.sum.__doc__ is None\n"
        "assert sys.modules['numpy._core._add_newdocs'].add_newdoc\n"
        "assert 'sum' in numpy.ndarray.sum.__doc__\n"
        "print(*sorted(set(lazy.values())), 'numpy._core._add_newdocs' in lazy)\n"
    )
    assert (done.stdout, done.stderr) == ("_LazyModule True\n", "")
