"""The reward of an explorer that leaves alone what the Student samples well."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._checks import require
from .._types import ObjectiveOutput, TeacherReward


class Complementary(TeacherReward):
    r"""The reward itself, where the Student allocates too little; next to none elsewhere.

    $$R_T(\tau) = R(x) \cdot \begin{cases} 1 & \hat Z\,\hat p(x) < \alpha R(x) \\
    \text{floor} & \text{else,} \end{cases} \qquad
    \frac{R(x)}{\hat Z\,\hat p(x)} \approx e^{\delta(\tau)}$$

    One trajectory estimates what the Student gives to x, so the first case is δ > −log α.

    Source: adaptive complementary exploration (ACE) in Dall'Antonia et al., "Avoid what you know:
    divergent trajectory balance for GFlowNets", ICML 2026. Known divergence: there a loss of its
    own pushes the explorer away from what is allocated, here the floor of its reward does.

    **Arguments:** `alpha` in (0, 1]: below this share of what is due, an object is under-allocated;
    `floor` in (0, 1).
    """

    alpha: float = 0.5
    floor: float = 1e-4
    title: ClassVar[str] = "a complementary explorer"

    def __check_init__(self):
        require("alpha", self.alpha, above=0)
        require("alpha", self.alpha, at_most=1)
        require("floor", self.floor, above=0)
        if isinstance(self.floor, float | int) and self.floor >= 1:
            raise ValueError(f"floor must lie in (0, 1), got {self.floor}.")

    def __call__(
        self,
        output: ObjectiveOutput,
        log_reward: Float[Array, " B"],
        mask: Bool[Array, "B T"],
    ) -> Float[Array, " B"]:
        """log R_T of each trajectory."""
        missed = output.residual > -jnp.log(self.alpha)
        return log_reward + jnp.where(missed, 0, jnp.log(self.floor))
