"""The topics that can be listed: allocators, models, devices and so on, each as plain rows.

A topic also says how its rows are laid out as lines of a table, where they do not stand as they are.
"""

from __future__ import annotations

from dataclasses import fields
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import pyarrow as pa

from allocators.docs import class_doc, module_doc
from allocators.registry import BUILT_IN, kinds
from analysis.metrics import formulas, of_parts, terms
from analysis.rundir import MORE, TABLES, meaning
from analysis.saturation import MEANINGS
from sim.cli.generators import generators, keys, with_keys
from sim.costs.calibration import find_calibration, load_calibration, shipped_calibrations
from sim.costs.coefficients import Coefficients
from sim.devices import GIB, shipped_devices
from sim.models.geometry import resolve_model
from sim.models.shipped import shipped_models
from sim.schedulers import schedulers as all_schedulers
from workloads.loader import load, presets
from workloads.schema import PRESETS
from workloads.source import parts_of
from workloads.trace import Trace
from workloads.traces import FORMATS, find

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from allocators.base import Allocator
    from allocators.options import Option
    from workloads.source import Generated

Name: TypeAlias = Literal[
    "allocators",
    "schedulers",
    "models",
    "devices",
    "costs",
    "calibrations",
    "presets",
    "keys",
    "generators",
    "traces",
    "metrics",
    "columns",
]  # fmt: skip
Row: TypeAlias = dict[str, Any]

FAMILIES = {
    "sosp23": "The PagedAttention paper's figures, published values beside simulated ones",
    "validate": "For `validate`: real decode on a GPU or a CPU beside its simulation",
}
"""What presets are for, by the word that their names begin with."""
PURPOSES = ("To start from", *FAMILIES.values())
"""In the order of the list."""

WHOSE = {"host_blocks": "the engine", "shared_prefixes": "the workload"}
"""Where facts come from that take the place of an option's default; all others are the model's."""


def allocators() -> list[Row]:
    """List allocators, plug-ins included, and their options."""
    return [
        {
            "allocator": kind,
            "what": _about(kind, cls),
            "options": [{"option": name, **_option(option)} for name, option in cls.options.items()],
        }
        for kind, cls in kinds().items()
    ]


def _about(kind: str, cls: type[Allocator]) -> str:
    """One line on an allocator: the concept, which for ours stands at the head of the module."""
    return _first_line(module_doc(cls) if kind in BUILT_IN else class_doc(cls))


def _option(option: Option) -> Row:
    return {
        "default": option.default,
        "type": option.type.__name__,
        "choices": list(option.choices),
        "minimum": option.minimum,
        "maximum": option.maximum,
        "fact": option.fact or None,
        "what": option.doc,
    }


def _with_options(row: Row) -> list[Row]:
    """Lay out an allocator, and under it its options."""
    head = {"allocator": row["allocator"], "option": None, "default": None, "what": row["what"]}
    return [head, *({**head, "allocator": None, **_described(option)} for option in row["options"])]


def _described(option: Row) -> Row:
    choices = f": {', '.join(map(str, option['choices']))}" if option["choices"] else ""
    known = f" ({WHOSE.get(option['fact'], 'the model')}'s)" if option["fact"] else ""
    what = option["what"] + choices + known
    return {"option": option["option"], "default": option["default"], "what": what}


def schedulers() -> list[Row]:
    """List schedulers."""
    return [{"scheduler": kind, "what": _first_line(class_doc(cls))} for kind, cls in all_schedulers().items()]


def models() -> list[Row]:
    """List shipped geometries."""
    return [
        {
            "model": geometry.name,
            "parameters": geometry.parameters,
            "layers": geometry.layers,
            "attention": geometry.attention,
            "heads": geometry.heads,
            "kv_heads": geometry.kv_heads,
            "head_dim": geometry.head_dim,
            "kv_dtype": geometry.kv_dtype,
            "kv_bytes_per_token": geometry.kv_bytes_per_token,
            "max_model_len": geometry.max_model_len,
        }
        for geometry in map(resolve_model, shipped_models())
    ]


def _narrow(row: Row) -> list[Row]:
    """Write all of a model's heads into one column."""
    heads = f"{row['attention']} {row['heads']}/{row['kv_heads']} x {row['head_dim']}, {row['kv_dtype']}"
    sizes = {name: row[name] for name in ("kv_bytes_per_token", "max_model_len")}
    return [{**{name: row[name] for name in ("model", "parameters", "layers")}, "heads/KV x_head dim": heads, **sizes}]


def _in_short(row: Row) -> list[Row]:
    """Write a preset's model and device behind what it is: columns of their own would leave no room for that."""
    on = " on ".join(row[name] for name in ("model", "device") if row[name])
    return [{"preset": row["preset"], "what": f"{row['what']} ({on})"}]


def devices() -> list[Row]:
    """List shipped GPUs."""
    return [
        {
            "device": name,
            "memory_gib": round(device.memory_bytes / GIB, 2),
            "bandwidth_tbps": device.bandwidth / 1e12,
            "bf16_tflops": device.peak("bf16") / 1e12,
            "fp8_tflops": device.flops["fp8"] / 1e12 if "fp8" in device.flops else None,
            "pcie_gbps": device.pcie_bandwidth / 1e9,
            "link_gbps": device.link_bandwidth / 1e9,
            "source": device.source,
        }
        for name, device in shipped_devices().items()
    ]


