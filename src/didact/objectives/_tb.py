"""Trajectory balance."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from .._types import Objective, ObjectiveOutput, Regression, Scored
from ._regression import Squared


class TB(Objective):
    r"""Trajectory balance (Malkin et al., 2022).

    $$\delta(\tau) = \log R(x) + \log P_B(\tau\mid x) - \log Z - \log P_F(\tau),
    \qquad \text{loss} = \rho(\delta)$$

    δ > 0: the sampler draws τ too rarely.
    """

    regression: Regression = eqx.field(default_factory=Squared)
    needs_flow: ClassVar[bool] = False
    learns_log_z: ClassVar[bool] = True

    def __call__(self, scored: Scored) -> ObjectiveOutput:
        """Loss and residual of each trajectory."""
        residual = log_weight(scored) - scored.log_z
        return ObjectiveOutput(self.regression(residual), stop_gradient(residual), None)


def log_weight(scored: Scored) -> Float[Array, " B"]:
    """log R + log P_B - log P_F of each trajectory: unbiased for Z once exponentiated."""
    log_pb = jnp.sum(jnp.where(scored.mask, scored.log_pb, 0), axis=-1)
    log_pf = jnp.sum(jnp.where(scored.mask, scored.log_pf, 0), axis=-1)
    return scored.log_reward + log_pb - log_pf
