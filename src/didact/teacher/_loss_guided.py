"""The reward of an auxiliary sampler that follows the Student's loss."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._checks import require
from .._types import ObjectiveOutput, TeacherReward


class LossGuided(TeacherReward):
    r"""The reward plus the Student's loss: loss-guided GFlowNets (LGGFN).

    $$R_T(\tau) = R(x) + \lambda\,\delta(\tau)^2$$

    Unlike the Teacher's, it stays at R where the Student has nothing left to learn, and does not
    tell too much from too little.

    Source: Malek et al., "Loss-guided auxiliary agents for overcoming mode collapse in GFlowNets",
    AAAI 2026. Known divergence: there the auxiliary sampler learns from its own batches alone.

    **Arguments:** `weight` λ > 0.
    """

    weight: float = 1.0
    title: ClassVar[str] = "a loss-guided auxiliary sampler"

    def __check_init__(self):
        require("weight", self.weight, above=0)

    def __call__(
        self,
        output: ObjectiveOutput,
        log_reward: Float[Array, " B"],
        mask: Bool[Array, "B T"],
    ) -> Float[Array, " B"]:
        """log R_T of each trajectory."""
        loss = self.weight * jnp.square(output.residual)
        return jnp.logaddexp(log_reward, jnp.log(loss))
