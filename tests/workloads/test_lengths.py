"""Lengths have the moments that they are given by."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy.stats import kendalltau

from workloads.distributions import Quantity
from workloads.errors import WorkloadError
from workloads.lengths import Lengths, tokens
from workloads.requests import Ints
from workloads.streams import stream

N = 200_000


def draw(count: int = N, seed: int = 0, **block: Any) -> tuple[Ints, Ints]:
    return TypeAdapter(Lengths).validate_python(block).draw(stream(seed, "lengths"), count)


def test_sharegpt_has_the_statistics_of_its_readme() -> None:
    prompt, output = draw(kind="sharegpt")
    assert prompt.mean() == pytest.approx(223.9, rel=0.01)
    assert output.mean() == pytest.approx(230.8, rel=0.01)
    assert np.percentile(prompt, [50, 90, 99, 100]) == pytest.approx([96, 636, 961, 1024], rel=0.02)
    prompt, output = draw(kind="sharegpt", tokenizer="llama3")
    assert (prompt.mean(), output.mean()) == pytest.approx((196.2, 202.1), rel=0.01)


def test_sharegpt_draws_rows_and_not_columns() -> None:
    prompt, output = draw(kind="sharegpt")
    assert (prompt + output).max() <= 2048


def test_lognormal_meets_mean_and_p90() -> None:
    prompt, output = draw(
        kind="lognormal", prompt={"mean": 1000.0, "p90": 2000.0}, output={"mean": 338.0, "sigma": 0.8}
    )
    assert prompt.mean() == pytest.approx(1000, rel=0.01)
    assert np.percentile(prompt, 90) == pytest.approx(2000, rel=0.015)
    assert output.mean() == pytest.approx(338, rel=0.01)
    assert np.log(output).std() == pytest.approx(0.8, rel=0.01)


def test_gamma_meets_mean_and_cv() -> None:
    prompt, output = draw(kind="gamma", prompt={"mean": 161.0, "cv": 1.5}, output={"mean": 338.0, "cv": 0.87})
    assert output.mean() == pytest.approx(338, rel=0.01)
    assert output.std() / output.mean() == pytest.approx(0.87, rel=0.01)
    assert prompt.std() / prompt.mean() == pytest.approx(1.5, rel=0.02)


def test_uniform_gives_both_ends_their_due() -> None:
    prompt, output = draw(kind="uniform", prompt={"min": 3, "max": 6}, output={"min": 7, "max": 7})
    assert np.bincount(prompt)[3:] / N == pytest.approx([0.25] * 4, abs=0.01)
    assert set(output) == {7}
    prompt, _ = draw(kind="uniform", prompt={"min": 3, "max": 6}, output={"min": 7, "max": 9}, correlation=0.5)
    assert np.bincount(prompt)[3:] / N == pytest.approx([0.25] * 4, abs=0.01)


def test_lengths_beyond_all_contexts_are_lengths_all_the_same() -> None:
    """They are refused or cut like any that is too long; as whole numbers they would have been negative."""
    assert tokens(np.array([1e300, 1e20, 3.2, 0.0])).tolist() == [1 << 31, 1 << 31, 3, 1]


def test_fixed_is_fixed() -> None:
    prompt, output = draw(5, kind="fixed", prompt=10, output=3)
    assert (prompt.tolist(), output.tolist()) == ([10] * 5, [3] * 5)


@pytest.mark.parametrize(
    "block",
    [
        {"kind": "lognormal", "prompt": {"mean": 500.0, "sigma": 0.5}, "output": {"mean": 300.0, "sigma": 0.5}},
        {"kind": "gamma", "prompt": {"mean": 500.0, "cv": 0.5}, "output": {"mean": 300.0, "cv": 0.5}},
        {"kind": "uniform", "prompt": {"min": 1, "max": 900}, "output": {"min": 1, "max": 900}},
        {
            "kind": "marginals",
            "prompt": {"kind": "exponential", "mean": 500.0},
            "output": {"kind": "quantiles", "values": [1.0, 500.0, 1000.0]},
        },
        {"kind": "marginals", "prompt": {"kind": "uniform", "min": 5.0, "max": 500.0}, "output": 100.0},
    ],
)
def test_correlation_changes_the_pairing_and_not_the_margins(block: dict[str, Any]) -> None:
    free, tied = draw(**block), draw(**block, correlation=0.7)
    for alone, together in zip(free, tied, strict=True):
        assert together.mean() == pytest.approx(alone.mean(), rel=0.02)
        assert np.percentile(together, [10, 50, 90]) == pytest.approx(np.percentile(alone, [10, 50, 90]), rel=0.03)
    if free[1].std():
        # Kendall's tau of a Gaussian copula is 2/pi arcsin(rho).
        assert kendalltau(tied[0][:5000], tied[1][:5000])[0] == pytest.approx(2 / np.pi * np.arcsin(0.7), abs=0.03)
        assert abs(kendalltau(free[0][:5000], free[1][:5000])[0]) < 0.03


@given(
    st.sampled_from(
        [
            {"kind": "fixed", "value": 3.5},
            {"kind": "uniform", "min": 2.0, "max": 9.0},
            {"kind": "exponential", "mean": 30.0, "max": 100.0},
            {"kind": "lognormal", "mean": 30.0, "sigma": 2.0, "min": 5.0, "max": 100.0},
            {"kind": "gamma", "mean": 30.0, "cv": 3.0, "max": 100.0},
            {"kind": "quantiles", "values": [1.0, 1.0, 50.0, 99.0]},
        ]
    ),
    st.integers(0, 2**32),
    st.integers(1, 300),
)
def test_draws_are_clipped_and_stable(block: dict[str, Any], seed: int, count: int) -> None:
    quantity = TypeAdapter(Quantity).validate_python(block)
    values = quantity.draw(stream(seed, "q"), 300)
    assert (values[:count] == quantity.draw(stream(seed, "q"), count)).all()
    assert values.min() >= quantity.min
    assert values.max() <= (quantity.max or np.inf)
    ordered = quantity.from_normal(np.linspace(-8, 8, 50))
    assert (np.diff(ordered) >= 0).all()
    assert np.isfinite(ordered).all()


def test_quantiles_must_ascend() -> None:
    with pytest.raises(ValidationError, match="values must ascend, but 5 stands before 2"):
        TypeAdapter(Quantity).validate_python({"kind": "quantiles", "values": [1.0, 5.0, 2.0]})


class TestCsv:
    def test_draws_rows(self, tmp_path: Path) -> None:
        path = tmp_path / "pairs.csv.gz"
        path.write_bytes(gzip.compress(b"p,x,o\r\n1,a,10\r\n2,b,20\r\n"))
        prompt, output = draw(100, kind="csv", path=str(path), prompt="p", output="o")
        assert set(zip(prompt.tolist(), output.tolist(), strict=True)) == {(1, 10), (2, 20)}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("p,o\n1,2\n0,3\n", "pairs.csv:3: p: must be at least 1 and no absurd number, got 0"),
            ("p,o\n1,2\n\n3,\n", "pairs.csv:4: o: must be at least 1 and no absurd number, got nan"),
            ("p,o\n1,2\nx,3\n", "pairs.csv:3: p: not a number: x"),
            ("p,o\n1,2\n3\n", "pairs.csv:3: 1 cells where the header has 2"),
            ("p,q\n1,2\n", "pairs.csv:1: no column o; columns: p, q"),
            ("p,o\n", "pairs.csv: no row in it"),
            ("", "pairs.csv:1: no column p"),
        ],
    )
    def test_faults_name_the_line(self, tmp_path: Path, text: str, message: str) -> None:
        path = tmp_path / "pairs.csv"
        path.write_text(text)
        with pytest.raises(WorkloadError) as error:
            draw(5, kind="csv", path=str(path), prompt="p", output="o")
        assert message in str(error.value)
