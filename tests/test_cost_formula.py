"""The formula of step times: the same on numbers and on arrays, and every coefficient counts."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.costs.coefficients import Coefficients
from sim.costs.load import Load
from sim.costs.model import CostModel
from sim.errors import UserError
from tests.costs import REPLAYED, decode, model, prompt

MODELS = [
    model("llama-3.1-8b"),
    model("opt-13b", "a100-40gb", attention="naive", coefficients=Coefficients(paged_attention_overhead=0.23)),
    model("gemma-3-12b"),
    model({"name": "deepseek-v3", "tensor_parallel": 8}, "h200"),
    model(
        {"name": "jamba-v0.1", "tensor_parallel": 4},
        coefficients=Coefficients(sequence_overhead_s=7e-6, step_factor=1.03),
    ),
    model({"name": "gpt-oss-20b", "kv_dtype": "fp8"}, "l4", attention="naive"),
    model("llama-3.1-8b", coefficients=Coefficients(repeated_reads_cached=0.7)),
    model("llama-3.1-8b", coefficients=Coefficients(power_throttle=0.2, power_reserve_s=0.03)),
    model("gemma-3-12b", attention="naive", coefficients=Coefficients(repeated_reads_cached=1.0)),
    model(
        "llama-3.1-8b",
        route="recompute",
        coefficients=Coefficients(recompute_launch_layer_s=2e-5, recompute_slowdown=0.1),
    ),
]
WAITING = model("llama-3.2-1b", coefficients=REPLAYED.changed({"prefill_host_s": 0.5}, ""))
"""Waits for the host, so that a step with a prefill can be longer than one with a larger prefill."""


@st.composite
def loads(draw: st.DrawFn) -> Load:
    """Anything a step may compute and move."""
    seqs, chunks = draw(st.integers(0, 512)), draw(st.integers(0, 8))
    context = draw(st.integers(seqs, 200_000 * seqs)) if seqs else 0
    tokens = draw(st.integers(chunks, 8192 * chunks)) if chunks else 0
    start = draw(st.integers(0, 100_000)) * chunks
    pairs = draw(st.integers(tokens, (start + tokens) ** 2)) if chunks else 0
    rare = st.one_of(st.just(0), st.integers(0, 2**30))
    mapped, unmapped = draw(rare), draw(rare)
    return Load(
        prefill_tokens=tokens,
        prefill_pairs=pairs,
        prefill_context=start + tokens,
        prefill_seqs=chunks,
        decode_seqs=seqs,
        decode_context=context,
        samples=draw(st.integers(0, seqs + chunks)),
        copied_tokens=draw(rare),
        swapped_bytes=draw(rare),
        transfers=draw(rare),
        mapped_pages=mapped,
        unmapped_pages=unmapped,
        mapped_ahead=draw(st.integers(0, mapped)),
        unmapped_ahead=draw(st.integers(0, unmapped)),
        before_ns=draw(rare),
        window_pairs=pairs // 2,
        window_prefill_context=(start + tokens) // 2,
        window_decode_context=context // 3,
        decode_repeated=draw(st.integers(0, context)),
        heat_ns=draw(st.one_of(st.just(0), st.integers(0, 10**8))),
    )


@given(which=st.sampled_from([*MODELS, WAITING]), steps=st.lists(loads(), min_size=1, max_size=20))
def test_a_leap_is_its_steps_to_the_bit(which: CostModel, steps: list[Load]) -> None:
    columns = {
        name: np.array(column, np.int64) for name, column in zip(Load._fields, zip(*steps, strict=True), strict=True)
    }
    leap = which.leap_ns(Load(), **columns)
    assert leap.dtype == np.int64
    assert leap.tolist() == [which.step_ns(step) for step in steps]


@given(
    which=st.sampled_from(MODELS),
    seqs=st.integers(1, 512),
    earlier=st.lists(st.integers(0, 10**8), min_size=1, max_size=50),
    copied=st.booleans(),
    data=st.data(),
)
def test_pure_decode_steps_leapt_over_are_those_steps(
    which: CostModel, seqs: int, earlier: list[int], copied: bool, data: st.DataObject
) -> None:
    repeated = data.draw(st.one_of(st.just(0), st.integers(0, min(earlier))))
    leap = which.decode_ns(seqs, np.array(earlier, np.float64) + seqs, repeated, copied=copied)
    load = Load(decode_seqs=seqs, samples=seqs, decode_repeated=repeated)
    steps = [load._replace(decode_context=tokens + seqs, copied_tokens=copied * tokens) for tokens in earlier]
    assert leap.tolist() == [which.step_ns(step) for step in steps]


@given(which=st.sampled_from(MODELS), load=loads(), field=st.sampled_from(Load._fields), more=st.integers(1, 10**6))
def test_more_of_anything_never_takes_less_time(which: CostModel, load: Load, field: str, more: int) -> None:
    if field == "prefill_tokens":  # more tokens come with their pairs
        larger = load._replace(
            prefill_tokens=load.prefill_tokens + more,
            prefill_context=load.prefill_context + more,
            prefill_pairs=load.prefill_pairs + more,
            window_pairs=load.window_pairs + more,
        )
    else:
        larger = load._replace(**{field: getattr(load, field) + more})
    if field in {"mapped_ahead", "unmapped_ahead", "before_ns", "decode_repeated"}:  # these say what is hidden
        load, larger = larger, load
    assert which.step_ns(larger) >= which.step_ns(load)


def test_nothing_to_run_costs_only_the_step() -> None:
    assert MODELS[0].step_ns(Load()) == 610_000
    assert MODELS[0].step_ns(Load(copied_tokens=1)) > 610_000


def test_every_coefficient_is_named_explained_and_changes_a_step() -> None:
    rows = dict(MODELS[0].explain())
    for entry in fields(Coefficients):
        assert entry.metadata["is"]
        assert entry.metadata["from"]
        assert entry.name in rows
    load = decode(64, 1024)._replace(**prompt(300, 900, 2)._asdict() | {"decode_seqs": 64, "decode_context": 65_536})
    load = load._replace(copied_tokens=9, swapped_bytes=10**6, transfers=2, mapped_pages=3, unmapped_pages=4)
    load = load._replace(behind_ns=10**8, decode_repeated=30_000, heat_ns=10**8)
    pages = {"page_bytes": 128 << 10}
    spec = {"name": "llama-3.1-8b", "tensor_parallel": 2}
    for entry in fields(Coefficients):
        if entry.name in {"wide_factor", "many_factor"}:  # are of captured steps alone (test_captured_files.py)
            continue
        eases = entry.name == "captured_tokens"  # a floor under the step
        replayed = 1e4 if entry.name == "prefill_host_s" else 0.0
        soon = {"behind_ns": 0} if entry.name in {"prefill_host_s", "launch_lead_s"} else {}  # else hidden
        base = Coefficients(
            launch_layer_s=0.1 if eases else 0.0,
            captured_tokens=replayed,
            power_throttle=0.1 if entry.name in {"power_reserve_s", "power_constant_s"} else 0.0,
        )
        changed = base.changed(
            {entry.name: 1e4 if entry.name == "captured_tokens" else entry.default / 2 + 0.1}, "here"
        )
        way = pages if entry.name.startswith("small_page") else {}
        alone = entry.name in {"separate_launch_layer_s", "sequence_launch_layer_s"}
        route = "recompute" if entry.name.startswith("recompute") else "tensors" if alone else "blocks"
        way |= {"attention": "naive", "route": route}
        some = load._replace(prefill_tokens=30) if entry.name == "power_slowdown" else load._replace(**soon)
        before, after = (model(spec, coefficients=c, **way).step_ns(some) for c in (base, changed))
        assert before != after, entry.name


def test_changes_are_shown_as_such() -> None:
    rows = dict(Coefficients(step_overhead_s=0.01).explain())
    assert rows["step_overhead_s"].endswith("(set; default 0.00061)")
    assert "assumed" in rows["link_efficiency"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"step_overhead": 1}, "here: unknown coefficient step_overhead (did you mean step_overhead_s?)"),
        ({"step_overhead_s": -1}, "here: step_overhead_s: -1 is not a number of at least 0"),
        ({"repeated_reads_cached": 2}, "here: repeated_reads_cached: 2 is more than 1, which is all"),
        ({"step_overhead_s": "1"}, 'here: step_overhead_s: "1" is not a number of at least 0'),
        ({"step_overhead_s": float("nan")}, "here: step_overhead_s: .nan is not"),
        ({"step_factor": 0}, "here: step_factor: is more than 0; steps that take no time are of no engine"),
        ({"compute_factor": 0}, "here: compute_factor: is more than 0; steps that take no time are of no engine"),
        ({"pcie_efficiency": 0}, "here: pcie_efficiency: an efficiency is more than 0"),
    ],
)
def test_a_bad_coefficient_gets_one_line(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        Coefficients().changed(values, "here")
    assert words in str(error.value)
