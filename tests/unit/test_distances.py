"""Distances of sets of draws, against closed forms for shifts, linear maps and Gaussians."""

import math

import jax
import numpy as np
import pytest

from didact.metrics.distances import mmd_squared, sliced_wasserstein2, wasserstein2

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 3))
SHIFT = np.array([1.0, -2.0, 2.0])  # of length 3


def shuffled(x: np.ndarray) -> np.ndarray:
    return RNG.permutation(x)


def gaussian_kernel(shift: np.ndarray, variance: float, b: float) -> float:
    """E exp(-|z|²/2b²) for z ~ N(shift, variance I)."""
    total = b**2 + variance
    return (b**2 / total) ** (len(shift) / 2) * math.exp(-float(shift @ shift) / (2 * total))


def test_no_distance_from_itself():
    assert wasserstein2(X, shuffled(X)) == pytest.approx(0, abs=1e-7)
    assert sliced_wasserstein2(X, shuffled(X), jax.random.key(0)) == pytest.approx(0, abs=1e-7)


def test_a_shift_costs_its_length():
    """The best way to a shifted set is the shift."""
    assert wasserstein2(X, shuffled(X + SHIFT)) == pytest.approx(3)
    # Over random directions the mean square of a shift's component is |c|²/d.
    value = sliced_wasserstein2(X, shuffled(X + SHIFT), jax.random.key(0), 2000)
    assert value == pytest.approx(3 / math.sqrt(3), rel=0.05)


def test_a_symmetric_positive_map_is_the_best_way():
    """It is the gradient of a convex function (Brenier)."""
    root = RNG.standard_normal((3, 3))
    matrix = root @ root.T
    y = X @ matrix
    expected = math.sqrt(np.mean(np.sum((y - X) ** 2, 1)))
    assert wasserstein2(X, shuffled(y)) == pytest.approx(expected)
    # A rotation is not: the assignment finds a shorter way.
    z = -X
    assert wasserstein2(X, z) < 0.9 * math.sqrt(np.mean(np.sum((z - X) ** 2, 1)))


def test_gaussians_in_one_dimension():
    """W2² = (difference of means)² + (difference of deviations)², sliced or not."""
    from scipy.special import ndtri

    z = ndtri((np.arange(1, 201) - 0.5) / 200)[:, None]
    y = shuffled(1 + 2 * z)
    assert wasserstein2(z, y) == pytest.approx(math.sqrt(2), rel=1e-2)
    assert sliced_wasserstein2(z, y, jax.random.key(1), 2) == pytest.approx(wasserstein2(z, y))


def test_float32_draws_are_summed_in_float64():
    x = (1e3 + X).astype(np.float32)
    assert wasserstein2(x, x + np.float32(2)) == pytest.approx(2 * math.sqrt(3), rel=1e-6)


def test_mmd_is_the_mean_over_pairs(monkeypatch):
    from didact.metrics import distances

    y = RNG.standard_normal((45, 3)) + SHIFT
    bandwidths = (0.7, 2.0)

    def kernel(a, b):
        return sum(math.exp(-float((a - b) @ (a - b)) / (2 * h * h)) for h in bandwidths)

    within_x = np.mean([kernel(a, b) for i, a in enumerate(X) for j, b in enumerate(X) if i != j])
    within_y = np.mean([kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    between = np.mean([kernel(a, b) for a in X for b in y])
    expected = within_x + within_y - 2 * between
    assert mmd_squared(X, y, bandwidths) == pytest.approx(expected)
    monkeypatch.setattr(distances, "_BLOCK", 7)  # does not divide the sizes
    assert mmd_squared(X, y, bandwidths) == pytest.approx(expected)


def test_mmd_of_gaussians_has_no_bias():
    """Mean over repetitions against the closed form, at an error rate of 6e-5 (4 deviations);
    the estimate with the diagonal left in would be found out.
    """
    shift, b, n, repetitions = np.array([0.5, 0.0]), 1.0, 8, 1000
    rng = np.random.default_rng(1)
    x = rng.standard_normal((repetitions, n, 2))
    y = rng.standard_normal((repetitions, n, 2)) * 1.5 + shift
    values = np.array([mmd_squared(*pair, (b,)) for pair in zip(x, y, strict=True)])
    expected = (
        gaussian_kernel(0 * shift, 2.0, b)
        + gaussian_kernel(0 * shift, 4.5, b)
        - 2 * gaussian_kernel(shift, 3.25, b)
    )
    error = values.std() / math.sqrt(repetitions)
    assert abs(values.mean() - expected) < 4 * error
    bias = (2 - gaussian_kernel(0 * shift, 2.0, b) - gaussian_kernel(0 * shift, 4.5, b)) / n
    assert bias > 8 * error


def test_default_bandwidths_follow_the_scale():
    y = X + SHIFT
    assert mmd_squared(1e3 * X, 1e3 * y) == pytest.approx(mmd_squared(X, y))
    assert mmd_squared(X, y) > 0.5


def test_errors_name_the_remedy():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="as many of one"):
        wasserstein2(X, X[1:])
    with pytest.raises(ValueError, match="as many of one"):
        sliced_wasserstein2(X, X[1:], key)
    with pytest.raises(ValueError, match="give 1 or more"):
        sliced_wasserstein2(X, X, key, 0)
    with pytest.raises(ValueError, match="finite"):
        wasserstein2(X, X * math.nan)
    with pytest.raises(ValueError, match="positive numbers"):
        mmd_squared(X, X, (1.0, 0.0))
    with pytest.raises(ValueError, match="give bandwidths"):
        mmd_squared(0 * X, 0 * X)
    with pytest.raises(ValueError, match="two or more draws"):
        mmd_squared(X[:1], X)
