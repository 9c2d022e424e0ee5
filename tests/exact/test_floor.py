"""The discretisation floor, against closed forms, simulation and known values."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import logsumexp

from didact.metrics.floor import Floor, discretisation_floor

MEANS = np.array([-10.0, -5.0, 0.0, 5.0, 10.0])
ONES = np.ones(100)
LOG_Z_MANYWELL = 164.69567532


def normal(mean: float, variance: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: -((x - mean) ** 2) / (2 * variance)


def five(x: np.ndarray) -> np.ndarray:
    """One coordinate of the 25 Gaussians."""
    return np.asarray(logsumexp(-((x[:, None] - MEANS) ** 2) / 0.6, axis=1))


def double_well(x: np.ndarray) -> np.ndarray:
    return 0.5 * x + 6 * x**2 - x**4


def kl(variance: float, of_sampler: float) -> float:
    """KL of two Gaussians with one mean."""
    ratio = variance / of_sampler
    return 0.5 * (ratio - 1 - math.log(ratio))


def test_no_floor_where_the_reference_process_is_exact():
    decay, variance = np.array([1.0, 0.9, 0.8, 0.7]), np.array([0.3, 0.2, 0.5, 0.4])
    v = 0.0
    for a, q in zip(decay, variance, strict=True):
        v = a * a * v + q
    for learned in (False, True):
        floor = discretisation_floor(
            normal(0, v), decay, variance, bounds=(-8.0, 8.0), learned_variance=learned
        )
        assert floor.elbo == pytest.approx(0, abs=1e-9)
        assert floor.eubo == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("target", [0.5, 2.0])
def test_one_step_is_a_divergence_of_gaussians(target):
    q = 1.3
    step = np.ones(1), np.array([q])
    floor = discretisation_floor(normal(1.5, target), *step, bounds=(-14.0, 16.0))
    assert floor.eubo == pytest.approx(kl(target, q), abs=1e-9)
    assert floor.elbo == pytest.approx(-kl(q, target), abs=1e-9)
    exact = discretisation_floor(
        normal(1.5, target), *step, bounds=(-14.0, 16.0), learned_variance=True
    )
    assert exact.eubo == pytest.approx(0, abs=1e-9)


def test_any_gaussian_target():
    """Given a state, the next one has a variance that does not depend on the state."""
    T, sigma2, target = 6, 2.0, 0.4
    q = np.full(T, sigma2 / T)
    i = np.arange(T)
    v, w = sigma2 * i / T, sigma2 * (T - i) / T
    # Variance of the end given s_i, then of s_{i+1}, which is on a bridge to the end.
    end = 1 / (1 / target + v / (sigma2 * w))
    following = q * (w - q) / w + (q / w) ** 2 * end
    expected = sum(kl(a, b) for a, b in zip(following, q, strict=True))
    floor = discretisation_floor(normal(0.7, target), np.ones(T), q, bounds=(-5.0, 6.0))
    assert floor.eubo == pytest.approx(expected, abs=1e-9)
    exact = discretisation_floor(
        normal(0.7, target), np.ones(T), q, bounds=(-5.0, 6.0), learned_variance=True
    )
    assert exact.eubo == pytest.approx(0, abs=1e-9)
    assert exact.elbo == pytest.approx(0, abs=1e-9)


class Mixture:
    """Two Gaussians, and three steps: the sampler's steps in closed form, from Bayes' rule."""

    weights, means, width = np.array([0.3, 0.7]), np.array([-1.5, 1.0]), 0.2
    decay, variance = np.array([1.0, 0.8, 0.9]), np.array([0.5, 0.7, 0.4])

    def __init__(self):
        v = [0.0]
        for a, q in zip(self.decay, self.variance, strict=True):
            v.append(a * a * v[-1] + q)
        self.v = np.array(v)
        # Law of every state: x walked back with P_B, one component at a time.
        self.state_mean, self.state_variance = [self.means], [self.width]
        for i in (2, 1, 0):
            c, r = self.back(i)
            self.state_mean.insert(0, c * self.state_mean[0])
            self.state_variance.insert(0, c * c * self.state_variance[0] + r)

    def back(self, i: int) -> tuple[float, float]:
        a, q, v = self.decay[i], self.variance[i], self.v
        return a * v[i] / v[i + 1], v[i] * q / v[i + 1]

    def log_density(self, x: np.ndarray) -> np.ndarray:
        return np.log(np.exp(log_normal(x[:, None], self.means, self.width)) @ self.weights)

    def following(self, i: int, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of s_{i+1} given s_i."""
        c, r = self.back(i)
        prior_mean, prior = self.state_mean[i + 1], self.state_variance[i + 1]
        if i == 0:
            prior_mean = self.weights @ prior_mean
            spread = self.weights @ (self.state_mean[1] - prior_mean) ** 2
            return np.full_like(s, prior_mean), np.full_like(s, prior + spread)
        total = c * c * prior + r
        gain = c * prior / total
        each = prior_mean + gain * (s[:, None] - c * prior_mean)
        odds = self.weights * np.exp(-((s[:, None] - c * prior_mean) ** 2) / (2 * total))
        odds /= odds.sum(1, keepdims=True)
        mean = (odds * each).sum(1)
        spread = (odds * (each - mean[:, None]) ** 2).sum(1)
        return mean, prior - gain * c * prior + spread

    def step(self, i: int, s: np.ndarray, learned: bool) -> tuple[np.ndarray, np.ndarray]:
        mean, variance = self.following(i, s)
        return mean, variance if learned else np.full_like(s, self.variance[i])

    def log_weight(self, path: list[np.ndarray], learned: bool) -> np.ndarray:
        w = self.log_density(path[3])
        for i in range(3):
            w -= log_normal(path[i + 1], *self.step(i, path[i], learned))
            if i > 0:
                c, r = self.back(i)
                w += log_normal(path[i], c * path[i + 1], r)
        return w

    def backward(self, rng, n: int) -> list[np.ndarray]:
        which = rng.choice(2, n, p=self.weights)
        path = [self.means[which] + math.sqrt(self.width) * rng.standard_normal(n)]
        for i in (2, 1, 0):
            c, r = self.back(i)
            path.insert(0, c * path[0] + math.sqrt(r) * rng.standard_normal(n))
        return path

    def forward(self, rng, n: int, learned: bool) -> list[np.ndarray]:
        path = [np.zeros(n)]
        for i in range(3):
            mean, variance = self.step(i, path[-1], learned)
            path.append(mean + np.sqrt(variance) * rng.standard_normal(n))
        return path


