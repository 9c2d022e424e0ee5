"""Trajectory balance with intrinsic rewards on the way."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.lax import stop_gradient

from .._checks import require
from .._types import Objective, ObjectiveOutput, Regression, Scored, last_edges
from ._regression import Squared
from ._tb import log_weight


class GAFN(Objective):
    r"""The trajectory balance of generative augmented flow networks (Pan et al., ICLR 2023).

    Each edge but the last brings a flow of its own, and the last adds to the reward:

    $$\delta(\tau) = \log\big(R(x) + r_{n-1}\big) + \sum_{t<n-1}
    \log\Big(P_B(s_t\mid s_{t+1}) + \frac{r_t}{F(s_{t+1})}\Big) + \log P_B(s_{n-1}\mid s_n)
    - \log Z - \log P_F(\tau), \qquad \text{loss} = \rho(\delta)$$

    with $r_t = s\,\nu(s_{t+1})$, ν being the novelty that the experiment measures, and F a state
    flow that is learned. As the novelty of what is known vanishes, so does what it adds; where
    nothing measures one this is `TB`. The residual that is reported, for a Teacher or a buffer, is
    `TB`'s.

    **Arguments:** `regression`; `scale` s > 0: 0.01 in the published grid experiments.
    """

    regression: Regression = eqx.field(default_factory=Squared)
    scale: float = 0.01
    needs_flow: ClassVar[bool] = True
    learns_log_z: ClassVar[bool] = True
    pathwise: ClassVar[bool] = False
    needs_novelty: ClassVar[bool] = True

    def __check_init__(self):
        require("scale", self.scale, above=0)

    def __call__(self, scored: Scored) -> ObjectiveOutput:
        """Loss and residual of each trajectory."""
        if scored.log_flow is None:
            raise ValueError("GAFN needs log_flow: build the sampler with flow_head=True.")
        weight = log_weight(scored)
        residual = weight - scored.log_z
        added = jnp.zeros_like(residual)
        if scored.novelty is not None:
            last = last_edges(scored.mask)
            # log R stands for the flow of terminal states, so that both cases are one sum.
            into = jnp.where(last, 0, scored.log_pb) + scored.log_flow[:, 1:]
            log_ratio = jnp.log(self.scale * scored.novelty) - into
            added = jnp.sum(jnp.where(scored.mask, jnp.logaddexp(log_ratio, 0), 0), axis=-1)
        loss = self.regression(residual + added)
        return ObjectiveOutput(loss, *stop_gradient((residual, None, weight)))
