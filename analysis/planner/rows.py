"""One tidy table of many runs: one row per point, allocator and replication; one column per setting and metric.

Columns are named as in `analysis.figures`: `ttft_s` is a mean, `ttft_s.p99` a percentile,
`share.live` a percentage of the pool.  Settings keep the name that the user gave them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.figures import COST, figure, of_part, within_slo
from analysis.metrics import PER_REQUEST, PER_RUN, itl_s
from analysis.observed import CAUSES, SHARES
from analysis.saturation import Verdict, worst
from analysis.stats import Interval, t_interval
from analysis.summary import NAMES
from workloads.values import written

GIB = 1 << 30


def row(cell: int, settings: Mapping[str, Any], label: str, repeat: int, record: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten the record of one run.

    Args:
        cell: number of the point in the grid, from 0.
        settings: what was varied, by key.
        label: name of the allocator.
        repeat: number of the replication; the record, which another point may have asked for, can have another.
        record: `entry`, `pool` and `load` of the run.

    """
    entry, pool, load = record["entry"], record["pool"], record["load"]
    slot_bytes = pool["block_bytes"] / pool["block_size"]
    flat: dict[str, Any] = {"cell": cell}
    flat |= {key: plain(value) for key, value in settings.items()}
    flat |= {"allocator": label, "kind": entry["kind"], "scheduler": entry["scheduler"], "repeat": repeat}
    flat |= {"verdict": entry["verdict"], "kept_up": load["kept_up"], "offered_rps": _float(load["offered_rps"])}
    flat |= {"duration_s": float(entry["duration_s"]), "idle": float(load["idle"])}
    flat |= {f"requests.{name}": entry["requests"][name] for name in ("total", "finished", "refused", "unfinished")}
    flat["requests.refusals"] = json.dumps([*entry["requests"]["refusals"]])
    flat |= {"pool_gib": pool["block_bytes"] * pool["num_blocks"] / GIB, "pool_slots": pool["capacity"]}
    for name, value in _metrics(entry):
        flat[name] = value
    flat |= {f"share.{name}": figure(entry, f"share.{name}") for name in SHARES}
    flat |= {f"blocked_by.{name}": figure(entry, f"blocked_by.{name}") for name in CAUSES}
    peak = entry["metrics"]["kv_usage"]["peak"]
    flat["held_gib.peak"] = None if peak is None else peak * pool["capacity"] * slot_bytes / GIB
    return flat


def _metrics(entry: Mapping[str, Any]) -> Iterable[tuple[str, float | None]]:
    for metric in (*PER_REQUEST, itl_s, *PER_RUN):
        name = metric.__name__
        value = entry["metrics"].get(name) if name == COST else entry["metrics"][name]
        if name != "blocked_by":
            yield from _values(name, value)
    for part, told in (entry.get("parts") or {}).items():
        for name, value in told["metrics"].items():
            yield from _values(f"part.{part}.{name}", value)
        share = within_slo(of_part(entry, part))
        yield f"part.{part}.goodput", None if isnan(share) else share


def _values(name: str, value: Any) -> Iterable[tuple[str, float | None]]:
    """Yield a figure, or its mean and what else there is of it."""
    if not isinstance(value, Mapping):
        yield name, _float(value)
        return
    yield name, _float(value["mean"])
    for part in (*NAMES, "max", "peak"):
        if part in value:
            yield f"{name}.{part}", _float(value[part])


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def status_share(status: str, rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Requests that were refused, finished or left unfinished / all requests, mean over runs; None without any run."""
    return float(np.mean([row[f"requests.{status}"] / row["requests.total"] for row in rows])) if rows else None


def refusals(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Reasons for which requests of some runs were refused."""
    return sorted({reason for row in rows for reason in json.loads(row["requests.refusals"])})


def plain(value: Any) -> Any:
    """A setting as a parquet column can hold it: a mapping or list becomes its JSON text."""
    return json.dumps(value) if isinstance(value, dict | list) else value


def said(value: Any) -> str:
    """A setting, or what `plain` makes of it, as words and tables have it: text as it is, all else as in a file."""
    if not isinstance(value, str):
        return written(value)
    try:
        return written(json.loads(value)) if value.startswith(("{", "[")) else value
    except ValueError:  # text after all
        return value


def last_words(keys: Sequence[str]) -> list[str]:
    """Shorten keys to their last word where that tells them apart; `device.name` is a device."""
    last = [key.removesuffix(".name").rpartition(".")[2] for key in keys]
    return [word if last.count(word) == 1 else key for word, key in zip(last, keys, strict=True)]


def distinct(cells: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Drop from each cell the settings of other allocators, and cells that are then the same simulation.

    A key of `allocators` is another's if no figure of the cell's own allocator depends on it, whatever the rest is.

    Args:
        cells: of a sweep's summary.

    """
    keys = [key for key in (cells[0]["settings"] if cells else ()) if key.startswith("allocators.")]
    others = {
        (label, key)
        for label in {cell["allocator"] for cell in cells}
        for key in keys
        if _immaterial(key, [cell for cell in cells if cell["allocator"] == label])
    }
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for cell in cells:
        label = cell["allocator"]
        own = {key: value for key, value in cell["settings"].items() if (label, key) not in others}
        found.setdefault((label, json.dumps(own)), {**cell, "settings": own})
    return list(found.values())


def _immaterial(key: str, cells: Iterable[Mapping[str, Any]]) -> bool:
    """Whether figures are the same at all values of a key."""
    seen: dict[str, Any] = {}
    return all(
        seen.setdefault(json.dumps({**cell["settings"], key: None}), cell["figures"]) == cell["figures"]
        for cell in cells
    )


@dataclass(frozen=True)
class Group:
    """All replications of one allocator at one point."""

    settings: Mapping[str, Any]
    label: str
    rows: Sequence[Mapping[str, Any]]

    def values(self, name: str) -> npt.NDArray[np.float64]:
        """One figure of each replication that has it."""
        found = [row[name] for row in self.rows if row.get(name) is not None]
        return np.asarray(found, np.float64)

    def interval(self, name: str) -> Interval:
        """Mean of a figure with its 95 % interval over replications; NaN if none has it."""
        return t_interval(self.values(name))

    def ahead_of(self, other: Group, name: str) -> Interval:
        """Mean difference of a figure, and its 95 % interval, over the replications of both; NaN if neither has any."""
        theirs = {row["repeat"]: row[name] for row in other.rows if row.get(name) is not None}
        mine = ((row["repeat"], row[name]) for row in self.rows if row.get(name) is not None)
        return t_interval(np.asarray([value - theirs[at] for at, value in mine if at in theirs], np.float64))

    @property
    def verdict(self) -> Verdict:
        """The worst of all replications."""
        return worst(Verdict(row["verdict"]) for row in self.rows)


def groups(rows: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> list[Group]:
    """Gather rows by point and allocator, in their order."""
    found: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for one in rows:
        found.setdefault((one["cell"], one["allocator"]), []).append(one)
    return [Group({key: some[0][key] for key in keys}, label, some) for (_, label), some in found.items()]


def front(points: Sequence[Sequence[float]]) -> list[bool]:
    """Tell which points no other one beats.

    A point beats another if it is at least as small in every coordinate and smaller in one.

    Args:
        points: coordinates to be minimised; one with a NaN is on no front and beats nothing.

    """
    table = np.asarray(points, np.float64).reshape(len(points), -1)
    known = table[~np.isnan(table).any(axis=1)]
    return [
        not np.isnan(point).any() and not ((known <= point).all(axis=1) & (known < point).any(axis=1)).any()
        for point in table
    ]
