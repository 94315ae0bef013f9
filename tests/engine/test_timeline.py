"""What a leap takes longer for: pages that are mapped, and what no step before its first one hides."""

from __future__ import annotations

import pytest

from sim.engine.executor import Executor
from sim.limits import Limits
from tests.engine.harness import Clock, Setup, ask, differences


@pytest.mark.parametrize("clock", [Clock(context=1, mapped=5000, unhidden=7000), Clock(unhidden=7000, warm=9_000_000)])
@pytest.mark.parametrize("overlap", [True, False])
def test_what_no_step_hides_counts_in_the_first_step_of_a_leap_whatever_else_does(
    clock: Executor, *, overlap: bool
) -> None:
    """The first decode after a prefill of more than 8 tokens; with pages of two tokens it may need one, too."""
    options: dict[str, int | bool] = {"page_kib": 64, "tensor_token_bytes": 32768, "kv_tensors": 2, "overlap": overlap}
    setup = Setup("vllm-v1", Limits(max_model_len=40), "virtual", 200, options, clock=clock, instants=0)
    for prompt in (13, 14):
        asked = ask((0, prompt, 9), (30, 6, 5))
        assert not differences(setup.run(asked, reference=True)[1], setup.run(asked)[1])
