"""Samples of the targets follow their densities; those of a stated wrong target do not.

Pearson's χ² at `_statistics.ERROR_RATE`, with fixed keys.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from didact.targets import (
    GMM25,
    GMM40,
    Checkerboard,
    EightGaussians,
    Funnel,
    GaussianMixture,
    ManyWell,
    Ring,
)

from .._statistics import fits, rejects

NUMBER = 20_000


@eqx.filter_jit
def _draw(target, key):
    return jax.vmap(target.sample)(jax.random.split(key, NUMBER))


def draw(target, key) -> np.ndarray:
    """Samples, in float64."""
    return np.asarray(_draw(target, key), np.float64)


@functools.cache
def masses(target, limit: float, bins: int, sub: int = 10) -> np.ndarray:
    """Mass of each cell of a grid on [-limit, limit]² by the midpoint rule, and of the rest."""
    number = bins * sub
    middle = (np.arange(number) + 0.5) / number * 2 * limit - limit
    grid = np.stack(np.meshgrid(middle, middle, indexing="ij"), axis=-1).reshape(-1, 2)
    log_density = jax.jit(jax.vmap(target.log_reward))(jnp.asarray(grid, jnp.float32))
    density = np.exp(np.asarray(log_density, np.float64) - target.log_z)
    cells = density.reshape(bins, sub, bins, sub).sum(axis=(1, 3)) * (2 * limit / number) ** 2
    return np.append(cells.ravel(), max(1 - cells.sum(), 0))


def counts(x: np.ndarray, limit: float, bins: int) -> np.ndarray:
    """Samples in each cell of that grid, and in the rest."""
    cells, _, _ = np.histogram2d(*x.T, bins=bins, range=[[-limit, limit]] * 2)
    return np.append(cells.ravel(), len(x) - cells.sum())


@eqx.filter_jit
def _modes(target, x):
    return jax.vmap(target.mode_index)(x)


def modes(target, x: np.ndarray) -> np.ndarray:
    """The mode that each sample is in."""
    return np.asarray(_modes(target, jnp.asarray(x, jnp.float32)))


def uniform_counts(u: np.ndarray) -> np.ndarray:
    """Values of a distribution function, in 50 bins of equal mass."""
    return np.histogram(u, bins=50, range=(0, 1))[0]


FLAT = np.full(50, 1 / 50)

PLANAR = {
    "uneven": (
        GaussianMixture(((0.0, 1.0), (2.0, 0.0)), (0.5, 1.0), (1.0, 3.0)),
        GaussianMixture(((0.0, 1.0), (2.0, 0.0)), (0.5, 1.0), (1.0, 2.0)),
        6.0,
    ),
    "gmm25": (GMM25(), GaussianMixture(tuple(map(tuple, GMM25().components().means)), 0.6), 13.0),
    "gmm40": (GMM40(), GaussianMixture(tuple(map(tuple, GMM40().components().means)), 1.0), 46.0),
    "eight": (EightGaussians(), EightGaussians(scale=0.4), 5.0),
    "ring": (Ring(), Ring(scale=0.3), 4.5),
    "small-ring": (Ring(0.3, 0.5), Ring(0.5, 0.5), 3.0),
    "checkerboard": (Checkerboard(softness=0.1), Checkerboard(softness=0.15), 5.0),
    "many-well": (ManyWell(2), GaussianMixture(((-1.7, 0.0), (1.7, 0.0)), 0.5, (0.2, 0.8)), 4.0),
    "funnel": (Funnel(2, 1.0), Funnel(2, 1.2), 5.0),
}
"""Target, wrong target, half the side of the box that is cut into cells."""


@pytest.mark.parametrize("name", PLANAR)
def test_samples_of_the_plane(name, key):
    target, wrong, limit = PLANAR[name]
    found = counts(draw(target, key), limit, bins=32)
    assert fits(found, masses(target, limit, bins=32))
    assert rejects(found, masses(wrong, limit, bins=32))


@pytest.mark.parametrize(("target", "key_number"), [(GMM25(), 1), (GMM40(5), 2)], ids=["25", "40"])
def test_modes_and_radii_of_mixtures(target, key_number):
    """Components are drawn by weight; 99.9 % of each component belongs to its mode. The radius
    within a component is that of a Gaussian, and not that of one 3 % wider.
    """
    x = draw(target, jax.random.key(key_number))
    index = modes(target, x)
    inside = index >= 0
    number = target.num_modes
    found = np.append(np.bincount(index[inside], minlength=number), np.sum(~inside))
    assert fits(found, np.append(np.full(number, 0.999 / number), 0.001))
    assert rejects(found, np.append(np.full(number, 0.99 / number), 0.01))
    means, scales, _ = target.components()
    square = np.sum(((x - means[index]) / scales[index][:, None]) ** 2, axis=1)[inside]
    assert fits(uniform_counts(stats.chi2.cdf(square, target.dim) / 0.999), FLAT)
    assert rejects(uniform_counts(stats.chi2.cdf(square / 1.03**2, target.dim) / 0.999), FLAT)


def test_wells_are_independent(key):
    """The signs of three x1 are three draws; each pair has the law of the first."""
    target = ManyWell(6)
    x = draw(target, key)
    grid = np.linspace(-4, 4, 8001)
    density = np.exp(grid / 2 + 6 * grid**2 - grid**4 - 9)
    law = np.cumsum(density) / density.sum()
    left = np.interp(0, grid, law)
    chance = np.asarray([left, 1 - left])
    product = np.einsum("i,j,k->ijk", chance, chance, chance).ravel()
    found = np.bincount(modes(target, x), minlength=8)
    assert fits(found, product)
    assert rejects(found, product[::-1])
    for pair in range(3):
        assert fits(uniform_counts(np.interp(x[:, 2 * pair], grid, law)), FLAT)
        assert fits(uniform_counts(stats.norm.cdf(x[:, 2 * pair + 1])), FLAT)
        # What a proposal without its acceptance step would give.
        assert rejects(
            uniform_counts(stats.norm.cdf(np.abs(x[:, 2 * pair]), 3**0.5, 6**-0.5)), FLAT
        )


def test_the_funnel_is_gaussian_in_its_own_coordinates(key):
    """At Neal's η = 3: x1/η and x_i exp(-x1/2) are independent normal variates."""
    x = draw(Funnel(), key)
    noise = np.concatenate([x[:, :1] / 3, x[:, 1:] * np.exp(-x[:, :1] / 2)], axis=1)
    assert fits(uniform_counts(stats.norm.cdf(noise[:, 0])), FLAT)
    assert fits(uniform_counts(stats.chi2.cdf(np.sum(noise[:, 1:] ** 2, axis=1), 9)), FLAT)
    both = np.corrcoef(noise[:, 0], np.sum(noise[:, 1:] ** 2, axis=1))[0, 1]
    assert abs(both) < 3.9 / NUMBER**0.5  # 3.9 standard deviations: 1e-4
    assert rejects(uniform_counts(stats.norm.cdf(x[:, 0] / 2.8)), FLAT)
    standard_deviation = x[:, 1:] * np.exp(-x[:, :1])  # e^x1 as a standard deviation
    square = np.sum(standard_deviation**2, axis=1)
    assert rejects(uniform_counts(stats.chi2.cdf(square, 9)), FLAT)
