"""Means, standard errors and paired intervals, against SciPy and closed forms."""

import math

import numpy as np
import pytest
from scipy import stats

from didact.bench._statistics import paired, spread


def test_mean_and_standard_error_are_those_of_scipy() -> None:
    values = [0.3, 1.9, -2.5, 4.0, 0.1]
    found = spread(values)
    assert found is not None
    assert found.n == 5
    assert found.mean == pytest.approx(np.mean(values))
    assert found.error == pytest.approx(stats.sem(values))


def test_one_value_has_no_error_and_none_has_no_mean() -> None:
    found = spread([2.0, math.nan])
    assert found is not None
    assert (found.mean, found.n) == (2.0, 1)
    assert math.isnan(found.error)
    assert spread([math.nan, math.inf]) is None


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_paired_intervals_are_those_of_the_paired_t_test(level: float) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=6), rng.normal(size=6)
    found = paired(dict(enumerate(first)), dict(enumerate(second)), level=level)
    wanted = stats.ttest_rel(first, second).confidence_interval(level)
    assert found is not None
    assert found.n == 6
    assert found.mean == pytest.approx(np.mean(first - second))
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_two_pairs_by_hand() -> None:
    """Differences 1 and 3: s/√n = 1, and the 97.5 % quantile of Student's t with one degree of
    freedom, a Cauchy law, is tan(0.475π).
    """
    found = paired({0: 2.0, 1: 5.0}, {0: 1.0, 1: 2.0})
    assert found is not None
    half = math.tan(0.475 * math.pi)
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, 2.0 - half, 2.0 + half))


def test_only_seeds_that_both_have_are_paired() -> None:
    found = paired({0: 1.0, 1: 2.0, 7: 9.0}, {1: 1.5, 0: 0.0, 3: 100.0})
    assert found is not None
    assert found.n == 2
    assert found.mean == pytest.approx(0.75)
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_one_pair_has_no_interval() -> None:
    found = paired({4: 3.0}, {4: 1.0})
    assert found is not None
    assert found.mean == 2.0
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_pairing_takes_out_what_seeds_share() -> None:
    """The interval of values that differ by 1 at every seed has no width, whatever the seeds do."""
    shared = {seed: 100.0 * seed for seed in range(5)}
    found = paired({seed: value + 1 for seed, value in shared.items()}, shared)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((1.0, 1.0))
