"""Maximum likelihood on given objects."""

from typing import ClassVar

from jax.lax import stop_gradient

from .._types import Objective, ObjectiveOutput, Scored
from ._tb import log_weight
from ._vargrad import batch_mean


class MLE(Objective):
    r"""Maximum likelihood on trajectories drawn backwards from given objects.

    $$\text{loss}(\tau) = \log P_B(\tau\mid x) + \log R(x) - \log P_F(\tau) = w,
    \qquad \delta = w - \operatorname{mean} w$$

    Over exact samples of the target the mean loss is the EUBO: an upper bound of log Z, and log Z
    plus the KL divergence of the sampler's paths from the target's. It is meant for
    `didact.behaviours.FromSamples`; from a buffer it fits the buffer's law. P_B must be fixed: a
    learned one has a gradient of mean 0 here, since trajectories are drawn from it.
    """

    needs_flow: ClassVar[bool] = False
    learns_log_z: ClassVar[bool] = False
    pathwise: ClassVar[bool] = False

    def __call__(self, scored: Scored) -> ObjectiveOutput:
        """Loss and residual of each trajectory."""
        weight = log_weight(scored)
        detached = stop_gradient(weight)
        return ObjectiveOutput(weight, detached - batch_mean(scored, detached), None, detached)
