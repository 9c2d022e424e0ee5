"""Estimates from importance weights, against closed forms for log-normal weights.

With w ~ N(m, s²), log Z = m + s²/2, the ELBO is m, and the mean of w over the target's
trajectories, whose law has density e^w/Z, is m + s².
"""

import math

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import binom

from didact.metrics import weights

FITS = 250
ERROR_RATE = 1e-4


def normal_quantiles(n: int) -> np.ndarray:
    return ndtri((np.arange(1, n + 1) - 0.5) / n)


def test_values_for_log_normal_weights():
    m, s, z = 3.0, 0.5, normal_quantiles(20_001)
    assert weights.elbo(m + s * z).value == pytest.approx(m, abs=1e-9)
    assert weights.eubo(m + s * s + s * z).value == pytest.approx(m + s * s, abs=1e-9)
    assert weights.log_z(m + s * z).value == pytest.approx(m + s * s / 2, abs=1e-4)
    assert weights.ess_share(m + s * z) == pytest.approx(math.exp(-s * s), rel=1e-3)
    assert weights.ess(m + s * z) == pytest.approx(20_001 * math.exp(-s * s), rel=1e-3)
    assert weights.elbo(m + s * z).standard_error == pytest.approx(s / 20_001**0.5, rel=1e-3)


def test_intervals_of_the_bounds_are_students():
    estimate = weights.elbo(np.array([0.0, 1.0, 2.0]), level=0.95)
    half = 4.302652729911275 / 3**0.5  # the 0.975-quantile of Student's t with 2 degrees
    assert estimate.low == pytest.approx(1 - half)
    assert estimate.high == pytest.approx(1 + half)


@pytest.mark.parametrize("s", [0.3, 1.5])
def test_intervals_of_log_z_hold_it_as_often_as_they_say(s):
    """Chance of a false alarm: `ERROR_RATE` for each s, if 88 to 92 % is right."""
    rng = np.random.default_rng(0)
    log_weights = s * rng.standard_normal((FITS, 1000))
    held = held_wrongly = 0
    for w in log_weights:
        estimate = weights.log_z(w)
        held += estimate.low <= s * s / 2 <= estimate.high
        # Wrong in a stated way: the mean of w, taken for log Z, is too low by s²/2.
        held_wrongly += estimate.low <= 0 <= estimate.high
    lowest = binom.ppf(ERROR_RATE / 2, FITS, 0.88)
    assert lowest <= held <= binom.ppf(1 - ERROR_RATE / 2, FITS, 0.92)
    assert held_wrongly < lowest


def test_a_heavier_tail_lengthens_the_upper_end():
    estimate = weights.log_z(2 * normal_quantiles(1000))
    assert estimate.high - estimate.value > 1.5 * (estimate.value - estimate.low)


def test_everything_moves_with_a_constant_factor():
    w = normal_quantiles(100)
    first, second = weights.log_z(w), weights.log_z(w + 1e4)
    for name in ("value", "low", "high"):
        assert getattr(second, name) == pytest.approx(getattr(first, name) + 1e4, abs=1e-8)
    assert second.standard_error == pytest.approx(first.standard_error)
    assert weights.ess(w + 1e4) == pytest.approx(weights.ess(w))
    assert weights.k_hat(w + 1e4) == pytest.approx(weights.k_hat(w))


@pytest.mark.parametrize(
    ("s", "n", "value"),
    # As ArviZ has them: arviz_stats 0.8.0, base.array_stats.psislw(-w)[1].
    [
        (0.5, 1000, 0.10856919694406411),
        (1.0, 1000, 0.2904924281456571),
        (2.0, 1000, 0.6648671180631174),
    ],
)
def test_k_hat_is_arvizs(s, n, value):
    assert weights.k_hat(s * normal_quantiles(n)) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("k", [-0.3, 0.0, 0.4, 0.9])
def test_k_hat_finds_the_shape_of_a_pareto_law(k):
    p = (np.arange(1, 100_001) - 0.5) / 100_000
    weight = -np.log1p(-p) if k == 0 else np.expm1(-k * np.log1p(-p)) / k
    assert weights.k_hat(np.log(weight)) == pytest.approx(k, abs=0.05)


def test_a_mean_that_does_not_exist_is_noticed():
    p = (np.arange(1, 10_001) - 0.5) / 10_000
    assert weights.k_hat(-1.5 * np.log1p(-p)) > 1 > weights.k_threshold(10_000)
    assert weights.k_threshold(10_000) == 0.7
    assert weights.k_threshold(100) == 0.5


def test_constant_weights():
    w = np.full(50, -2.5, np.float32)
    assert weights.log_z(w) == weights.Estimate(-2.5, -2.5, -2.5, 0.0, 0.9)
    assert weights.elbo(w) == weights.Estimate(-2.5, -2.5, -2.5, 0.0, 0.9)
    assert weights.ess(w) == 50
    assert weights.k_hat(w) == -math.inf


def test_weights_with_few_values():
    two = np.repeat([0.0, 1.0], [90, 10])
    assert weights.k_hat(two) < 0  # bounded, and the bound is reached often
    assert weights.k_hat(np.repeat([0.0, 1.0], [50, 50])) == -math.inf
    assert math.isnan(weights.k_hat(np.repeat([0.0, 5.0], [998, 2])))
    for w in (two, np.repeat([0.0, 5.0], [998, 2])):
        estimate = weights.log_z(w)
        assert estimate.low < estimate.value < estimate.high < math.inf


@pytest.mark.parametrize("n", [2, 5, 24])
def test_few_draws(n):
    estimate = weights.log_z(normal_quantiles(n))
    assert estimate.low < estimate.value < estimate.high < math.inf
    assert math.isnan(weights.k_hat(normal_quantiles(n)))


def test_weights_of_zero():
    w = np.concatenate([np.full(100, -math.inf), normal_quantiles(100)])
    estimate = weights.log_z(w)
    assert estimate.value == pytest.approx(weights.log_z(normal_quantiles(100)).value - math.log(2))
    assert estimate.low < estimate.value < estimate.high
    assert math.isfinite(weights.k_hat(w))
    assert weights.ess(w) == pytest.approx(weights.ess(normal_quantiles(100)))
    assert weights.elbo(w).high == -math.inf
    assert weights.eubo(-w).low == math.inf

    nothing = np.full(10, -math.inf)
    assert weights.log_z(nothing).value == -math.inf
    assert weights.log_z(nothing).high == math.inf
    assert weights.ess(nothing) == 0
    assert weights.k_hat(nothing) == -math.inf


def test_errors_name_the_remedy():
    good = np.zeros(3)
    with pytest.raises(ValueError, match="Log weight 1 is nan"):
        weights.log_z(np.array([0.0, math.nan]))
    with pytest.raises(ValueError, match="Log weight 0 is inf"):
        weights.elbo(np.array([math.inf, 0.0]))
    with pytest.raises(ValueError, match="Log weight 0 is -inf"):
        weights.eubo(np.array([-math.inf, 0.0]))
    with pytest.raises(ValueError, match="two or more draws"):
        weights.elbo(good[:1])
    with pytest.raises(ValueError, match="at least one"):
        weights.ess(good[:0])
    with pytest.raises(ValueError, match="between 0 and 1"):
        weights.log_z(good, level=90.0)


def test_normalised_weights_sum_to_1_at_any_height():
    log_weight = np.asarray([-2_000.0, -2_000.0 + math.log(3), -math.inf])
    np.testing.assert_allclose(weights.normalised(log_weight), [0.25, 0.75, 0.0], rtol=1e-12)
