"""The reward of a sibling that looks for what is new."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._checks import require
from .._types import ObjectiveOutput, TeacherReward, last_edges


class Sibling(TeacherReward):
    r"""The reward plus how new the object is: sibling augmented GFlowNets (SA-GFN).

    $$R_T(x) = R(x)^{\beta_e} + (s\,r(x))^{\beta_i},$$

    r(x) being the novelty of the state that the last edge leads to, as the experiment's `novelty`
    has it (`didact.novelty.RND`); where nothing measures it, r = 0. The Student learns from the
    sibling's trajectories towards R.

    Source: Madan et al., "Towards improving exploration through sibling augmented GFlowNets", ICLR
    2025. Known divergence: there the sibling learns from its own batches alone, and the predictor
    from final states; here both learn from all.

    **Arguments:** `extrinsic` β_e > 0; `intrinsic` β_i > 0; `scale` s > 0.
    """

    extrinsic: float = 1.0
    intrinsic: float = 1.0
    scale: float = 1.0
    needs_novelty: ClassVar[bool] = True
    title: ClassVar[str] = "a sibling that looks for what is new"

    def __check_init__(self):
        require("extrinsic", self.extrinsic, above=0)
        require("intrinsic", self.intrinsic, above=0)
        require("scale", self.scale, above=0)

    def __call__(
        self,
        output: ObjectiveOutput,
        log_reward: Float[Array, " B"],
        mask: Bool[Array, "B T"],
    ) -> Float[Array, " B"]:
        """log R_T of each trajectory."""
        extrinsic = self.extrinsic * log_reward
        if output.novelty is None:
            return extrinsic
        new = jnp.sum(jnp.where(last_edges(mask), output.novelty, 0), axis=-1)
        return jnp.logaddexp(extrinsic, self.intrinsic * jnp.log(self.scale * new))
