"""`trace`: what a recorded workload is like, in another format, and as a generator of requests like its."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from analysis.fit_page import fit_page
from analysis.numbers import short
from analysis.whole import write_text
from sim.cli.output import add, emit, lay_out, listing, terminal
from sim.errors import UserError
from sim.results.claims import demand_new, demand_page
from workloads.docs import field_docs
from workloads.errors import WorkloadError
from workloads.faults import worded
from workloads.fit import check
from workloads.fit import fit as fit_generator
from workloads.fit_plot import panels
from workloads.streams import stream
from workloads.trace import Trace
from workloads.traces import find, read
from workloads.traces.convert import Target
from workloads.traces.convert import convert as convert_trace
from workloads.traces.describe import Spread
from workloads.traces.describe import describe as describe_trace

if TYPE_CHECKING:
    from rich.table import Table

    from workloads.fit import Check
    from workloads.traces.describe import Description


@dataclass(frozen=True)
class Reading:
    """How a trace is read: keys of a workload's `trace` block, under the same names."""

    format: str = "auto"
    """Format of the file, as in: list traces. Told by its content if not given."""
    arrival_column: str | None = None
    """Column of arrival times, of a table of your own that calls it something uncommon."""
    prompt_column: str | None = None
    """Column of prompt lengths, likewise."""
    output_column: str | None = None
    """Column of output lengths, likewise."""
    count: int | None = None
    """Only the first so many requests."""
    on_bad_rows: Literal["error", "skip"] = "error"
    """Whether rows that make no sense are an error, or are left out with a note."""
    block_size: int | None = None
    """Tokens that one block hash names, where it is not the format's usual number."""
    only_model: str | None = None
    """Only requests of this model."""
    turns: Literal["first", "all"] = "first"
    """Of conversations without times: first exchanges, or every answer with its history."""
    tokenizer: str | None = None
    """A tokenizer.json to count the tokens of text."""

    def block(self, file: str) -> Trace:
        """Make the block.  Raises WorkloadError with a line for each fault."""
        try:
            if self.format != "auto":
                find(self.format)
            return Trace.model_validate({"trace": file, **asdict(self)}, context={"folders": (Path(),)})
        except ValidationError as error:
            faults = error.errors(include_url=False)
            lines = [
                f"{_option('.'.join(map(str, one['loc'])))}: {worded(one, one['type'], one.get('ctx', {}))}"
                for one in faults
            ]
            raise WorkloadError(*lines) from None
        except WorkloadError as error:
            raise UserError(f"--format: {error}") from None


def _option(key: str) -> str:
    """Name a key of the block as it was given: an option, but for the file itself."""
    return key if key == "trace" else f"--{key.replace('_', '-')}"


def describe(file: str, /, *, reading: Reading = Reading(), json: bool = False) -> None:
    """Sum a trace up: arrivals, lengths, and how much its prompts share.

    Args:
        file: Recorded requests; gzipped or not.
        reading: How the file is read.
        json: Print one JSON document instead of tables.

    """
    found = describe_trace(reading.block(file))
    if json:
        emit(found.as_dict())
        return
    console = terminal()
    for table in (_facts(found), _lengths(found)):
        lay_out(console, table)
    for note in found.notes:
        console.say(note, style="dim")


def fit(
    file: str,
    /,
    *,
    reading: Reading = Reading(),
    page: Path | None = None,
    json: bool = False,
) -> None:
    """Print a requests block that makes requests like the trace's, without being the trace.

    Applications that have system prompts of their own become parts of a mix. How near it comes is told on standard
    error.

    Args:
        file: Recorded requests; gzipped or not.
        reading: How the file is read.
        page: Write an HTML page that shows trace and fit beside each other.
        json: Print one JSON document.

    """
    block = reading.block(file)
    if page is not None:
        demand_page(page)
        page.parent.mkdir(parents=True, exist_ok=True)
    requests = read(block, stream(0, "spread"))
    fitted = fit_generator(requests)
    checks = check(requests, fitted)
    if page is not None:
        charts = [panel._asdict() for panel in panels(requests, fitted)]
        write_text(page, fit_page(Path(file).name, charts, checks, fitted.notes, fitted.yaml()))
    if json:
        rows = [{name: _finite(value) for name, value in asdict(one).items()} for one in checks]
        emit({"requests": fitted.block, "notes": fitted.notes, "checks": rows, "page": page and str(page)})
    else:
        sys.stdout.write(fitted.yaml())
        console = terminal(stderr=True)
        lay_out(console, _checks(checks))
        for words in requests.notes:
            console.say(words, style="dim")


def convert(file: str, out: Path, /, *, to: Target = "csv", reading: Reading = Reading(), json: bool = False) -> None:
    """Write a trace in another format.

    Args:
        file: Recorded requests; gzipped or not.
        out: File to write; gzipped if its name ends in .gz.
        to: Format.
        reading: How the file is read.
        json: Print one JSON document.

    """
    demand_new(out)
    requests = read(reading.block(file), stream(0, "spread"))
    out.parent.mkdir(parents=True, exist_ok=True)
    lost = convert_trace(requests, out, to)
    if json:
        emit({"written": str(out), "requests": len(requests), "notes": list(requests.notes), "lost": lost})
        return
    console = terminal()
    console.say(f"Written: {out}, {len(requests):,} requests")
    for words in (*requests.notes, *(f"not kept: {words}" for words in lost)):
        console.say(words, style="dim")


def _facts(found: Description) -> Table:
    """Everything that is one number."""
    table = listing({"what": "", "is": "", "means": ""}, {"is"}, title=f"{found.format} trace")
    told = field_docs(type(found))
    for name, value in asdict(found).items():
        if isinstance(value, int | float):
            add(table, name, f"{value:,}" if isinstance(value, int) else f"{value:,.4g}", told[name])
    return table


def _lengths(found: Description) -> Table:
    """Everything that is a distribution."""
    names = list(Spread.__dataclass_fields__)
    table = listing({"": "", **{name: name for name in names}}, names)
    for name, value in vars(found).items():
        if isinstance(value, Spread):
            add(table, name, *(f"{getattr(value, column):,.1f}" for column in names))
    return table


def _checks(checks: list[Check]) -> Table:
    """Compare trace and fit."""
    columns = {
        "what": "",
        "trace": "trace",
        "fitted": "fitted",
        "distance": "KS\ndistance",
        "critical": "5 % critical\nvalue",
    }
    table = listing(columns, {"trace", "fitted", "distance", "critical"}, title="Trace beside fit (means)")
    for one in checks:
        values = (one.trace, one.fitted, one.distance, one.critical)
        add(table, one.quantity, *map(short, values))
    return table


def _finite(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else value
