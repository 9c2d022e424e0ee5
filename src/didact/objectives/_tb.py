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
    pathwise: ClassVar[bool] = False

    def __call__(self, scored: Scored) -> ObjectiveOutput:
        """Loss and residual of each trajectory."""
        weight = log_weight(scored)
        residual = weight - scored.log_z
        return ObjectiveOutput(self.regression(residual), *stop_gradient((residual, None, weight)))


def log_weight(scored: Scored) -> Float[Array, " B"]:
    """log R + log P_B - log P_F of each trajectory: unbiased for Z once exponentiated."""
    # Edge by edge: log-densities of a long path are large, and their differences are not.
    ratio = jnp.where(scored.mask, scored.log_pb - scored.log_pf, 0)
    return scored.log_reward + jnp.sum(ratio, axis=-1)
