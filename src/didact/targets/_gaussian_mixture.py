"""Mixtures of isotropic Gaussians."""

import abc
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int, PRNGKeyArray
from scipy.special import gammaincinv

from .._types import SamplableTarget
from ._continuous import constant, require_point

_INSIDE = 0.999


class Components(NamedTuple):
    """The K Gaussians of a mixture."""

    means: Float64[np.ndarray, "K dim"]
    scales: Float64[np.ndarray, " K"]
    weights: Float64[np.ndarray, " K"]
    """Positive; they sum to 1."""


class IsotropicMixture(SamplableTarget):
    r"""A mixture $\sum_k w_k\, N(x; \mu_k, \sigma_k^2 I)$, normalised.

    Each component is a mode: x belongs to the one most responsible for it, if it lies within the
    ball that holds 99.9 % of that component.
    """

    dim: eqx.AbstractVar[int]
    """Number of coordinates of x."""

    @abc.abstractmethod
    def components(self) -> Components:
        """Means, standard deviations and weights, in float64."""

    @property
    def log_z(self) -> float:
        """0: the density is normalised."""
        return 0.0

    @property
    def num_modes(self) -> int:
        """Number of components."""
        return len(self.components().weights)

    def log_reward(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """The log-density at x, in nats."""
        return jax.nn.logsumexp(self._log_joint(x))

    def mode_index(self, x: Float[Array, " dim"]) -> Int[Array, ""]:
        """Number of the component most responsible for x; -1 where
        |x - μ|²/σ² exceeds the 0.999 quantile of χ²(dim).
        """
        most_responsible = jnp.argmax(self._log_joint(x)).astype(jnp.int32)
        quantile = 2 * gammaincinv(self.dim / 2, _INSIDE)
        inside = self._squared_distances(x)[most_responsible] <= float(quantile)
        return jnp.where(inside, most_responsible, -1)

    def sample(self, key: PRNGKeyArray) -> Float[Array, " dim"]:
        """A component by its weight, then a draw from it."""
        which_key, noise_key = jax.random.split(key)
        means, scales, weights = self.components()
        which = jax.random.categorical(which_key, constant(np.log(weights)))
        noise = jax.random.normal(noise_key, (self.dim,))
        return constant(means)[which] + constant(scales)[which] * noise

    def _log_joint(self, x: Float[Array, " dim"]) -> Float[Array, " K"]:
        _, scales, weights = self.components()
        log_factor = np.log(weights) - self.dim * np.log(math.sqrt(2 * math.pi) * scales)
        return constant(log_factor) - 0.5 * self._squared_distances(x)

    def _squared_distances(self, x: Float[Array, " dim"]) -> Float[Array, " K"]:
        require_point(x, self.dim)
        means, scales, _ = self.components()
        # Differences first: a product of matrices would cancel far from the origin.
        standardised = (x - constant(means)) / constant(scales)[:, None]
        return jnp.sum(jnp.square(standardised), axis=1)


class GaussianMixture(IsotropicMixture):
    r"""Your own mixture of isotropic Gaussians: $\sum_k w_k\, N(x; \mu_k, \sigma_k^2 I)$.

    **Arguments:** `means`: K tuples of dim numbers; `scale` > 0: the standard deviation σ, one
    for all or a tuple of K; `weights` > 0: a tuple of K, divided by their sum (None: equal).

    **Errors:** `ValueError` where lengths differ or a number is not finite.

    A sample x is a point, float [dim].
    """

    means: tuple[tuple[float, ...], ...] = eqx.field(static=True)
    scale: float | tuple[float, ...] = eqx.field(static=True)
    weights: tuple[float, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        means: tuple[tuple[float, ...], ...],
        scale: float | tuple[float, ...],
        weights: tuple[float, ...] | None = None,
    ):
        self.means = tuple(tuple(float(value) for value in mean) for mean in means)
        self.scale = tuple(map(float, scale)) if isinstance(scale, tuple) else float(scale)
        self.weights = None if weights is None else tuple(map(float, weights))
        sizes = {len(mean) for mean in self.means}
        if len(sizes) != 1 or 0 in sizes:
            raise ValueError(f"means must be points with as many numbers each, got {means}.")
        if not np.all(np.isfinite(self.means)):
            raise ValueError(f"means must be finite, got {means}.")
        for name, given in (("scale", self.scale), ("weights", self.weights)):
            if isinstance(given, tuple) and len(given) != len(self.means):
                raise ValueError(
                    f"{name} must have one number for each of the {len(self.means)} means, "
                    f"got {len(given)}."
                )
            if given is not None and not np.all(np.isfinite(given) & np.greater(given, 0)):
                raise ValueError(f"{name} must be > 0 and finite, got {given}.")

    @property
    def dim(self) -> int:
        """Number of coordinates of a mean."""
        return len(self.means[0])

    def components(self) -> Components:
        """Means, standard deviations and weights, in float64."""
        number = len(self.means)
        weights = np.ones(number) if self.weights is None else np.asarray(self.weights)
        scales = np.broadcast_to(np.asarray(self.scale, np.float64), (number,))
        return Components(np.asarray(self.means, np.float64), scales, weights / weights.sum())
