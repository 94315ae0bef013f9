"""OpenMetrics text with vLLM's metric names, so that its Grafana board shows a simulated run.

Two files: `metrics.txt` is what a scrape at the end of the run (or of the window) would
have returned; `history.txt` is that scrape at 240 instants with time stamps, which
`promtool tsdb create-blocks-from openmetrics history.txt` imports into Prometheus for the
board to draw.  Counters and histograms are cumulative, as they would have been; names,
labels and buckets are those of vLLM's V1 metrics.  Where requests are a mix, the label `part`
besides tells those of its parts apart, in all that is counted of requests.  Its `kv_block_*` histograms (lifetime, idle
time, gaps between uses) are not among them: a run keeps no event of a single block.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from analysis.observed import HELD, Columns, Rows
from analysis.reading import Run, RunDirectory
from analysis.whole import whole

INSTANTS = 240
TTFT = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
    *(160.0, 640.0, 2560.0),
)
GAP = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
LATENCY = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0),
    *(960.0, 1920.0, 7680.0),
)
STEP = (1.0, *(float(1 << power) for power in range(3, 15)))
SAMPLES = (1.0, 2.0, 5.0, 10.0, 20.0)
TOKENS = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))
Floats: TypeAlias = npt.NDArray[np.float64]


class Family(NamedTuple):
    """One metric of one run at all instants."""

    name: str
    kind: str
    """gauge, counter or histogram."""
    text: str
    values: Floats
    """Gauge and counter: the value at each instant.  Histogram: the observations."""
    when: Floats
    """Histogram: the instant of each observation."""
    buckets: tuple[float, ...] = ()
    labels: str = ""
    often: npt.NDArray[np.int64] | None = None
    """Histogram: how often each observation was made; once if None."""


def write(
    directory: RunDirectory, folder: Path, labels: list[str], window: tuple[float, float], _note: object
) -> list[Path]:
    """Write the first replication of every label; time stamps start when the run was made."""
    started = str(directory.manifest.get("started") or "1970-01-01T00:00:00+00:00")
    epoch = datetime.fromisoformat(started).timestamp()
    model = str((directory.manifest.get("model") or {}).get("name", "model"))
    by_name: dict[str, list[tuple[Family, str, Floats]]] = {}
    for run in directory.runs:
        if run.label in labels and run.repeat == 0:
            instants = _instants(run, window)
            given = f'model_name="{_escape(f"{model}/{run.label}")}",engine="0",allocator="{_escape(run.label)}"'
            for family in families(run, instants):
                by_name.setdefault(family.name, []).append((family, given, instants))
    written = [folder / name for name in files(directory, labels)]
    for target, history in zip(written, (False, True), strict=True):
        with whole(target) as part, part.open("w", encoding="utf-8") as file:
            for name, members in by_name.items():
                file.write(f"# TYPE {name} {members[0][0].kind}\n# HELP {name} {members[0][0].text}\n")
                for family, given, instants in members:
                    stamps = [f" {epoch + instant:.6f}" for instant in instants.tolist()] if history else None
                    file.writelines(_lines(family, given, instants, stamps))
            file.write("# EOF\n")
    return written


def files(directory: RunDirectory, labels: list[str]) -> list[str]:  # noqa: ARG001 - as in other formats
    """Names of the files that are written: what is at the end, and the course of it."""
    return ["metrics.txt", "history.txt"]


def _instants(run: Run, window: tuple[float, float]) -> Floats:
    """Return the instants of the scrapes; the last is not before the last step's end, nor before the last token."""
    steps = run.steps(("start_s", "duration_s"))
    end = float(steps["start_s"][-1] + steps["duration_s"][-1]) if len(steps["start_s"]) else 0.0
    end = float(np.nanmax(run.requests(["finish_s"])["finish_s"], initial=end))  # the sum may round to a little less
    return np.linspace(max(0.0, window[0]), max(min(end, window[1]), window[0]), INSTANTS)


def families(run: Run, instants: Floats) -> list[Family]:
    """All metrics of a run at the given instants; those of requests for each part of a mix, which then is a label."""
    steps, requests = run.steps(), run.requests()
    if not len(steps["step"]):
        return []
    parts: dict[str, Columns] = {
        f',part="{_escape(name)}"': Rows(requests, np.asarray(requests["part"] == name, np.bool_))
        for name in run.facts.get("parts") or ()
    }
    told = {f"gap_tokens.{name}" for name in run.facts.get("parts") or ()} <= set(steps)
    gaps = zip(parts.items(), run.facts["parts"], strict=True) if parts and told else ()
    return [
        *_of_steps(run, steps, requests, instants),
        *(_gaps(gaps_of(steps, some, f"gap_tokens.{name}"), labels) for (labels, some), name in gaps),
        *(() if parts and told else (_gaps(gaps_of(steps, requests)),)),
        *(
            family
            for labels, some in (parts or {"": requests}).items()
            for family in _of_requests(some, instants, labels)
        ),
    ]


