"""A Teacher's reward for under-sampling alone."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._checks import require
from .._types import ObjectiveOutput, TeacherReward


class OneSided(TeacherReward):
    r"""$\log R_T = \log(\eta + \max(\delta, 0)) + \alpha \log R$.

    Only under-sampling attracts the Teacher; with α = 1 it prefers what is both missed and
    worth having. Not in the paper. It goes with a buffer in order of
    `didact.replay.ReplayConfig(priority="teacher-reward")`.
    """

    eta: float = 1e-2
    alpha: float = 1.0

    def __check_init__(self):
        require("eta", self.eta, above=0)

    def __call__(
        self,
        output: ObjectiveOutput,
        log_reward: Float[Array, " B"],
        mask: Bool[Array, "B T"],
    ) -> Float[Array, " B"]:
        """log R_T of each trajectory."""
        return jnp.log(self.eta + jnp.maximum(output.residual, 0)) + self.alpha * log_reward
