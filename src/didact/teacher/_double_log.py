"""The published Teacher's reward."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._checks import require
from .._types import ObjectiveOutput, TeacherReward
from ._weight import asymmetric_weight


class DoubleLog(TeacherReward):
    r"""The published form, in its three variants.

    $$\log R_T = \log\big(\log(1 + \eta + w(\delta)\,\min(s\,\delta^2, \text{cap}))\,
    R^\alpha + \text{floor}\big)$$

    `per_step` sums the inner logarithm over the edges, as the paper does with detailed
    balance. The variants: `DoubleLog()` (grid), `DoubleLog(alpha=0.5, floor=0, scale=0.5)`
    (diffusion) and `DoubleLog(alpha=0.5, floor=0, cap=5000.0)` (biochemical).
    Where log R < `threshold` the squared error is replaced by 1e-12.
    """

    eta: float = 1e-3
    asymmetry: float = 19.0
    alpha: float = 0.0
    floor: float = 1e-8
    scale: float = 1.0
    cap: float | None = None
    threshold: float | None = None
    per_step: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        require("eta", self.eta, above=0)
        require("asymmetry", self.asymmetry, at_least=0)
        require("floor", self.floor, at_least=0)
        require("scale", self.scale, above=0)
        require("cap", self.cap, above=0)

    def __call__(
        self,
        output: ObjectiveOutput,
        log_reward: Float[Array, " B"],
        mask: Bool[Array, "B T"],
    ) -> Float[Array, " B"]:
        """log R_T of each trajectory."""
        if self.per_step:
            if output.step_residual is None:
                raise ValueError("per_step needs an objective with step residuals: DB or SubTB.")
            inner = self._inner(output.step_residual, log_reward[:, None])
            total = jnp.sum(jnp.where(mask, inner, 0), axis=-1)
        else:
            total = self._inner(output.residual, log_reward)
        log_total = jnp.log(total) + self.alpha * log_reward
        return jnp.logaddexp(log_total, jnp.log(self.floor))

    def _inner(self, residual: Array, log_reward: Array) -> Array:
        error = self.scale * jnp.square(residual)
        if self.cap is not None:
            error = jnp.minimum(error, self.cap)
        error = asymmetric_weight(residual, self.asymmetry) * error
        if self.threshold is not None:
            error = jnp.where(log_reward < self.threshold, 1e-12, error)
        # log1p keeps the small errors of a converged Student apart in float32.
        return jnp.log1p(self.eta + error)