def log_normal(x, mean, variance):
    return -((x - mean) ** 2) / (2 * variance) - 0.5 * np.log(2 * np.pi * variance)


@pytest.mark.parametrize("learned", [False, True])
def test_simulated_paths_agree(learned):
    """At an error rate of 6e-5 for each bound (4 deviations); the floor of steps with a tenth more
    noise is found to be wrong.
    """
    case, rng, n = Mixture(), np.random.default_rng(0), 200_000
    eubo = case.log_weight(case.backward(rng, n), learned)
    elbo = case.log_weight(case.forward(rng, n, learned), learned)

    def floor(factor: float) -> Floor:
        return discretisation_floor(
            case.log_density,
            case.decay,
            factor * case.variance,
            bounds=(-5.0, 5.0),
            learned_variance=learned,
        )

    def agrees(floor: Floor, deviations: float) -> bool:
        return all(
            abs(w.mean() - value) < deviations * w.std() / math.sqrt(n)
            for w, value in ((eubo, floor.eubo), (elbo, floor.elbo))
        )

    assert floor(1.0).elbo < -0.01 < 0.01 < floor(1.0).eubo
    assert agrees(floor(1.0), 4)
    assert not agrees(floor(1.1), 6)


@pytest.mark.parametrize(
    ("sigma2", "learned", "elbo", "eubo"),
    [
        (1.0, False, -0.256988, 0.277882),
        (4.0, False, -0.121384, 0.119370),
        (5.0, False, -0.126392, 0.122249),
        (1.0, True, -0.004496, 0.004397),
        (5.0, True, -0.003487, 0.003343),
    ],
)
def test_the_floors_of_25_gaussians(sigma2, learned, elbo, eubo):
    coordinate = discretisation_floor(
        five, ONES, sigma2 * ONES / 100, bounds=(-14.0, 14.0), learned_variance=learned, points=400
    )
    assert (2 * coordinate).elbo == pytest.approx(elbo, abs=1e-6)
    assert (2 * coordinate).eubo == pytest.approx(eubo, abs=1e-6)


def test_the_floor_of_manywell():
    q = ONES / 100
    wells = discretisation_floor(double_well, ONES, q, bounds=(-3.2, 3.2), points=300)
    # The other coordinate is N(0, 1), as the reference process is at its end.
    gaussian = discretisation_floor(normal(0, 1), ONES, q, bounds=(-9.0, 9.0), points=300)
    floor = 16 * (wells + gaussian)
    assert floor.eubo + LOG_Z_MANYWELL == pytest.approx(165.5799, abs=1e-3)
    assert floor.elbo + LOG_Z_MANYWELL == pytest.approx(163.7362, abs=1e-3)


def test_twice_the_points_change_nothing():
    q = ONES[:10] / 10
    coarse, fine = (
        discretisation_floor(double_well, ONES[:10], q, bounds=(-4.0, 4.0), points=points)
        for points in (300, 600)
    )
    assert coarse.elbo == pytest.approx(fine.elbo, abs=1e-8)
    assert coarse.eubo == pytest.approx(fine.eubo, abs=1e-8)


def test_errors_name_the_remedy():
    q = ONES / 100
    with pytest.raises(ValueError, match="too few for these steps"):
        discretisation_floor(five, ONES, q, bounds=(-14.0, 14.0), points=100)
    with pytest.raises(ValueError, match="widen them"):
        discretisation_floor(five, ONES, q, bounds=(-10.0, 10.0))
    with pytest.raises(ValueError, match="give more points"):  # the target is a spike
        discretisation_floor(
            normal(0, 1e-4),
            ONES[:1],
            ONES[:1],
            bounds=(-9.0, 9.0),
            points=40,
            learned_variance=True,
        )
    with pytest.raises(ValueError, match="must be positive"):
        discretisation_floor(five, ONES, 0 * q, bounds=(-14.0, 14.0))
    with pytest.raises(ValueError, match="low < high"):
        discretisation_floor(five, ONES, q, bounds=(14.0, -14.0))
    with pytest.raises(ValueError, match="narrow the bounds"):
        discretisation_floor(lambda x: np.where(x < 0, -np.inf, -x), ONES, q, bounds=(-1.0, 50.0))
