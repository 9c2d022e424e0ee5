"""The Teacher's reward without its inner logarithm."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._checks import require
from .._types import ObjectiveOutput, TeacherReward
from ._weight import asymmetric_weight


class Plain(TeacherReward):
    r"""$\log R_T = \log(\eta + w(\delta)\,\delta^2) + \alpha \log R$: the squared error itself.

    With `eta` = 1e-8 it is the published code's option without the logarithm.
    """

    eta: float = 1e-3
    asymmetry: float = 19.0
    alpha: float = 0.0

    def __check_init__(self):
        require("eta", self.eta, above=0)
        require("asymmetry", self.asymmetry, at_least=0)

    def __call__(
        self,
        output: ObjectiveOutput,
        log_reward: Float[Array, " B"],
        mask: Bool[Array, "B T"],
    ) -> Float[Array, " B"]:
        """log R_T of each trajectory."""
        error = asymmetric_weight(output.residual, self.asymmetry) * jnp.square(output.residual)
        return jnp.log(self.eta + error) + self.alpha * log_reward
