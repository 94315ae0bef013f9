"""`report.html`: one file, no network, that shows where KV memory went and what followed.

The page holds its data (compressed arrays), plotly.js and a little JavaScript of its own.
A content security policy in it forbids every request, and all names reach it as text.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from analysis import GENERATOR
from analysis.metrics import formulas
from analysis.numbers import percentage, short
from analysis.observed import LEDGER_WORDS, SHARES
from analysis.page.document import document
from analysis.page.style import HELP, limits, machine
from analysis.reading import RunDirectory, open_directory
from analysis.rundir import WALL_CLOCK
from analysis.saturation import MEANINGS
from analysis.together import BESIDE, draws, parts, together
from analysis.whole import whole
from analysis.written import PAGE

HERE = Path(__file__).parent
PLOTLY = "(plotly.js)"
"""Stands for it in a template, which hands on what it does not escape; told by identity, as a name may be equal."""
SCRIPTS = ("base", "sort", "data", "plots", "blockmap", "ledger", "pulse", "requests", "compare", "link", "main")


def write_report(directory: RunDirectory | str | Path, out: str | Path | None = None) -> Path:
    """Write the page of one run directory and return its path.

    Args:
        directory: a run directory, or where it is.
        out: the file; `report.html` in the directory if None.

    Raises:
        RunDirectoryError: `directory` is not a run directory, or one of its files cannot be read.

    """
    opened = directory if isinstance(directory, RunDirectory) else open_directory(directory)
    return _write(Path(out) if out is not None else opened.path / PAGE, opened)


def write_joint_report(directories: Sequence[str | Path], out: str | Path) -> Path:
    """Write one page with the runs of several directories as columns (simulated beside measured, say).

    Args:
        directories: run directories that served the same requests.
        out: the file.

    Raises:
        RunDirectoryError: one of them is not a run directory, or two have the same name.

    """
    return _write(Path(out), together([open_directory(path) for path in directories]))


def _write(target: Path, directory: RunDirectory) -> Path:
    """Write a page piece by piece: most of it is plotly.js, of which no copy is needed."""
    pieces = render(directory)
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole(target) as part, part.open("wb") as file:
        file.writelines(pieces)
    return target


def render(directory: RunDirectory) -> Iterator[bytes]:
    """Make the page of one run directory as pieces of UTF-8; plotly.js, five megabytes, is never decoded."""
    page = document(directory)
    template = environment().get_template("report.html.j2")
    pieces: Iterator[str] = template.generate(
        name=directory.name,
        subtitle=subtitle(directory),
        token_kib=_token_kib(directory),
        each=_each(directory),
        findings=page["findings"],
        table=page["table"],
        mix=page["parts"],
        offered=page["offered"],
        hero=page["hero"],
        has_ideal=any(row["kind"] == "ideal" for row in page["table"]),
        shares=SHARES,
        words=LEDGER_WORDS,
        help=HELP,
        formulas=formulas(),
        manifests=[(part.path.name, _settled(part)) for part in parts(directory)],
        assumed=list(dict.fromkeys(note for part in parts(directory) for note in part.manifest.get("notes") or ())),
        verdicts=MEANINGS,
        slo=_beside(limits(part.slo) for part in parts(directory)),
        facts=embed(page["facts"]),
        payloads=[embed(payload) for payload in page["payloads"]],
        style=asset("report.css"),
        scripts=[asset(f"{name}.js") for name in SCRIPTS],
        plotly=PLOTLY,
    )
    plotly = plotly_js()
    return (plotly if piece is PLOTLY else piece.encode() for piece in pieces)


def subtitle(directory: RunDirectory) -> list[str]:
    """Facts about the run, for the line under its name."""
    those = parts(directory)
    names = [part.path.name for part in those if part is not directory]
    if _beside(names) == directory.name:  # as their workloads are called
        names = []
    told = [_beside(facts) for facts in (names, map(_machine, those), map(_pool, those), map(_requests, those))]
    served = draws(directory)
    if len(served) > 1 and len(set(served.values())) == 1:
        told[-1] += ", the same for every allocator"
    return [*filter(None, told), _beside(map(_seed, those))]


def _beside(facts: Iterable[str]) -> str:
    """Join what several directories say of one thing; once what they all say."""
    return BESIDE.join(dict.fromkeys(filter(None, facts)))


def _requests(directory: RunDirectory) -> str:
    """Say how many requests were served; nothing without runs."""
    totals = [entry["requests"]["total"] for entry in directory.summary()[:1]]
    return "".join(f"{total:,} request{'s' if total != 1 else ''}" for total in totals)


def _seed(directory: RunDirectory) -> str:
    repeat = int(directory.manifest.get("repeat", 1))
    times = f", {repeat} replications (timelines show the first)" if repeat > 1 else ""
    return f"seed {directory.manifest.get('seed', 0)}{times}"


def _settled(directory: RunDirectory) -> dict[str, Any]:
    """Return the manifest without what another run of the same file would not repeat, and without its list of files."""
    return {key: value for key, value in directory.manifest.items() if key not in (*WALL_CLOCK, "written")}


def _machine(directory: RunDirectory) -> str:
    """Name the model and the device; empty if the manifest does not."""
    model, device = (directory.manifest.get(part) or {} for part in ("model", "device"))
    known = model.get("name") and device.get("name")
    return machine(model["name"], device["name"], _gpus(directory)) if known else ""


def _gpus(directory: RunDirectory) -> int:
    """How many GPUs share the model; 1 if the manifest does not say."""
    return int((directory.manifest.get("workload", {}).get("model") or {}).get("tensor_parallel", 1))


def _each(directory: RunDirectory) -> str:
    """Of what sizes are, where several GPUs share the model."""
    return " on each GPU" if _gpus(directory) > 1 else ""


def _pool(directory: RunDirectory) -> str:
    """Say how large the pool is, the largest one if they differ; empty without runs."""
    size = max((run.pool_bytes for run in directory.runs), default=0)
    token = (directory.manifest.get("model") or {}).get(
        "kv_bytes_per_token"
    )  # a slot of the ledger may be a part of it
    slots = f", {size // token:,} token slots" if token else ""
    return f"KV pool of {_bytes(size)}{_each(directory)}{slots}" if size else ""


def _bytes(size: int) -> str:
    """Write a size in the largest unit of which it is a tenth."""
    units = (("GiB", 30), ("MiB", 20), ("KiB", 10))
    unit, power = next((one for one in units if 10 * size >= 1 << one[1]), units[-1])
    return f"{size / (1 << power):.3g} {unit}"


def _token_kib(directory: RunDirectory) -> float | None:
    """KiB that a token takes; None where that depends on the layer, so that a slot of the ledger is a part of it."""
    token = (directory.manifest.get("model") or {}).get("kv_bytes_per_token")
    slots = {run.facts["block_bytes"] / run.facts["block_size"] for run in directory.runs}
    return token / 1024 if token and slots == {token} else None


def embed(value: Any) -> str:
    """JSON that may stand in a script element whatever strings it holds."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def asset(name: str) -> str:
    """Text of a file of the page."""
    return (HERE / "assets" / name).read_text(encoding="utf-8")


