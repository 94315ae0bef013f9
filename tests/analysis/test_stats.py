from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from analysis import stats


def test_weighted_percentiles_equal_those_of_the_multiset() -> None:
    rng = np.random.default_rng(1)
    for size in (1, 2, 7, 100):
        values, weights = rng.normal(size=size), rng.integers(0, 5, size)
        if not weights.sum():
            weights[0] = 1
        quantiles = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)
        expected = np.percentile(np.repeat(values, weights), [100 * q for q in quantiles])
        assert stats.weighted_percentiles(values, weights, quantiles) == pytest.approx(expected)


def test_weighted_percentiles_of_nothing_do_not_exist() -> None:
    assert np.isnan(stats.weighted_percentiles(np.zeros(3), np.zeros(3, int), (0.5,))).all()


def test_bootstrap_is_seeded() -> None:
    values = np.random.default_rng(2).exponential(size=300)
    assert stats.bootstrap(values, (0.5,), stats.Draws(3)) == stats.bootstrap(values, (0.5,), stats.Draws(3))
    assert stats.bootstrap(values, (0.5,), stats.Draws(3)) != stats.bootstrap(values, (0.5,), stats.Draws(4))


def test_bootstrap_covers_the_truth_about_95_times_of_100() -> None:
    rng = np.random.default_rng(5)
    mean = median = 0
    for trial in range(200):
        (low, high), [(below, above)] = stats.bootstrap(rng.exponential(size=1000), (0.5,), stats.Draws(trial))
        mean += low <= 1 <= high
        median += below <= np.log(2) <= above
    assert 176 <= mean <= 200
    assert 176 <= median <= 200


def test_bootstrap_of_a_correlated_series_is_wider_than_that_of_a_shuffled_one() -> None:
    rng = np.random.default_rng(6)
    noise = rng.normal(size=5000)
    series = np.empty(5000)
    series[0] = 0
    for at in range(1, 5000):
        series[at] = 0.95 * series[at - 1] + noise[at]
    (low, high), _ = stats.bootstrap(series, ())
    shuffled = series.copy()
    rng.shuffle(shuffled)
    (low_shuffled, high_shuffled), _ = stats.bootstrap(shuffled, ())
    assert high - low > 2.5 * (high_shuffled - low_shuffled)


def test_binned_bootstrap_agrees_with_the_exact_one() -> None:
    values = np.random.default_rng(7).lognormal(size=40_000)
    _, [(low, high)] = stats.bootstrap(values, (0.9,))
    truth = float(np.percentile(values, 90))
    assert low < truth < high
    assert high - low < 0.1 * truth


def test_one_value_has_no_interval() -> None:
    (low, _), _ = stats.bootstrap(np.ones(1), ())
    assert np.isnan(low)


def test_t_interval_by_hand() -> None:
    interval = stats.t_interval(np.array([1.0, 2.0, 3.0]))
    half = 4.302652729911275 * 1 / 3**0.5
    assert interval == pytest.approx((2.0, 2 - half, 2 + half, 3))
    assert not interval.clear
    assert stats.t_interval(np.array([5.0])).low == -np.inf


def test_welch_agrees_with_scipy_and_holds_the_truth_about_95_times_of_100() -> None:
    draw = np.random.default_rng(7)
    hits = 0
    for _ in range(400):
        one, two = draw.normal(3, 1, 5), draw.normal(4, 3, 9)
        found = stats.unpaired_difference(one, two)
        theirs = scipy_stats.ttest_ind(two, one, equal_var=False).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))
        hits += found.low <= 1 <= found.high
    assert 0.92 < hits / 400 < 0.98
    assert stats.unpaired_difference(np.array([1.0, 1.0]), np.array([3.0, 3.0])) == (2, 2, 2, 2)
    assert stats.unpaired_difference(np.array([1.0]), np.array([3.0, 3.0])) == (2, -np.inf, np.inf, 1)


def test_pairing_removes_what_is_common() -> None:
    common = np.random.default_rng(8).normal(scale=100, size=10)
    change = stats.paired_difference(common, common + np.linspace(0.9, 1.1, 10))
    assert change.value == pytest.approx(1.0)
    assert change.high - change.low < 0.2
    assert change.clear


def test_paired_ratio_is_a_ratio() -> None:
    first = np.array([1.0, 2.0, 4.0])
    assert stats.paired_ratio(first, 3 * first)[:3] == pytest.approx((3, 3, 3))


def test_a_ratio_s_interval_of_many_orders_of_magnitude_tells_nothing() -> None:
    one = np.array([1.0, 2.0])
    assert stats.is_narrow(stats.paired_ratio(one, one * [2, 2.5]))
    assert not stats.is_narrow(stats.paired_ratio(one, one * [2, 4]))
    assert not stats.is_narrow(stats.paired_ratio(one[:1], one[:1]))
    assert not stats.is_narrow(stats.paired_ratio(one[:0], one[:0]))


def test_percentiles_equal_those_of_numpy_to_the_last_bit() -> None:
    rng = np.random.default_rng(2)
    quantiles = (0.0, 0.025, 0.5, 0.9, 0.99, 1.0)
    for size in (1, 2, 7, 100, 999):
        values = rng.lognormal(size=(3, size))
        expected = np.percentile(values, [100 * q for q in quantiles], axis=-1).T
        assert (stats.percentiles(values, quantiles) == expected).all()


@pytest.mark.parametrize("values", [[], [3], [2, 2, 2], [5, -1, 5, 0, -1]])
def test_distinct_values_are_those_of_numpy(values: list[int]) -> None:
    found = stats.distinct(np.array(values, np.int64))
    assert found.dtype == np.int64
    assert found.tolist() == np.unique(values).tolist()


@pytest.mark.parametrize("far", [1.0, 1e9], ids=["even", "one far away"])
def test_ranks_among_many_values_are_found_in_their_bins(far: float) -> None:
    rng = np.random.default_rng(3)
    values, weights = rng.choice(rng.normal(size=5000), 20_000), rng.integers(0, 5, 20_000)
    values[0], weights[0] = far, 1
    quantiles = (0.0, 0.01, 0.5, 0.999, 1.0)
    expected = np.percentile(np.repeat(values, weights), [100 * q for q in quantiles])
    assert stats.weighted_percentiles(values, weights, quantiles) == pytest.approx(expected, rel=1e-12)


def test_where_most_values_are_equal_so_are_the_bounds_of_their_percentiles() -> None:
    # As the waits of a queue that is often empty.  Whatever their number, 0 must not become the next larger value.
    rng = np.random.default_rng(8)
    for zeros in range(12_000, 12_008):
        values = np.zeros(20_000)
        values[zeros:] = rng.exponential(size=20_000 - zeros)
        rng.shuffle(values)
        _, [median, (low, _)] = stats.bootstrap(values, (0.5, 0.9))
        assert median == (0, 0)
        assert low > 0


def test_a_bootstrap_finds_what_counting_its_draws_finds() -> None:
    rng = np.random.default_rng(4)
    values = rng.exponential(size=400)
    draws = np.random.default_rng(5).multinomial(50, np.full(50, 1 / 50), size=30)
    blocks = values.reshape(50, 8)
    expected = []
    for drawn in draws:
        ordered = np.sort(np.repeat(blocks, drawn, axis=0).ravel())
        expected.append(ordered[int(np.ceil(np.float32(0.9) * np.float32(400))) - 1])
    low, high = np.percentile(expected, (2.5, 97.5))
    assert stats.bootstrap(values, (0.9,), stats.Draws(5, resamples=30))[1] == [pytest.approx((low, high))]
