"""`check`: what a run would do, without doing it."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table
from rich.text import Text

from allocators.answers import Reason
from analysis.numbers import listed
from sim.cli.output import add, emit, lay_out, listing, terminal
from sim.cli.source import Changes
from sim.costs.calibration import find_calibration, load_origin
from sim.costs.coefficients import Coefficients
from sim.results.folders import demand_folders
from sim.setup import prepare, prepare_variants
from sim.vain import caches_in_vain
from sim.variants import demand_variants
from workloads.document import as_file

if TYPE_CHECKING:
    from sim.case import Case
    from sim.setup import Setup
    from workloads.requests import Ints, Requests


def check(file: str, /, *, changes: Changes = Changes(), repeat: int | None = None, json: bool = False) -> None:
    """Check a workload file and show what a run would use.

    Args:
        file: Workload file, or the name of a preset.
        changes: As of every command that takes a workload file.
        repeat: Replications instead of the file's.
        json: Print one JSON document instead of tables.

    """
    workload, base = changes.read(file, repeat)
    with changes.placed(file):
        setup = prepare(workload, base)
        demand_folders((case.label for case in setup.cases), "allocators")
        variants = prepare_variants(workload, base)
        demand_folders(variants, "variants")
        demand_variants(variants)
        requests = setup.requests()
    if json:
        emit(document(setup, requests))
    else:
        _print(setup, requests)


def document(setup: Setup, requests: Requests) -> dict[str, Any]:
    """Everything that is resolved before a run, as plain data."""
    return {
        "workload": setup.workload.resolved(),
        "model": {
            "name": setup.geometry.name,
            "parameters": setup.geometry.parameters,
            "weight_bytes": setup.geometry.weight_bytes,
            "kv_bytes_per_token": setup.geometry.kv_bytes_per_token,
            "kv_dtype": setup.geometry.kv_dtype,
            "max_model_len": setup.geometry.max_model_len,
            "tensor_parallel": setup.geometry.tensor_parallel,
        },
        "device": asdict(setup.device),
        "notes": setup.notes,
        "requests": {
            **_means(requests, np.arange(len(requests))),
            **dict(zip(("refused_as_too_long", "cut_short"), _too_long(setup, requests), strict=True)),
            "notes": [*requests.notes, *caches_in_vain(requests, setup.cases)],
            **({"parts": parts} if (parts := _parts(requests)) else {}),
        },
        "runs": [
            {
                "allocator": case.label,
                "kind": case.spec.kind,
                "scheduler": case.scheduler,
                "pool": _pool(case),
                "longest_at_once": case.longest_at_once(),
                "refused": dict(case.refusals(requests)),
            }
            for case in setup.cases
        ],
        "costs": asdict(setup.coefficients),
        "captured_steps": len(setup.captured),
    }


def _parts(requests: Requests) -> dict[str, dict[str, Any]]:
    """Sum up each part of a mix; none if there is no mix."""
    return {name: _means(requests, np.flatnonzero(requests.part == at)) for at, name in enumerate(requests.parts)}


def _means(requests: Requests, rows: Ints) -> dict[str, Any]:
    """Sum up some of the requests; where there is none there is no last one, and no mean."""
    if not len(rows):
        return {"count": 0, "last_arrival_s": None, "prompt_tokens_mean": None, "output_tokens_mean": None}
    return {
        "count": len(rows),
        "last_arrival_s": float(requests.arrival_s[rows].max()),
        "prompt_tokens_mean": float(requests.prompt_tokens[rows].mean()),
        "output_tokens_mean": float(requests.output_tokens[rows].mean()),
    }


def _too_long(setup: Setup, requests: Requests) -> tuple[int, int]:
    """Count the requests whose prompt alone fills max_model_len, and those whose output will be cut there."""
    limit = setup.cases[0].limits.max_model_len
    refused = requests.prompt_tokens >= limit
    cut = ~refused & (requests.prompt_tokens + requests.output_tokens > limit)
    return int(np.count_nonzero(refused)), int(np.count_nonzero(cut))


def _refused(setup: Setup, requests: Requests) -> list[str]:
    """Say which runs will refuse how many requests, and why, unless that is their length, which is the same for all."""
    who: dict[tuple[str, int], list[str]] = {}
    for case in setup.cases:
        for reason, count in case.refusals(requests).items():
            who.setdefault((reason, count), []).append(case.label)
    return [
        f"{count:,} of {len(requests):,} by {listed(labels)}: {reason}"
        for (reason, count), labels in who.items()
        if reason != Reason.LENGTH
    ]


def _pool(case: Case) -> dict[str, Any]:
    pool = case.pool
    return {**asdict(pool), "block_bytes": pool.block_bytes, "slots": pool.slots}


def _print(setup: Setup, requests: Requests) -> None:
    console = terminal()
    console.print(Text(as_file(setup.workload.resolved()).rstrip()), soft_wrap=True)
    console.print()
    lay_out(console, _arithmetic(setup, requests))
    lay_out(console, _runs(setup))
    lay_out(console, _costs(setup))


def _arithmetic(setup: Setup, requests: Requests) -> Table:
    """Requests, model, device, and how the pool's memory comes about; block sizes are in the next table."""
    every = np.arange(len(requests))
    facts = [("requests", _arriving(requests, every)), ("tokens per request", _lengths(requests, every))]
    for at, name in enumerate(requests.parts):
        rows = np.flatnonzero(requests.part == at)
        words = [_arriving(requests, rows), _lengths(requests, rows)] if len(rows) else ["none arrives"]
        facts.append((f"of part {name}", "; ".join(words)))
    for count, what in zip(_too_long(setup, requests), ("are refused", "have their output cut short"), strict=True):
        if count:
            limit = f"max_model_len, {setup.cases[0].limits.max_model_len:,} tokens"
            facts.append(("too long", f"{count:,} of {len(requests):,} {what}, because of {limit}"))
    facts += [("refused", text) for text in _refused(setup, requests)]
    facts += [("note", note) for note in (*setup.notes, *requests.notes, *caches_in_vain(requests, setup.cases))]
    facts += [*setup.geometry.explain(), *setup.device.explain()]
    known = {what for what, _ in facts}
    each = [case.pool.explain() for case in setup.cases]
    facts += [row for row in each[0] if row[0] not in known and all(row in other for other in each)]
    made = listing({"what": "", "is": ""}, title="Requests, model, device and pool")
    for row in facts:
        add(made, *row)
    return made