def plotly_js() -> bytes:
    """The plotly.js that comes with the installed plotly, which is found but not imported: that takes 0.2 s."""
    spec = find_spec("plotly")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("plotly is not installed, and with it the plotly.js of the page")
    return Path(spec.submodule_search_locations[0], "package_data", "plotly.min.js").read_bytes()


def environment() -> Any:
    """Templates of the pages; everything they are given is escaped."""
    from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined  # noqa: PLC0415  (only pages need it)

    compiled = HERE / "templates" / "__pycache__"  # where Python keeps what it compiles
    keep = not sys.dont_write_bytecode and os.access(compiled.parent, os.W_OK)
    if keep:
        compiled.mkdir(exist_ok=True)
    environment = Environment(
        bytecode_cache=FileSystemBytecodeCache(str(compiled)) if keep else None,
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": short, "percentage": percentage, "prose": prose}
    environment.globals["generator"] = GENERATOR
    return environment


def prose(text: str) -> str:
    """Write a sentence as HTML: escaped, what stands in backquotes as code, and arrows that do not break."""
    parts = _escaped(text.replace(" -> ", " → ")).split("`")
    if len(parts) % 2 == 0:  # a quote that is not closed
        return "`".join(parts)
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))


def _escaped(text: str) -> str:
    """Do `html.escape` but for quotation marks; that module brings a table of two thousand names of letters along."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
