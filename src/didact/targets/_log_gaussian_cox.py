"""The log-Gaussian Cox process on a grid, with made data."""

import functools
import math
import operator
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int
from scipy.linalg import solve_triangular

from .._checks import require
from .._types import Target
from ._continuous import constant, read_only, require_point, require_positive

_STEEPEST = 60.0


class LogGaussianCox(Target):
    r"""The posterior of the log-intensity of a Cox process on a grid of the unit square.

    $$\log R(x) = \log N(x; \mu, K) + \sum_m \big(c_m x_m - e^{x_m}/\mathrm{side}^2\big), \qquad
    K_{mn} = \sigma^2 \exp\Big(-\frac{|m - n|}{\mathrm{side}\,\beta}\Big)$$

    with cells m, n of the grid numbered row by row and c_m points in cell m (Møller, Syversveen
    and Waagepetersen, "Log Gaussian Cox processes", 1998; Heng et al., "Controlled sequential
    Monte Carlo", 2020). As in the literature, the terms log c_m! and c_m log side² of the
    likelihood are left out. *Known divergence:* there the counts are those of the Finnish pines;
    here they are drawn from the model itself by NumPy's `RandomState`, whose streams do not
    change between versions. The default parameters are those estimated for the pines.

    **Arguments:** `side` >= 1: cells along each side; `mu`: mean of x; `sigma2` σ² > 0: its
    variance; `beta` β > 0: length of its correlation, in sides of the square; `seed` of the data,
    0 … 2³² - 1.

    **Errors:** `ValueError` where e^(μ + σ²/2), the expected number of points, is not within e^±20.

    A sample x is a field, float [side²]. log Z is not known (None).
    """

    side: int = eqx.field(static=True)
    mu: float = eqx.field(static=True)
    sigma2: float = eqx.field(static=True)
    beta: float = eqx.field(static=True)
    seed: int = eqx.field(static=True)

    def __init__(
        self,
        side: int = 8,
        mu: float = math.log(126) - 1.91 / 2,
        sigma2: float = 1.91,
        beta: float = 1 / 33,
        seed: int = 0,
    ):
        self.side = operator.index(side)
        self.mu = float(mu)
        self.sigma2 = float(sigma2)
        self.beta = float(beta)
        self.seed = operator.index(seed)
        require("side", self.side, at_least=1)
        require_positive("sigma2", self.sigma2)
        require_positive("beta", self.beta)
        require("seed", self.seed, at_least=0, at_most=2**32 - 1)
        require("mu + sigma2/2", self.mu + self.sigma2 / 2, at_least=-20, at_most=20)

    @property
    def dim(self) -> int:
        """Number of cells."""
        return self.side**2

    @property
    def log_z(self) -> None:
        """Unknown."""
        return None

    @property
    def num_modes(self) -> None:
        """None: no modes are defined."""
        return None

    def counts(self) -> Float64[np.ndarray, " cells"]:
        """Number of points in each cell."""
        return self._tables().counts

    def log_reward(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """Log of likelihood times prior, in nats."""
        require_point(x, self.dim)
        counts, whitening, log_factor = self._tables()
        # Some accelerators multiply in less than float32 unless told otherwise.
        white = jnp.matmul(constant(whitening), x - self.mu, precision="highest")
        log_likelihood = constant(counts) * x - _exp(x) / self.dim
        return jnp.sum(log_likelihood - 0.5 * jnp.square(white)) + log_factor

    def mode_index(self, x: Float[Array, " dim"]) -> Int[Array, ""]:
        """-1: no modes are defined."""
        require_point(x, self.dim)
        return jnp.asarray(-1, jnp.int32)

    def _tables(self) -> "_Tables":
        return _make_tables(self.side, self.mu, self.sigma2, self.beta, self.seed)


class _Tables(NamedTuple):
    counts: Float64[np.ndarray, " cells"]
    whitening: Float64[np.ndarray, "cells cells"]
    """The inverse of the Cholesky factor of K."""
    log_factor: float
    """Of the Gaussian prior."""


@functools.lru_cache(maxsize=16)
def _make_tables(side: int, mu: float, sigma2: float, beta: float, seed: int) -> _Tables:
    cells = np.argwhere(np.ones((side, side), bool))
    distance = np.linalg.norm(cells[:, None] - cells, axis=2)
    cholesky = np.linalg.cholesky(sigma2 * np.exp(-distance / (side * beta)))
    random = np.random.RandomState(seed)
    field = mu + cholesky @ random.standard_normal(side**2)
    counts = random.poisson(np.exp(field) / side**2)
    whitening = solve_triangular(cholesky, np.eye(side**2), lower=True)
    log_factor = -np.sum(np.log(np.diag(cholesky))) - 0.5 * side**2 * math.log(2 * math.pi)
    return _Tables(read_only(counts.astype(np.float64)), read_only(whitening), float(log_factor))


def _exp(x: Float[Array, " dim"]) -> Float[Array, " dim"]:
    """exp, continued by its tangent from 60 on: R is 0 there in any precision, and its gradient
    still leads back.
    """
    return jnp.exp(jnp.minimum(x, _STEEPEST)) * (1 + jnp.maximum(x - _STEEPEST, 0))
