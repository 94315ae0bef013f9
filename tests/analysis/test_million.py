"""The page of a run of a million requests is as large as that of a short one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from analysis import rundir
from analysis.report import write_report

COUNT, STEPS, CAPACITY = 1_000_000, 2_000_000, 65_536


def columns(schema: pa.Schema, rows: int, given: dict[str, Any]) -> pa.Table:
    """A table whose other columns are 0, the first of its words, or empty lists."""
    made = []
    for field in schema:
        values = given.get(field.name, np.zeros(rows, np.int8))
        if pa.types.is_dictionary(field.type):
            words = {"status": "finished", "event": "preempt"}.get(field.name, "")
            made.append(pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), pa.array([words])))
        elif pa.types.is_list(field.type):
            made.append(pa.ListArray.from_arrays(pa.array(np.zeros(rows + 1, np.int32)), pa.array([], pa.float64())))
        else:
            made.append(pa.array(np.asarray(values, field.type.to_pandas_dtype())))
    return pa.Table.from_arrays(made, schema=schema)


def write_million(path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = path / "paged"
    folder.mkdir(parents=True)
    arrival = np.sort(rng.uniform(0, 40_000, COUNT))
    queue, prefill, decode = rng.exponential((0.1, 0.2, 8.0), (COUNT, 3)).T
    lost = np.sort(rng.choice(COUNT, 30_000, replace=False))
    requests = {
        "request_id": np.arange(COUNT),
        "arrival_s": arrival,
        "prompt_tokens": rng.integers(1, 2000, COUNT),
        "output_tokens": rng.integers(2, 900, COUNT),
        "generated_tokens": rng.integers(2, 900, COUNT),
        "scheduled_s": arrival + queue,
        "first_token_s": arrival + queue + prefill,
        "finish_s": arrival + queue + prefill + decode,
        "prefix_group": np.full(COUNT, -1),
    }
    start = np.arange(STEPS) * 0.02
    live = (CAPACITY * (0.6 + 0.3 * np.sin(start / 900) + rng.uniform(0, 0.1, STEPS))).astype(np.int64)
    steps = {
        "step": np.arange(STEPS),
        "start_s": start,
        "duration_s": np.full(STEPS, 0.02),
        "running": rng.integers(50, 60, STEPS),
        "waiting": rng.integers(0, 9, STEPS),
        "decode_tokens": rng.integers(40, 60, STEPS),
        "live": live,
        "free": CAPACITY - live,
        "evicted": (rng.random(STEPS) < 0.2).astype(int),
    }
    events = {"time_s": arrival[lost] + 1, "request_id": lost, "slots": rng.integers(1, 900, len(lost)), "cause": lost}
    for name, schema, rows, given in (
        ("requests", rundir.REQUESTS, COUNT, requests),
        ("steps", rundir.STEPS, STEPS, steps),
        ("events", rundir.EVENTS, len(lost), events),
    ):
        pq.write_table(columns(schema, rows, given), folder / f"{name}.parquet", compression="none")
    run = {"label": "paged", "kind": "paged", "scheduler": "vllm-v1", "repeat": 0, "dir": "paged", "capacity": CAPACITY}
    run |= {"block_size": 16, "num_blocks": CAPACITY // 16, "block_bytes": 1 << 21}
    (path / "manifest.json").write_text(json.dumps({"schema": 1, "name": "million", "runs": [run]}))
    return path


def test_a_million_requests_make_a_page_of_the_same_size(tmp_path: Path) -> None:
    page = write_report(write_million(tmp_path / "run")).read_text(encoding="utf-8")
    plotly = page.index("</script>", page.index('id="plotly"')) - page.index('id="plotly"')
    assert len(page) - plotly < 1_500_000
    assert len(page) < 8_000_000
    facts = json.loads(page[page.index('id="facts">') + 11 : page.index("</script>", page.index('id="facts">'))])
    column = facts["columns"][0]
    assert facts["requests"] == {"shown": 5000, "total": COUNT}
    assert column["rows"]["total"] == STEPS > 100 * column["rows"]["shown"]
    assert column["events"]["counts"]["preempt"] == 30_000 > 5 * column["events"]["kept"]
