"""log Z of the targets on R^dim against quadrature, and their densities against SciPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from didact.targets import (
    GMM25,
    GMM40,
    Checkerboard,
    EightGaussians,
    Funnel,
    GaussianMixture,
    LogGaussianCox,
    LogisticRegression,
    ManyWell,
    Ring,
)


def log_rewards(target, x: np.ndarray) -> np.ndarray:
    """log R at rows of x, in float64."""
    rewards = jax.jit(jax.vmap(target.log_reward))(jnp.asarray(x, jnp.float32))
    return np.asarray(rewards, np.float64)


def plane(limit: float, number: int) -> tuple[np.ndarray, float]:
    """Midpoints of a grid of squares, and the area of one."""
    middle = (np.arange(number) + 0.5) / number * 2 * limit - limit
    grid = np.stack(np.meshgrid(middle, middle, indexing="ij"), axis=-1)
    return grid.reshape(-1, 2), (2 * limit / number) ** 2


UNEVEN = GaussianMixture(((0.0, 1.0), (3.0, 0.0), (-2.0, -1.0)), (0.5, 0.8, 1.0), (1.0, 3.0, 2.0))


@pytest.mark.parametrize(
    ("target", "limit"),
    [
        (UNEVEN, 8.0),
        (GMM25(), 14.0),
        (GMM40(), 48.0),
        (EightGaussians(), 6.0),
        (Ring(), 6.0),
        (Ring(0.2, 0.5), 6.0),
        (Checkerboard(), 6.0),
        (Checkerboard(3, 1.0, 0.4), 12.0),
        (ManyWell(2), 8.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_log_z_in_the_plane(target, limit):
    x, area = plane(limit, 400)
    log_z = special.logsumexp(log_rewards(target, x)) + math.log(area)
    # 1e-3 would show a missing factor; float32 and the midpoint rule lose less than 1e-4.
    assert abs(log_z - target.log_z) < 1e-4


@pytest.mark.parametrize("eta", [1.0, 3.0])
def test_log_z_of_the_funnel(eta):
    """In x1 and z = x2 exp(-x1/2), where the integrand has one scale."""
    target = Funnel(2, eta)
    u, area = plane(8.0, 200)
    first = eta * u[:, 0]
    x = np.stack([first, np.exp(first / 2) * u[:, 1]], axis=1)
    log_z = special.logsumexp(log_rewards(target, x) + first / 2) + math.log(eta * area)
    assert abs(log_z - target.log_z) < 1e-4


def test_facts_of_many_wells():
    integral, _ = integrate.quad(
        lambda x: math.exp(x / 2 + 6 * x**2 - x**4), -5, 5, points=(-1.7, 1.7), epsrel=1e-11
    )
    assert round(integral, 5) == 11784.50927
    for dim in (2, 32, 128):
        log_z = dim // 2 * (math.log(integral) + 0.5 * math.log(2 * math.pi))
        assert math.isclose(ManyWell(dim).log_z, log_z, rel_tol=1e-11)
    # Published constants: Z_1 to five digits, so log Z to eight.
    assert abs(ManyWell(32).log_z - 164.69567532) < 1e-8
    # Pairs are neighbours: swapping two pairs changes nothing, swapping within one does.
    x = np.random.default_rng(0).normal(size=6)
    swapped = x[[2, 3, 0, 1, 4, 5]], x[[1, 0, 2, 3, 4, 5]]
    value, pairs, within = log_rewards(ManyWell(6), np.stack([x, *swapped]))
    assert math.isclose(value, pairs, abs_tol=1e-4)
    assert abs(value - within) > 0.1


def test_the_table_of_the_25_gaussians():
    means, scales, weights = GMM25().components()
    grid = {(a, b) for a in (-10, -5, 0, 5, 10) for b in (-10, -5, 0, 5, 10)}
    assert {tuple(mean) for mean in means} == grid
    np.testing.assert_allclose(scales**2, 0.3)
    np.testing.assert_allclose(weights, 1 / 25)
    assert (GMM25().log_z, GMM25().num_modes) == (0.0, 25)


def test_the_40_gaussians_are_those_of_pytorch():
    """The first and the last means as PyTorch 2.13 draws them, and their sums for three dim."""
    means, scales, _ = GMM40().components()
    first = [[-0.2994728, 21.457745], [-32.921806, -29.437561], [-15.406175, 10.7262945]]
    np.testing.assert_array_equal(means[:3].astype(np.float32), np.float32(first))
    np.testing.assert_array_equal(means[-1].astype(np.float32), np.float32([3.6797, -25.024214]))
    np.testing.assert_allclose(scales, 1.31326162815094, rtol=1e-7)
    assert GMM40().components().means.sum() == -36.018985748291016
    fifty = GMM40(50).components().means
    assert fifty.sum() == -280.7541608810425
    assert fifty[-1, -1] == 30.13758087158203


@pytest.mark.parametrize("target", [UNEVEN, GMM40(3)], ids=["uneven", "gmm40"])
def test_the_density_of_a_mixture(target):
    means, scales, weights = target.components()
    x = np.random.default_rng(0).uniform(-5, 5, (50, target.dim)).astype(np.float32)
    density = sum(
        w * stats.multivariate_normal.pdf(x.astype(np.float64), mean, s**2)
        for mean, s, w in zip(means, scales, weights, strict=True)
    )
    with np.errstate(divide="ignore"):
        expected = np.log(density)
    known = np.isfinite(expected)
    assert known.sum() > 20
    np.testing.assert_allclose(log_rewards(target, x)[known], expected[known], rtol=2e-5, atol=1e-4)


@pytest.mark.parametrize("dim", [1, 2])
def test_the_evidence_of_a_logistic_regression(dim):
    """The integral of R is the probability of the labels: the likelihood's mean over the prior."""
    target = LogisticRegression(dim, 12, prior_scale=1.5, seed=3)
    features, labels = target.data()
    node, weight = np.polynomial.hermite_e.hermegauss(120)
    node, weight = 1.5 * node, weight / weight.sum()
    if dim == 1:
        nodes, weights = node[:, None], weight
        x, cell = np.linspace(-12, 12, 4001)[:, None], 24 / 4000
    else:
        nodes = np.stack(np.meshgrid(node, node, indexing="ij"), axis=-1).reshape(-1, 2)
        weights = np.outer(weight, weight).ravel()
        x, cell = plane(12.0, 400)
    chance = special.expit(nodes @ features.T)
    evidence = weights @ np.prod(np.where(labels == 1, chance, 1 - chance), axis=1)
    log_z = special.logsumexp(log_rewards(target, x)) + math.log(cell)
    assert abs(log_z - math.log(evidence)) < 1e-4
    assert target.log_z is None


