"""Detailed balance."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from .._types import Objective, ObjectiveOutput, Regression, Scored
from ._regression import Squared
from ._tb import log_weight


class DB(Objective):
    r"""Detailed balance (Bengio et al., 2021), with a learned state flow F.

    $$\delta_t = \log F(s_{t+1}) + \log P_B(s_t\mid s_{t+1}) - \log F(s_t)
    - \log P_F(s_{t+1}\mid s_t), \qquad F(\text{terminal}) = R$$

    The mean of the losses over a batch is the mean of $\rho(\delta_t)$ over its
    transitions. Known divergence: published code often has the opposite sign; this one
    agrees with `TB`, whose residual (with log Z = log F(s0)) the δ_t sum up to.
    """

    regression: Regression = eqx.field(default_factory=Squared)
    needs_flow: ClassVar[bool] = True
    learns_log_z: ClassVar[bool] = False
    pathwise: ClassVar[bool] = False

    def __call__(self, scored: Scored) -> ObjectiveOutput:
        """Loss and residual of each trajectory."""
        residual = step_residuals(scored)
        share = scored.mask * scored.weight[:, None]
        # Transitions, not trajectories, weigh the same: long trajectories count for more.
        per_trajectory = jnp.sum(scored.weight) / jnp.maximum(jnp.sum(share), 1)
        loss = jnp.sum(scored.mask * self.regression(residual), axis=-1) * per_trajectory
        detached = stop_gradient(residual)
        weight = stop_gradient(log_weight(scored))
        return ObjectiveOutput(loss, jnp.sum(detached, axis=-1), detached, weight)


def step_residuals(scored: Scored) -> Float[Array, "B T"]:
    """The detailed-balance residual of every edge, 0 on padding."""
    if scored.log_flow is None:
        raise ValueError("This objective needs log_flow: build the sampler with flow_head=True.")
    flow = scored.log_flow
    residual = flow[:, 1:] + scored.log_pb - flow[:, :-1] - scored.log_pf
    return jnp.where(scored.mask, residual, 0)
