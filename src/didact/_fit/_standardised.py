"""A user's density as a target of the sampler."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int

from .._constraints import Constraint, Position
from .._types import Target

_BATCH = 256
LOWEST = -1e4  # where a density is 0 the sampler needs a number


class Standardised(Target):
    r"""A log-density of positions, as a function of unconstrained coordinates of order 1.

    $$z = \text{location} + \text{scale} \odot u, \qquad
    \log R(u) = \log p(T(z)) + \log|\det T'(z)| + \sum \log \text{scale} - \text{offset}$$

    so that the integral of R is that of p, times e^-offset. Below -10,000 it falls on like a
    logarithm, so that climbs find a way; -inf counts as -10,000.

    **Arguments:** `logdensity_fn`: position -> log p; `constraint`: T; `location`, `scale` [n];
    `offset`: about log Z, so that what is learned is of order 1.
    """

    logdensity_fn: Callable[[Position], Array]
    constraint: Constraint
    location: Float[Array, " n"]
    scale: Float[Array, " n"]
    offset: Float[Array, ""]

    def __init__(
        self,
        logdensity_fn: Callable[[Position], Array],
        constraint: Constraint,
        location: Float[Array, " n"],
        scale: Float[Array, " n"],
        offset: Float[Array, ""],
    ):
        self.logdensity_fn = logdensity_fn
        self.constraint = constraint
        self.location = location
        self.scale = scale
        self.offset = offset

    @property
    def dim(self) -> int:
        """n."""
        return self.constraint.size

    @property
    def log_z(self) -> None:
        """Unknown."""
        return None

    @property
    def num_modes(self) -> None:
        """Unknown."""
        return None

    def log_reward(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        """log R(u), in nats."""
        z = self.location + self.scale * x
        value = jnp.asarray(self.logdensity_fn(self.constraint.to_position(z)), z.dtype)
        value = value + self.constraint.log_det(z) + jnp.sum(jnp.log(self.scale)) - self.offset
        # NaN stays: training reports it.
        low = value < LOWEST
        depth = jnp.where(low & jnp.isfinite(value), LOWEST - value, 0)
        return jnp.where(low, LOWEST - jnp.log1p(depth), value)

    def mode_index(self, x: Float[Array, " n"]) -> Int[Array, ""]:
        """-1: no modes are defined."""
        return jnp.asarray(-1, jnp.int32)

    def position(self, x: Float[Array, " n"]) -> Position:
        """The user's position at u."""
        return self.constraint.to_position(self.location + self.scale * x)


def log_rewards(target: Target, x: Float[np.ndarray, "B n"]) -> Float64[np.ndarray, " B"]:
    """log R of any number of points."""
    return in_batches(_values, target, x).astype(np.float64)


def in_batches(function: Callable[[Target, Array], Array], target: Target, x: Any) -> np.ndarray:
    """Apply a compiled function to batches of one size, so that there is one program, and one
    batch in memory.
    """
    count = len(x)
    rows = np.concatenate([x, np.repeat(x[-1:], -count % _BATCH, axis=0)])
    parts = [
        np.asarray(function(target, jnp.asarray(rows[i : i + _BATCH])))
        for i in range(0, len(rows), _BATCH)
    ]
    return np.concatenate(parts)[:count]


@eqx.filter_jit
def _values(target: Target, x: Float[Array, "B n"]) -> Float[Array, " B"]:
    return jax.vmap(target.log_reward)(x)