def _counter(name: str, text: str, so_far: npt.NDArray[Any], labels: str = "") -> Family:
    return Family(f"vllm:{name}", "counter", text, np.asarray(so_far, np.float64), np.zeros(0), labels=labels)


def _so_far(instants: Floats, time: Floats, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Sum at each instant what has happened, given when (NaN: never) and how much of it there was each time."""
    known = np.flatnonzero(~np.isnan(time))
    order = known[np.argsort(time[known])]
    sums = np.append(0, np.cumsum(weight[order], dtype=np.int64))
    return np.asarray(sums[np.searchsorted(time[order], instants, side="right")])


def _of_steps(run: Run, steps: Columns, requests: Columns, instants: Floats) -> list[Family]:
    """What the engine as a whole does: its pool, its batches, and the tokens that these generate."""
    row = np.maximum(np.searchsorted(steps["start_s"], instants, side="right") - 1, 0)
    ends = np.asarray(steps["start_s"] + steps["duration_s"], np.float64)
    preempted = np.append(0, np.cumsum(steps["preemptions"], dtype=np.int64))
    held = np.sum([steps[name] for name in HELD], axis=0) / run.capacity
    none = np.zeros(0)

    def gauge(name: str, text: str, values: npt.NDArray[Any]) -> Family:
        return Family(f"vllm:{name}", "gauge", text, np.asarray(values[row], np.float64), none)

    computed = np.asarray(steps["prefill_tokens"] + steps["decode_tokens"], np.float64)
    computed[computed == 0] = np.nan
    pool = f',block_size="{run.facts["block_size"]}",num_gpu_blocks="{run.facts["num_blocks"]}"'
    gaps, first = gaps_of(steps, requests), np.asarray(requests["first_token_s"], np.float64)
    generated = _so_far(instants, first, np.asarray(requests["samples"], np.int64))
    generated = generated + _so_far(instants, gaps.when, gaps.often)
    return [
        Family("vllm:cache_config_info", "gauge", "The pool, in labels.", np.ones(len(instants)), none, labels=pool),
        gauge("num_requests_running", "Number of requests in model execution batches.", steps["running"]),
        gauge("num_requests_waiting", "Number of requests waiting to be processed.", steps["waiting"]),
        gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", held),
        _counter(
            "num_preemptions",
            "Cumulative number of preemption from the engine.",
            preempted[np.searchsorted(ends, instants, side="right")],
        ),
        _counter("generation_tokens", "Number of generation tokens processed.", generated),
        _observed("iteration_tokens_total", "number of tokens per engine_step", computed, ends, STEP),
    ]


def _of_requests(requests: Columns, instants: Floats, labels: str) -> list[Family]:
    """What requests ask for and get, with labels that say which they are."""
    arrival, scheduled, first, finish = (
        np.asarray(requests[f"{name}_s"], np.float64) for name in ("arrival", "scheduled", "first_token", "finish")
    )
    outputs = np.asarray(requests["generated_tokens"], np.float64)
    done = np.where(requests["status"] == "finished", finish, np.nan)
    wanted = np.asarray(requests["output_tokens"], np.float64)
    reasons = {"stop": outputs >= wanted, "length": outputs < wanted}
    prompts, cached = (np.asarray(requests[f"{name}_tokens"], np.int64) for name in ("prompt", "cached"))
    sources = {"local_compute": prompts - cached, "local_cache_hit": cached}
    ones = np.ones(len(arrival), np.int64)

    def counter(name: str, text: str, when: Floats, weight: npt.NDArray[Any], more: str = "") -> Family:
        return _counter(name, text, _so_far(instants, when, weight), labels + more)

    def observed(name: str, text: str, values: npt.NDArray[Any], when: Floats, buckets: tuple[float, ...]) -> Family:
        return _observed(name, text, np.asarray(values, np.float64), when, buckets, labels)

    return [
        counter("prompt_tokens", "Number of prefill tokens processed.", first, prompts),
        *(
            counter("prompt_tokens_by_source", "Number of prompt tokens by source.", first, some, f',source="{word}"')
            for word, some in sources.items()
        ),
        counter("prompt_tokens_cached", "Number of cached prompt tokens.", first, cached),
        counter("prefix_cache_queries", "Prefix cache queries, in tokens.", scheduled, prompts),
        counter("prefix_cache_hits", "Prefix cache hits, in tokens.", scheduled, cached),
        *(
            counter(
                "request_success",
                "Count of successfully processed requests.",
                np.where(which, done, np.nan),
                ones,
                f',finished_reason="{reason}"',
            )
            for reason, which in reasons.items()
        ),
        observed("time_to_first_token_seconds", "time to first token in seconds", first - arrival, first, TTFT),
        observed(
            "request_time_per_output_token_seconds",
            "time per output token of a request in seconds",
            (finish - first) / np.where(outputs > 1, outputs - 1, np.nan),
            done,
            GAP,
        ),
        observed("e2e_request_latency_seconds", "e2e request latency in seconds", finish - arrival, done, LATENCY),
        observed("request_queue_time_seconds", "time spent in WAITING phase", scheduled - arrival, done, LATENCY),
        observed("request_prefill_time_seconds", "time spent in PREFILL phase", first - scheduled, done, LATENCY),
        observed("request_decode_time_seconds", "time spent in DECODE phase", finish - first, done, LATENCY),
        observed("request_inference_time_seconds", "time spent in RUNNING phase", finish - scheduled, done, LATENCY),
        observed("request_prompt_tokens", "prefill tokens of a request", prompts, done, TOKENS),
        observed(
            "request_prefill_kv_computed_tokens",
            "tokens of a request's prompt that no cache had",
            prompts - cached,
            done,
            TOKENS,
        ),
        observed("request_params_n", "the n request parameter", requests["samples"], done, SAMPLES),
        observed("request_generation_tokens", "generation tokens of a request", outputs, done, TOKENS),
    ]


def _observed(
    name: str, text: str, values: Floats, when: Floats, buckets: tuple[float, ...], labels: str = ""
) -> Family:
    known = ~np.isnan(values) & ~np.isnan(when)
    return Family(f"vllm:{name}", "histogram", f"Histogram of {text}.", values[known], when[known], buckets, labels)


def _gaps(gaps: Gaps, labels: str = "") -> Family:
    name, text = "vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds."
    return Family(name, "histogram", text, gaps.length, gaps.when, GAP, labels, gaps.often)


class Gaps(NamedTuple):
    """All gaps between two tokens, each with the instant at which it ended."""

    length: Floats
    when: Floats
    often: npt.NDArray[np.int64]


def gaps_of(steps: Columns, requests: Columns, column: str = "gap_tokens") -> Gaps:
    """Gaps by the step that ended them; a request's stalls, whose instants are not recorded, when it finishes.

    `column` of the steps tells how many gaps of those of their length are of these requests.
    """
    often = np.asarray(steps[column], np.int64)
    ends = np.asarray(steps["start_s"] + steps["duration_s"], np.float64)
    over = np.nan_to_num(np.asarray(requests["finish_s"], np.float64), nan=ends[-1])
    stalls = np.asarray(requests["stall_s"], np.float64)
    return Gaps(
        np.append(np.asarray(steps["gap_s"], np.float64)[often > 0], stalls),
        np.append(ends[often > 0], np.repeat(over, requests["stall_count"])),
        np.append(often[often > 0], np.ones(len(stalls), np.int64)),
    )


def _lines(family: Family, given: str, instants: Floats, stamps: list[str] | None) -> Iterator[str]:
    """Lines of one family: at every instant with its stamp, or at the last one without."""
    keep = slice(None) if stamps is not None else slice(-1, None)
    stamps = [""] if stamps is None else stamps
    labels = f"{{{given}{family.labels}}}"
    if family.kind != "histogram":
        suffix = "_total" if family.kind == "counter" else ""
        for value, stamp in zip(family.values[keep].tolist(), stamps, strict=True):
            yield f"{family.name}{suffix}{labels} {value:.17g}{stamp}\n"
        return
    often = np.ones(len(family.values), np.int64) if family.often is None else family.often
    size = len(family.buckets) + 1
    seen = np.searchsorted(instants, family.when, side="left")  # the first instant at which it counts
    place = np.searchsorted(np.asarray(family.buckets), family.values, side="left")
    counted = seen < len(instants)
    cell = (seen * size + place)[counted]
    counts = np.bincount(cell, often[counted], len(instants) * size).reshape(-1, size).cumsum(axis=0).cumsum(axis=1)
    sums = np.bincount(seen[counted], (often * family.values)[counted], len(instants)).cumsum()
    edges = [*map(str, family.buckets), "+Inf"]
    for below, total, stamp in zip(counts[keep].astype(np.int64).tolist(), sums[keep].tolist(), stamps, strict=True):
        for edge, number in zip(edges, below, strict=True):
            yield f'{family.name}_bucket{{{given}{family.labels},le="{edge}"}} {number}{stamp}\n'
        yield f"{family.name}_count{labels} {below[-1]}{stamp}\n"
        yield f"{family.name}_sum{labels} {total:.17g}{stamp}\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
