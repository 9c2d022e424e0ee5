"""Bayesian logistic regression on made data."""

import functools
import operator
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int
from scipy.special import expit

from .._checks import require
from .._types import Target
from ._continuous import constant, read_only, require_point, require_positive


class RegressionData(NamedTuple):
    """What the regression has seen."""

    features: Float64[np.ndarray, "observations dim"]
    labels: Float64[np.ndarray, " observations"]
    """0 or 1."""


class LogisticRegression(Target):
    r"""The posterior of the weights x of a Bayesian logistic regression.

    $$\log R(x) = \sum_i \log \operatorname{sigmoid}\big((2 y_i - 1)\, a_i^\top x\big)
    + \log N(x; 0, \tau^2 I)$$

    so that Z is the probability of the labels y given the features a. The data are drawn from the
    model itself, a_i ~ N(0, I), weights ~ N(0, τ² I), y_i given both, by NumPy's `RandomState`,
    whose streams do not change between versions.

    **Arguments:** `dim` >= 1: number of weights; `num_observations` >= 1; `prior_scale` τ > 0;
    `seed` of the data, 0 … 2³² - 1.

    A sample x is a vector of weights, float [dim]. log Z is not known (None).
    """

    dim: int = eqx.field(static=True)
    num_observations: int = eqx.field(static=True)
    prior_scale: float = eqx.field(static=True)
    seed: int = eqx.field(static=True)

    def __init__(
        self, dim: int = 25, num_observations: int = 200, prior_scale: float = 1.0, seed: int = 0
    ):
        self.dim = operator.index(dim)
        self.num_observations = operator.index(num_observations)
        self.prior_scale = float(prior_scale)
        self.seed = operator.index(seed)
        require("dim", self.dim, at_least=1)
        require("num_observations", self.num_observations, at_least=1)
        require_positive("prior_scale", self.prior_scale)
        require("seed", self.seed, at_least=0, at_most=2**32 - 1)

    @property
    def log_z(self) -> None:
        """Unknown."""
        return None

    @property
    def num_modes(self) -> None:
        """None: no modes are defined."""
        return None

    def data(self) -> RegressionData:
        """Features and labels, in float64."""
        return _make_data(self.dim, self.num_observations, self.prior_scale, self.seed)

    def log_reward(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """Log of likelihood times prior, in nats."""
        require_point(x, self.dim)
        features, labels = self.data()
        signed = constant((2 * labels - 1)[:, None] * features)
        # Some accelerators multiply in less than float32 unless told otherwise.
        logits = jnp.matmul(signed, x, precision="highest")
        log_prior = jax.scipy.stats.norm.logpdf(x, scale=self.prior_scale)
        return jnp.sum(jax.nn.log_sigmoid(logits)) + jnp.sum(log_prior)

    def mode_index(self, x: Float[Array, " dim"]) -> Int[Array, ""]:
        """-1: no modes are defined."""
        require_point(x, self.dim)
        return jnp.asarray(-1, jnp.int32)


@functools.lru_cache(maxsize=64)
def _make_data(dim: int, observations: int, prior_scale: float, seed: int) -> RegressionData:
    random = np.random.RandomState(seed)
    features = random.standard_normal((observations, dim))
    weights = prior_scale * random.standard_normal(dim)
    labels = random.random_sample(observations) < expit(features @ weights)
    return RegressionData(read_only(features), read_only(labels.astype(np.float64)))
