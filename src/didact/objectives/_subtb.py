"""Subtrajectory balance."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.lax import stop_gradient

from .._checks import require
from .._types import Objective, ObjectiveOutput, Regression, Scored
from ._db import step_residuals
from ._regression import Squared
from ._tb import log_weight


class SubTB(Objective):
    r"""Subtrajectory balance SubTB(λ) (Madan et al., 2023).

    $$\text{loss}(\tau) = \frac{\sum_{i<j} \lambda^{j-i} \rho(\delta_{ij})}
    {\sum_{i<j} \lambda^{j-i}}, \qquad \delta_{ij} = \sum_{t=i}^{j-1} \delta_t$$

    with δ_t the residual of detailed balance, i and j the states of the unpadded
    trajectory. λ → 0 tends to `DB`'s average over one trajectory, λ → ∞ to `TB` with
    log Z = log F(s0). Memory is T² numbers a trajectory.
    """

    lamda: float = 0.9
    regression: Regression = eqx.field(default_factory=Squared)
    needs_flow: ClassVar[bool] = True
    learns_log_z: ClassVar[bool] = False
    pathwise: ClassVar[bool] = False

    def __check_init__(self):
        require("lamda", self.lamda, above=0)

    def __call__(self, scored: Scored) -> ObjectiveOutput:
        """Loss and residual of each trajectory."""
        steps = step_residuals(scored)
        start = jnp.zeros_like(steps[:, :1])
        potential = jnp.concatenate([start, jnp.cumsum(steps, axis=1)], axis=1)
        real = jnp.cumsum(scored.mask, axis=1)
        position = jnp.concatenate([jnp.zeros_like(real[:, :1]), real], axis=1)
        # Padding repeats a position: keep one node of each, the last at the front
        # (before any step) and the first at the end, by asking for a real step beside it.
        after = jnp.pad(scored.mask, ((0, 0), (0, 1)))
        before = jnp.pad(scored.mask, ((0, 0), (1, 0)))
        node = after | before
        span = position[:, None, :] - position[:, :, None]
        pair = (span > 0) & node[:, :, None] & node[:, None, :]
        # The largest weight is scaled to 1, so that no λ overflows.
        largest = jnp.where(self.lamda > 1, position[:, -1], 1)[:, None, None]
        weight = jnp.where(pair, jnp.exp((span - largest) * jnp.log(self.lamda)), 0)
        delta = jnp.where(pair, potential[:, None, :] - potential[:, :, None], 0)
        total = jnp.maximum(jnp.sum(weight, axis=(1, 2)), jnp.finfo(steps.dtype).tiny)
        loss = jnp.sum(weight * self.regression(delta), axis=(1, 2)) / total
        detached = stop_gradient(steps)
        weight = stop_gradient(log_weight(scored))
        return ObjectiveOutput(loss, jnp.sum(detached, axis=-1), detached, weight)
