"""The page of a validation says what validation.json says."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from analysis.errors import RunDirectoryError
from analysis.pages import write_index, write_page
from analysis.validation import render

RUN: dict[str, Any] = {
    "label": "paged",
    "kind": "paged",
    "scheduler": "vllm-v1",
    "preemption": "recompute",
    "backend": "torch",
    "passed": True,
    "stopped": None,
    "numerics": {
        "tokens": 40,
        "equal_tokens": 40,
        "largest_error": 1e-6,
        "tolerance": 1e-4,
        "first_difference": None,
    },
    "decisions": {"passed": True, "first_difference": None, "telemetry_difference": None},
    "memory": {
        "passed": True,
        "kind": "pool",
        "simulated": {"blocks": 9},
        "measured": {"blocks": 9},
        "errors": {"blocks": 0.0},
    },
    "exercised": {"steps": 12, "preemptions": 3, "blocks_copied": 0},
}
CONTENT: dict[str, Any] = {
    "schema": 1,
    "passed": True,
    "workload": "tiny",
    "model": {"name": "tiny-llama", "weights": "random", "dtype": "fp32"},
    "device": "CPU",
    "versions": {"torch": "2"},
    "date": "2026-01-01T00:00:00+00:00",
    "tolerances": {"logits": 1e-4, "memory": 0.02},
    "not_run": {"ideal": "a bound"},
    "runs": [RUN],
}


def words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<script>.*?</script>|<[^>]+>", " ", page, flags=re.DOTALL))


def test_a_validation_that_agrees() -> None:
    said = words(render(CONTENT))
    assert "the run agrees" in said
    assert "40 of 40" in said
    assert "1.0e-06" in said
    assert "exact" in said
    assert "ideal was not run: a bound" in said
    assert "3 preemptions" in said
    assert "blocks copied" not in said, "what was not put to work is not listed"


def test_a_validation_that_differs_says_where() -> None:
    content = deepcopy(CONTENT)
    run = content["runs"][0]
    run["passed"] = False
    run["numerics"] |= {"equal_tokens": 39, "largest_error": 0.5, "first_difference": "request 1, token 2"}
    run["decisions"] |= {"passed": False, "first_difference": "step 3: request 4 preempted"}
    run["memory"] |= {"passed": False, "measured": {"blocks": 8}, "errors": {"blocks": 0.125}}
    said = words(render(content))
    assert "DIFFER" in said
    assert "paged: request 1, token 2" in said
    assert "paged: step 3: request 4 preempted" in said
    assert "blocks 8 against 9" in said
    assert "blocks +12.5%" in said
    stopped = content | {"runs": [run | {"numerics": None, "stopped": "out of memory"}]}
    assert "paged: out of memory" in words(render(stopped))


def test_times_stand_beside_those_measured() -> None:
    figures = {"throughput_rps": 10.0, "tpot_s.p99": 0.02}
    run = {"workload": "held-out", "label": "paged", "measured": figures, "simulated": {"throughput_rps": 9.5}}
    timing = {
        "judged": True,
        "calibration": "h100",
        "tolerances": {"median_over_runs": {"throughput_rps": 0.03}, "each_run": {}},
        "medians": {"throughput_rps": 0.05},
        "faults": ["throughput_rps: off by 5.0%"],
        "runs": [run | {"errors": {"throughput_rps": -0.05}}],
    }
    assert 'class="reach"' not in render(CONTENT | {"timing": timing}), "not known"
    known = run | {"errors": {"throughput_rps": -0.05}, "reach": {"throughput_rps": [8.75, 10.625]}}
    machine = {"step_factor": 0.98, "compute_factor": 1.05, "prefill_host_s": 0.00123, "recompute_launch_layer_s": 6e-4}
    page = render(CONTENT | {"timing": timing | {"machine": machine, "machines": 0.02, "runs": [known]}})
    assert "decodes take 0.980 times as long as calibrated, prefills 1.029 times, the host 1.23 ms for a step, " in page
    assert ", 0.60 ms to launch a layer where nothing is cached." in page
    assert 'class="reach" style="left:25.0%;width:37.5%"' in page
    assert 'title="paged, held-out: -5.0 %, from -12.5 to +6.2 %"' in page
    assert "up to 2 % less or more" in words(page)
    page = render(CONTENT | {"timing": timing})
    said = words(page)
    assert "median 5.0 %, 3 % allowed in the median" in said
    assert "throughput_rps: off by 5.0%" in said
    assert "10 simulated 9.5" in said
    assert 'title="paged, held-out: -5.0 %"' in page
    said = words(render(CONTENT | {"timing": timing | {"judged": False, "calibration": None}}))
    assert "told but not judged; calibrate makes one" in said
    assert "median 5.0 %" in said
    assert "% allowed" not in said
    assert "off by" not in said


def test_report_finds_out_what_a_directory_is(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"manifest\.json"):
        write_page(tmp_path)
    hostile = '<img src=x onerror="alert(1)">'
    (tmp_path / "validation.json").write_text(json.dumps(CONTENT | {"workload": hostile}))
    page = write_page(tmp_path)
    assert page.name == "validation.html"
    assert "<img" not in page.read_text()
    index = write_index([tmp_path], tmp_path / "index.html").read_text()
    assert 'href="validation.html"' in index
    assert "1 of 1 runs agree" in index
    (tmp_path / "validation.json").write_text("{")
    with pytest.raises(RunDirectoryError, match="not readable as JSON"):
        write_page(tmp_path)
