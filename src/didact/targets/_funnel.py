"""Neal's funnel."""

import math
import operator

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._checks import require
from .._types import SamplableTarget
from ._continuous import require_point, require_positive

_LARGEST = 60.0


class Funnel(SamplableTarget):
    r"""Neal's funnel ("Slice sampling", Annals of Statistics 31, 2003), normalised.

    $$x_1 \sim N(0, \eta^2), \qquad x_2, \dots, x_{dim} \mid x_1 \sim N(0, e^{x_1})$$

    Neal has dim = 10 and η = 3, and so have the codes of Zhang et al. (DGFS, 2024) and Sendera
    et al. (2024, `hard_funnel`). The latter's `easy_funnel` has η = 1, which it traces to Zhang
    and Chen (2022): numbers for the two are not comparable.

    The variance is kept between e^-60 and e^60, in the density and in the samples, so that
    nothing overflows in float32 and log Z stays 0. At η = 3 the limits lie 20 standard deviations
    out.

    **Arguments:** `dim` >= 2; `eta` > 0: standard deviation of x[0].

    A sample x is a point, float [dim].
    """

    dim: int = eqx.field(static=True)
    eta: float = eqx.field(static=True)

    def __init__(self, dim: int = 10, eta: float = 3.0):
        self.dim = operator.index(dim)
        self.eta = float(eta)
        require("dim", self.dim, at_least=2)
        require_positive("eta", self.eta)

    @property
    def log_z(self) -> float:
        """0: the density is normalised."""
        return 0.0

    @property
    def num_modes(self) -> None:
        """None: no modes are defined."""
        return None

    def log_reward(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """The log-density at x, in nats."""
        require_point(x, self.dim)
        log_variance = _log_variance(x[0])
        log_first = -0.5 * jnp.square(x[0] / self.eta) - math.log(self.eta)
        # exp(-v/2) enters the square: exp(-v) times a square could overflow before the sum.
        others = jnp.square(x[1:] * jnp.exp(-0.5 * log_variance)) + log_variance
        return log_first - 0.5 * jnp.sum(others) - 0.5 * self.dim * math.log(2 * math.pi)

    def mode_index(self, x: Float[Array, " dim"]) -> Int[Array, ""]:
        """-1: no modes are defined."""
        require_point(x, self.dim)
        return jnp.asarray(-1, jnp.int32)

    def sample(self, key: PRNGKeyArray) -> Float[Array, " dim"]:
        """x1, then the others given it."""
        noise = jax.random.normal(key, (self.dim,))
        first = self.eta * noise[0]
        others = jnp.exp(0.5 * _log_variance(first)) * noise[1:]
        return jnp.concatenate([first[None], others])


def _log_variance(first: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.clip(first, -_LARGEST, _LARGEST)