def test_the_density_of_a_cox_process():
    """Prior and likelihood by SciPy; the published density leaves out c log a and log c!."""
    side, mu, sigma2, beta = 3, 2.0, 0.8, 0.3
    target = LogGaussianCox(side, mu, sigma2, beta, seed=1)
    counts = target.counts()
    assert counts.sum() > 0
    place = np.asarray([(i, j) for i in range(side) for j in range(side)]) / side
    distance = np.linalg.norm(place[:, None] - place[None], axis=-1)
    prior = stats.multivariate_normal(np.full(9, mu), sigma2 * np.exp(-distance / beta))
    x = np.random.default_rng(0).normal(mu, 1, (20, 9)).astype(np.float32).astype(np.float64)
    poisson = stats.poisson.logpmf(counts, np.exp(x) / 9)
    left_out = counts * math.log(9) + special.gammaln(counts + 1)
    expected = prior.logpdf(x) + np.sum(poisson + left_out, axis=1)
    np.testing.assert_allclose(log_rewards(target, x), expected, rtol=1e-5, atol=1e-3)
    assert target.log_z is None


def test_the_field_of_a_cox_process_is_exponential_up_to_60():
    """Beyond, log R goes on as a tangent: finite, falling, and far below float32's smallest."""
    target = LogGaussianCox(1)
    x = np.asarray([[59.0], [60.0], [61.0], [70.0]])
    value = log_rewards(target, x)
    np.testing.assert_allclose(value[:2], -np.exp([59.0, 60.0]), rtol=1e-5)
    np.testing.assert_allclose(value[2:], -math.exp(60) * np.asarray([2.0, 11.0]), rtol=1e-5)
