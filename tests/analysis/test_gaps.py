"""Which requests waited too long between two of their tokens, found from steps that tell the gap of most."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from analysis.metrics import any_gap_over
from analysis.observed import Columns, Observed
from sim.runner import run
from workloads.loader import load

PLAIN = ["requests.count=80", "allocators=[{kind: paged}]", "device.kv_memory_gib=20"]
"""A pool in which nobody is preempted, so that every step with decodes gives each running request a token."""

CHAT = "{name: chat, count: 60, arrivals: {kind: poisson, rate: 12}, lengths: {kind: sharegpt}}"
READS = (
    "{name: long reads, count: 9, arrivals: {kind: poisson, rate: 2}, lengths: {kind: fixed, prompt: 1900, output: 30}}"
)


def gaps(requests: Columns, steps: Columns) -> list[npt.NDArray[np.float64]]:
    """Return the gaps of each request, one by one."""
    ends = (steps["start_s"] + steps["duration_s"])[steps["decode_tokens"] > 0]
    found = []
    for first, last in zip(requests["first_token_s"], np.nan_to_num(requests["finish_s"], nan=np.inf), strict=True):
        found.append(np.diff([first, *ends[(ends > first + 1e-9) & (ends < last + 1e-9)]]))
    return found


@pytest.mark.parametrize("scheduler", ["vllm-v0", "orca"])
@pytest.mark.parametrize("horizon", [[], ["horizon_s=2"]])
def test_a_gap_is_of_those_that_waited_and_not_of_those_that_they_waited_for(
    scheduler: str, horizon: list[str], tmp_path: Path
) -> None:
    settings = [*PLAIN, f"engine.scheduler={scheduler}", *horizon]
    (served,) = run(load("quickstart", settings), tmp_path / "out").runs
    requests, steps = served.requests(), served.steps()
    each = gaps(requests, steps)
    if not horizon:
        assert [len(one) + 1 for one in each] == requests["generated_tokens"].tolist()
    for limit in np.quantile(np.concatenate(each), (0, 0.5, 0.9, 0.97, 0.99, 0.999, 1)).tolist():
        expected = [bool((one > limit + 1e-12).any()) for one in each]
        assert any_gap_over(Observed(requests, steps, 1), limit + 1e-12).tolist() == expected


@pytest.mark.parametrize("scheduler", ["vllm-v0", "vllm-v1", "orca"])
def test_gaps_of_a_part_are_those_of_its_requests(scheduler: str, tmp_path: Path) -> None:
    settings = [*PLAIN[1:], f"engine.scheduler={scheduler}", f"requests={{mix: [{CHAT}, {READS}]}}"]
    directory = run(load("quickstart", settings), tmp_path / "out")
    requests, steps = directory.runs[0].requests(), directory.runs[0].steps()
    each = gaps(requests, steps)
    assert [len(one) + 1 for one in each] == requests["generated_tokens"].tolist()
    found = directory.summary()[0]["parts"]
    for name in ("chat", "long reads"):
        mine = np.concatenate([gap for gap, part in zip(each, requests["part"], strict=True) if part == name])
        told = found[name]["metrics"]["itl_s"]
        assert told["n"] == len(mine)
        assert told["mean"] == pytest.approx(mine.mean())
        assert told["max"] == pytest.approx(mine.max())
        assert [told[word] for word in ("p50", "p90", "p95", "p99")] == pytest.approx(
            np.percentile(mine, (50, 90, 95, 99)).tolist()
        )
    assert found["chat"]["metrics"]["itl_s"]["p99"] != found["long reads"]["metrics"]["itl_s"]["p99"]


def test_without_a_long_step_nobody_waited_nor_who_has_no_token_yet(tmp_path: Path) -> None:
    (served,) = run(load("quickstart", [*PLAIN, "horizon_s=2"]), tmp_path / "out").runs
    requests, steps = served.requests(), served.steps()
    assert np.isnan(requests["first_token_s"]).any() or np.isnan(requests["finish_s"]).any()
    assert not any_gap_over(Observed(requests, steps, 1), 1e6).any()
