"""Reverse KL by reparameterisation."""

from typing import ClassVar

import equinox as eqx
from jax.lax import stop_gradient

from .._types import Objective, ObjectiveOutput, Scored
from ._tb import log_weight
from ._vargrad import batch_mean


class ReverseKL(Objective):
    r"""The KL divergence of the sampler's paths from the target's, through the paths.

    $$\text{loss}(\tau) = \log P_F(\tau) - \log P_B(\tau\mid x) - \log R(x) = -w,
    \qquad \delta = w - \operatorname{mean} w$$

    The mean loss over the sampler's own trajectories is minus the ELBO. The gradient flows
    through the trajectories and log R: the target must be differentiable, the environment
    continuous, and every batch on-policy without exploration. Path integral samplers (Zhang and
    Chen, ICLR 2022) minimise the same.

    **Arguments:** `path_only`: leave out the gradient of log P_F at a fixed path, whose mean is 0
    (Roeder et al., 2017): with a fixed P_B the gradient then vanishes for every single trajectory
    at the optimum.
    False gives the gradient of the published path integral samplers.
    """

    path_only: bool = eqx.field(static=True, default=True)
    needs_flow: ClassVar[bool] = False
    learns_log_z: ClassVar[bool] = False
    pathwise: ClassVar[bool] = True

    def __call__(self, scored: Scored) -> ObjectiveOutput:
        """Loss and residual of each trajectory."""
        weight = log_weight(scored)
        detached = stop_gradient(weight)
        return ObjectiveOutput(-weight, detached - batch_mean(scored, detached), None, detached)