def costs() -> list[Row]:
    """List the cost model's coefficients."""
    return [
        {"coefficient": one.name, "value": one.default, "what": one.metadata["is"], "source": one.metadata["from"]}
        for one in fields(Coefficients)
    ]


def calibrations() -> list[Row]:
    """List shipped calibrations."""
    return [_calibration(name) for name in shipped_calibrations()]


def _calibration(name: str) -> Row:
    found = load_calibration(find_calibration(name))
    return {
        "calibration": name,
        "model": f"{found.model}, {found.dtype}",
        "measured_on": found.measured_on,
        "date": found.date[:10],
        "steps": len(found.points),
        "captured": len(found.captured),
        "error_median": round(found.errors()["median"], 4),
        "error_p90": round(found.errors()["p90"], 4),
    }


def _fitted(row: Row) -> list[Row]:
    """Leave out of a calibration what its name tells."""
    return [{name: value for name, value in row.items() if name not in {"measured_on", "model"}}]


def shipped_workloads() -> list[Row]:
    """List presets, those to start from first."""
    return sorted(map(_preset, presets()), key=lambda row: PURPOSES.index(row["purpose"]))


def _preset(name: str) -> Row:
    workload = load(name)
    return {
        "preset": name,
        "purpose": FAMILIES.get(name.partition("_")[0], PURPOSES[0]),
        "model": workload.model.name,
        "device": workload.device.name,
        "requests": ", ".join(dict.fromkeys(map(_lengths, parts_of(workload.requests)))),
        "allocators": len(workload.allocators),
        "what": _head((PRESETS / f"{name}.yaml").read_text(encoding="utf-8")),
    }


def _lengths(source: Generated | Trace) -> str:
    """Say where the lengths of requests come from."""
    return source.trace if isinstance(source, Trace) else source.lengths.kind


def _head(text: str) -> str:
    """Return the first sentence of the comment that a workload file opens with."""
    lines = takewhile(lambda line: line.startswith("#"), text.splitlines())
    words = " ".join(line.lstrip("# ") for line in lines if not line.startswith("# yaml-language-server"))
    return words.split(". ")[0].rstrip(".")


def traces() -> list[Row]:
    """List formats of traces."""
    return [{"format": form.name, "what": form.about} for form in map(find, FORMATS)]


def metrics() -> list[Row]:
    """List metrics, and the ledger's terms beside them."""
    return [
        {"metric": name, "formula": formula, "purpose": purpose}
        for purpose, all_of_them in (
            ("Figures of a run", formulas() | of_parts()),
            ("The ledger: where the pool's slots are", terms()),
            ("The verdict: whether the engine keeps up with the load", MEANINGS),
        )
        for name, formula in all_of_them.items()
    ]


def columns() -> list[Row]:
    """List columns."""
    return [
        {"file": f"{table}.parquet", "column": field.name, "type": _plain(field.type), "what": meaning(field)}
        for table, schema in TABLES.items()
        for field in (*schema, *MORE.get(table, ()))
    ]


def _plain(kind: pa.DataType) -> str:
    """Name the type of a column as those who read it see it."""
    if pa.types.is_list(kind):
        return f"list of {kind.value_type}"
    return "word" if pa.types.is_dictionary(kind) else str(kind)


def _as_it_is(row: Row) -> list[Row]:
    return [row]


class Topic(NamedTuple):
    """One thing that can be listed."""

    about: str
    rows: Callable[[], list[Row]]
    lines: Callable[[Row], list[Row]] = _as_it_is
    """The lines of the table that show one row."""
    by: str = ""
    """The key by which rows stand in tables of their own, if any."""


TOPICS: Mapping[Name, Topic] = {
    "allocators": Topic("allocators, plug-ins included, and their options", allocators, _with_options),
    "schedulers": Topic("which sequences run in a step", schedulers),
    "models": Topic("shipped geometries; any Hugging Face config.json can be named too", models, _narrow),
    "devices": Topic("GPUs, by their datasheets", devices),
    "costs": Topic("coefficients of the cost model, and where they come from", costs),
    "calibrations": Topic("cost coefficients fitted to steps measured on a device", calibrations, _fitted),
    "presets": Topic("shipped workload files", shipped_workloads, _in_short, by="purpose"),
    "keys": Topic("what a file may say of model, device, engine, trace, SLO and telemetry", keys, by="of"),
    "generators": Topic("what requests can be made of: arrivals, lengths, sharing, sessions", generators, with_keys),
    "traces": Topic("formats of recorded traces", traces),
    "metrics": Topic("figures of a run and terms of the ledger, with their formulas", metrics, by="purpose"),
    "columns": Topic("what a run leaves of every request, step, block and event", columns, by="file"),
}


def topics() -> list[Row]:
    """List the topics themselves."""
    return [{"topic": name, "what": topic.about} for name, topic in TOPICS.items()]


OVERVIEW = Topic("what can be listed", topics)


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n", 1)[0]
