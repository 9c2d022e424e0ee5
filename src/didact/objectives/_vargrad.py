"""The log-variance objective."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from .._types import Objective, ObjectiveOutput, Regression, Scored
from ._regression import Squared
from ._tb import log_weight


class VarGrad(Objective):
    r"""Log-variance loss (Richter et al., 2020; Zhang et al., 2023).

    $$\delta_i = w_i - \operatorname{mean}_j w_j, \qquad
    w = \log R + \log P_B - \log P_F$$

    Trajectory balance with log Z estimated by the (weighted) batch mean. The mean is held
    constant: for the squared loss its gradient vanishes anyway.
    """

    regression: Regression = eqx.field(default_factory=Squared)
    needs_flow: ClassVar[bool] = False
    learns_log_z: ClassVar[bool] = False
    pathwise: ClassVar[bool] = False

    def __call__(self, scored: Scored) -> ObjectiveOutput:
        """Loss and residual of each trajectory."""
        weight = log_weight(scored)
        if weight.shape[0] < 2:
            raise ValueError("VarGrad compares trajectories: it needs a batch of at least 2.")
        residual = weight - batch_mean(scored, weight)
        return ObjectiveOutput(self.regression(residual), *stop_gradient((residual, None, weight)))


def batch_mean(scored: Scored, value: Float[Array, " B"]) -> Float[Array, ""]:
    """The detached mean of a value over the trajectories that count."""
    total = jnp.maximum(jnp.sum(scored.weight), jnp.finfo(value.dtype).tiny)
    return stop_gradient(jnp.sum(scored.weight * value) / total)
