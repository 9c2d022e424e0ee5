"""Regions of many dimensions, and the share of a density in each."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

_NUMBER, _MOVES, _PARTS = 12, 6, (8, 4, 8, 32)
_WIDER, _SPIKE, _LARGEST = 2.0, 4.0, 50.0


@dataclasses.dataclass(frozen=True)
class Region:
    """An ellipsoid: the points x with $|A (x - m)| <= r$, and a normal law that is cut off there.

    `factor` is A, whose inverse squared is the covariance of that law.
    """

    middle: Float64[np.ndarray, " dim"]
    factor: Float64[np.ndarray, "dim dim"]
    radius: float

    def square(self, x: Float64[np.ndarray, "n dim"]) -> Float64[np.ndarray, " n"]:
        """$|A (x - m)|^2$."""
        return np.sum(((x - self.middle) @ self.factor.T) ** 2, axis=1)

    def holds(self, x: Float64[np.ndarray, "n dim"]) -> Bool[np.ndarray, " n"]:
        """Which points it holds."""
        return self.square(x) <= self.radius**2

    def draw(self, random: np.random.Generator, number: int) -> Float64[np.ndarray, "n dim"]:
        """Draws of its law."""
        from scipy import stats

        dim = len(self.middle)
        way = random.standard_normal((number, dim))
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        inside = stats.chi2.cdf(self.radius**2, dim)
        square = stats.chi2.ppf(inside * random.uniform(size=(number, 1)), dim)
        return self.middle + np.linalg.solve(self.factor, (way * np.sqrt(square)).T).T

    def log_density(self, x: Float64[np.ndarray, "n dim"]) -> Float64[np.ndarray, " n"]:
        """Of its law, at points that it holds."""
        from scipy import stats

        dim = len(self.middle)
        inside = stats.chi2.logcdf(self.radius**2, dim)
        scale = np.linalg.slogdet(self.factor)[1] - 0.5 * dim * np.log(2 * np.pi)
        return -0.5 * self.square(x) + scale - inside


def regions_of(
    x: Float64[np.ndarray, "n dim"], random: np.random.Generator, number: int = _NUMBER
) -> list[Region]:
    """Ellipsoids where draws of a density are dense: each holds about an eighth of them, or a
    quarter, or a 32nd, for modes of any weight. None where a coordinate does not vary.
    """
    number, dim = min(number, len(x)), x.shape[1]
    spread = x.std(axis=0)
    if not np.all(spread > 0):
        return []
    regions = []
    for k, start in enumerate(x[random.choice(len(x), number, replace=False)]):
        near = max(len(x) // _PARTS[k % len(_PARTS)], 4)
        close = _uphill(x, start, near, spread)
        middle, covariance = close.mean(axis=0), np.cov(close.T).reshape(dim, dim)
        # Of few draws in many dimensions only the variances are known.
        share = min(1.0, 2 * dim / near)
        covariance = (1 - share) * covariance + share * np.diag(np.diag(covariance))
        covariance = _WIDER * covariance + 1e-9 * np.diag(spread**2)
        factor = np.linalg.inv(np.linalg.cholesky(covariance))
        radius = np.quantile(np.sum(((close - middle) @ factor.T) ** 2, axis=1), 0.9)
        regions.append(Region(middle, factor, float(np.sqrt(radius))))
    return regions


def _uphill(
    x: Float64[np.ndarray, "n dim"],
    middle: Float64[np.ndarray, " dim"],
    near: int,
    spread: Float64[np.ndarray, " dim"],
) -> Float64[np.ndarray, "near dim"]:
    """The nearest draws to a point that has moved to where they are dense. What is near depends on
    how they are spread there.
    """
    unit, close = spread, x
    for _ in range(_MOVES):
        distance = np.sum(((x - middle) / unit) ** 2, axis=1)
        close = x[np.argpartition(distance, near - 1)[:near]]
        middle, unit = close.mean(axis=0), close.std(axis=0) + 0.02 * spread
    return close


class Share(NamedTuple):
    """The share of a density in a region, its standard error, and whether both can be relied on."""

    value: float
    error: float
    is_precise: bool


def share_of(
    log_weight: Float64[np.ndarray, " n"], log_weight_of_draws: Float64[np.ndarray, " m"]
) -> Share:
    """By importance sampling.

    **Arguments:** `log_weight`: the log-density less that of the region's law, at draws of this
    law; `log_weight_of_draws`: the same at draws of the density that the region holds, at least
    one. They tell of a narrow part of the density that the others may miss.
    """
    top = float(np.max(log_weight))
    if not np.isfinite(top):
        return Share(0.0, 0.0, is_precise=False)
    weight = np.exp(log_weight - top)
    mean, error = weight.mean(), weight.std() / np.sqrt(len(weight))
    # The mean square of weights, by their mean: from both kinds of draws.
    square = np.mean(weight**2) / mean
    of_draws = np.mean(np.exp(np.minimum(log_weight_of_draws - top, _LARGEST)))
    is_precise = error < 0.02 * mean and weight.max() < 0.02 * weight.sum()
    factor = np.exp(min(top, _LARGEST))
    return Share(mean * factor, error * factor, bool(is_precise and of_draws < _SPIKE * square))
