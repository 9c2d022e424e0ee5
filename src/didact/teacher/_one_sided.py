"""A Teacher's reward for under-sampling alone."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._checks import require
from .._types import ObjectiveOutput, TeacherReward


class OneSided(TeacherReward):
    r"""What the Student misses, and a little of everything.

    $$R_T = \big(\eta + \max(\delta, 0)\big)\,R^\alpha + \text{floor}\cdot\hat Z$$

    Only under-sampling attracts the Teacher; with α = 1 it prefers what is both missed and worth
    having. The floor is what remains once the Student has learned all that was seen: a share of the
    Teacher's batches, the larger the less is missed, then goes evenly everywhere, and finds what
    nobody has seen yet. Of N objects it is floor·N / (floor·N + η + the mean of max(δ, 0) under R)
    of the batches, where α = 1. Not in the paper.

    **Arguments:** `eta` > 0; `alpha`; `floor` ≥ 0: a share of $\hat Z$, the Student's estimate, for
    each object.
    """

    eta: float = 1e-2
    alpha: float = 1.0
    floor: float = 0.0

    def __check_init__(self):
        require("eta", self.eta, above=0)
        require("floor", self.floor, at_least=0)

    def __call__(
        self,
        output: ObjectiveOutput,
        log_reward: Float[Array, " B"],
        mask: Bool[Array, "B T"],
    ) -> Float[Array, " B"]:
        """log R_T of each trajectory."""
        missed = jnp.log(self.eta + jnp.maximum(output.residual, 0)) + self.alpha * log_reward
        # One number, best known where log R is largest: their difference loses digits elsewhere.
        log_z = (output.log_weight - output.residual)[jnp.argmax(log_reward)]
        return jnp.logaddexp(missed, jnp.log(self.floor) + log_z)