def _arriving(requests: Requests, rows: Ints) -> str:
    """Say how many of them come, and until when: those that wait for answers as if these took as long as assumed."""
    waits = len(requests.after) and (requests.after[rows] >= 0).any()
    told = f"{len(rows):,}, the last arriving at {requests.arrival_s[rows].max():,.1f} s"
    return f"{told} if answers take as long as assumed" if waits else told


def _lengths(requests: Requests, rows: Ints) -> str:
    prompt, output = (of[rows].mean() for of in (requests.prompt_tokens, requests.output_tokens))
    return f"{prompt:,.1f} of prompt and {output:,.1f} of output, on average"


def _runs(setup: Setup) -> Table:
    """What each allocator gets."""
    numbers = {"block": "slots\na block", "blocks": "blocks", "slots": "slots", "longest": "longest\nsequences"}
    made = listing({"allocator": "allocator", "scheduler": "scheduler", **numbers}, numbers, title="Runs")
    made.caption = "longest sequences: how many of max_model_len tokens the pool holds at once"
    for case in setup.cases:
        pool = case.pool
        most = case.longest_at_once()
        longest = "any" if most is None else f"{most:,}"
        add(made, case.label, case.scheduler, pool.block_size, f"{pool.num_blocks:,}", f"{pool.slots:,}", longest)
    return made


def _costs(setup: Setup) -> Table:
    """Every coefficient of the cost model, and where its value comes from."""
    columns = {"coefficient": "coefficient", "value": "value", "is": "what it is", "from": "source"}
    made = listing(columns, {"value"}, title="Assumed costs")
    if setup.captured:
        made.caption = (
            f"Steps of captured shapes are looked up among {len(setup.captured)} that the calibration has measured; "
            "what is said here of products, overheads and attention of decodes counts for all others."
        )
    elif (named := setup.workload.costs.calibration) is not None:
        origin = load_origin(find_calibration(named))
        made.caption = (
            f"Measured with {origin.model} on {origin.measured_on}, used for {setup.geometry.name} on "
            f"{setup.device.name}: no step is looked up, and shares of peaks are taken of this device's."
        )
    for entry in fields(Coefficients):
        value = getattr(setup.coefficients, entry.name)
        source = entry.metadata["from"] if value == entry.default else "this workload"
        add(made, entry.name, f"{value:g}", entry.metadata["is"], source)
    return made
