"""The first thing anybody sees: `--help`, at once, and one line for a command line that makes no sense."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import pytest

from allocators.compiled import active
from sim import cli
from sim.cli import main
from sim.cli.app import FAULT, INTERRUPTED
from sim.cli.arguments import arguments, call
from sim.cli.commands import COMMANDS, find, function
from sim.cli.help import described
from sim.cli.topics import TOPICS

if TYPE_CHECKING:
    from collections.abc import Callable

HEAVY = {"numpy", "pandas", "pyarrow", "plotly", "scipy", "torch", "pydantic", "simpy", "ruamel", "transformers"}


@dataclass(frozen=True)
class Reading:
    """Options of several commands."""

    settings: Annotated[tuple[str, ...], "--set"] = ()
    count: int | None = None


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, command in COMMANDS.items():
        assert name in text
        assert command.summary[:40] in text


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from sim.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {name.partition(".")[0] for name in done.stderr.split()} & HEAVY


def test_the_command_line_is_there_before_the_allocators_are() -> None:
    """They refuse to be imported if they have changed since they were compiled; `main` says so in one line."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys, sim.cli; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    assert "allocators" not in done.stdout.split()


def test_an_interrupt_while_modules_are_imported_is_one_line() -> None:
    code = """
import sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "argparse":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from sim.cli import main
sys.exit(main(["--help"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (INTERRUPTED, "interrupted\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    if name == "trace":  # which has commands of its own
        assert COMMANDS[name].summary in shown
    else:
        assert " ".join(described(function(COMMANDS[name]))[0].split()) in shown
        assert "--json" in shown


@pytest.mark.parametrize("name", ["describe", "fit", "convert"])
def test_every_command_about_traces_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--json" in shown
    assert "--on-bad-rows" in shown


@pytest.mark.parametrize(
    "name", [*(name for name in COMMANDS if name != "trace"), "trace describe", "trace fit", "trace convert"]
)
def test_every_argument_is_explained(name: str) -> None:
    _, command, rest = find(name.split(), "kvsim")
    assert not rest
    about, docs = described(function(command))
    assert about
    for argument in arguments(function(command)):
        assert docs[argument.name]


def test_help_shows_the_defaults_that_say_something(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capacity", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert (
        "--precision FLOAT The answer lies between two rates that differ by at most this share. [default: 0.02]"
        in shown
    )
    assert "[default: True]" in shown
    assert "--quiet Show no progress. --json" in shown
    assert "None" not in shown


def test_help_breaks_its_lines_where_the_terminal_ends(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["sweep", "--help"]) == 0
    assert "a cluster that runs, whose machines have kvsim and the data files." in capsys.readouterr().out


@pytest.mark.parametrize("line", ["run --help", "run -h", "--help run", "run a --ouz --help", "run --out --help"])
def test_help_is_given_wherever_it_is_asked_for(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 0
    assert capsys.readouterr().out.startswith("Usage: kvsim run [OPTIONS] FILE\n")


@pytest.mark.parametrize(("line", "usage"), [("", "kvsim COMMAND"), ("trace", "kvsim trace COMMAND")])
def test_what_names_no_command_gets_their_list(line: str, usage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 0
    assert capsys.readouterr().out.startswith(f"Usage: {usage}\n")


def test_the_installed_script_is_what_is_called_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    (installed,) = entry_points(group="console_scripts", name="kvsim")
    assert installed.load() is cli.script
    run: list[Callable[[], int]] = []
    monkeypatch.setattr(cli, "whole", run.append)
    monkeypatch.setattr("sys.argv", ["kvsim", "--no-such-option"])
    cli.script()
    assert run[0]() == 2, "the command line"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == version("kvsim") + " (compiled)" * active()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("rum", "kvsim: unknown command rum (did you mean run?); commands: " + ", ".join(COMMANDS)),
        ("--versoin", "kvsim: unknown option --versoin (did you mean --version?)"),
        (
            "trace descibe",
            "kvsim trace: unknown command descibe (did you mean describe?); commands: describe, fit, convert",
        ),
        ("run", "kvsim run: FILE is missing"),
        ("run a b", "kvsim run: unexpected argument b"),
        ("run a --set b=1 c=2", "kvsim run: unexpected argument c=2; each key=value needs an option of its own"),
        ("run a --ouz x", "kvsim run: unknown option --ouz (did you mean --out?)"),
        ("run a --out", "kvsim run: --out needs a value"),
        ("compare a b --against x", "--against x: give one run directory; of two, allocators are matched by label"),
        ("run a --seed 1.5", "kvsim run: --seed 1.5: must be a whole number"),
        ("run a --seed x", "kvsim run: --seed x: must be a whole number"),
        ("run a --repeat=two", "kvsim run: --repeat two: must be a whole number"),
        ("run a --quiet=x", "kvsim run: --quiet takes no value"),
        ("capacity a --no-curves=x", "kvsim capacity: --curves/--no-curves takes no value"),
        ("run a --seed 1 --seed 2", "kvsim run: --seed is given 2 times"),
        ("run a --out -x", "kvsim run: --out needs a value"),
        ("run a --ou x", "kvsim run: unknown option --ou (did you mean --out?)"),
        ("capacity a --no-curve", "kvsim capacity: unknown option --no-curve (did you mean --no-curves?)"),
        ("run a -- --out", "kvsim run: unexpected argument --out"),
        ("run -- -x", "-x: no such file or preset; `list presets` shows them"),
        ("export a", "kvsim export: --to is missing"),
        ("report", "kvsim report: DIR is missing"),
        ("trace convert a", "kvsim trace convert: OUT is missing"),
        ("capacity a --precision x", "kvsim capacity: --precision x: must be a number"),
        ("sweep a --backend rai", "kvsim sweep: --backend rai: must be one of loky, ray, dask (did you mean ray?)"),
        ("list modls", "kvsim list: TOPIC modls: must be one of " + ", ".join(TOPICS) + " (did you mean models?)"),
    ],
)
def test_a_command_line_that_makes_no_sense(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == FAULT
    assert capsys.readouterr() == ("", message + "\n")


def test_a_signature_says_what_a_command_takes() -> None:
    def command(
        file: str,
        others: Annotated[tuple[Path, ...], "DIR"] = (),
        /,
        *,
        to: Literal["csv", "json"] | None = None,
        after: float = 0.0,
        pages: bool = True,
        reading: Reading = Reading(),
    ) -> tuple[object, ...]:
        return file, others, to, after, pages, reading

    def called(line: str) -> tuple[object, ...]:
        return call(command, line.split(), "kvsim")

    assert called("a") == ("a", (), None, 0.0, True, Reading())
    assert called("--to=csv a b --no-pages c") == ("a", (Path("b"), Path("c")), "csv", 0.0, False, Reading())
    assert called("a --after -1.5 --count -2 -- -b")[1:4:2] == ((Path("-b"),), -1.5)
    assert called("a --set x=1 --count 3 --set y=-2")[5] == Reading(("x=1", "y=-2"), 3)
    assert called("- --set=-x")[::5] == ("-", Reading(("-x",)))
