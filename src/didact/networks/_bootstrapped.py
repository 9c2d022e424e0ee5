"""Several policies with one body, each of them trained on its own share of the trajectories."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._checks import require
from .._types import Environment, PolicyOutput
from ._mlp import MLP, MLPConfig
from ._network import Ensemble, EnsembleConfig, Heads


@dataclasses.dataclass(frozen=True)
class BootstrappedConfig(EnsembleConfig):
    """Shape of a `Bootstrapped`: an `MLP` whose last layer is an ensemble of `members` policies.

    **Arguments:** `width`, `depth`, `negative_slope` as in `MLPConfig`; `members` >= 2;
    `prior_scale` c >= 0 of the random functions that are added to the members' logits (0: none);
    10 makes them of about 0.5, ten times the logits of a fresh network.
    """

    width: int = 256
    depth: int = 2
    negative_slope: float = 0.01
    members: int = 10
    prior_scale: float = 10.0

    def __post_init__(self):
        require("members", self.members, at_least=2)
        require("prior_scale", self.prior_scale, at_least=0)
        _ = self.body

    @property
    def body(self) -> MLPConfig:
        """The shape of the layers below the ensemble."""
        return MLPConfig(self.width, self.depth, self.negative_slope)

    @property
    def guided(self) -> bool:
        """It knows the features alone."""
        return False

    def build(
        self,
        environment: Environment,
        *,
        flow_head: bool,
        backward_head: bool,
        key: PRNGKeyArray,
    ) -> "Bootstrapped":
        """A freshly initialised network for an environment."""
        heads = Heads.of(environment, flow_head=flow_head, backward_head=backward_head)
        wide = dataclasses.replace(heads, forward=self.members * heads.forward)
        key, prior_key = jax.random.split(key)
        prior = None
        if self.prior_scale > 0:
            only_forward = Heads(wide.forward, backward=0, flow=0)
            prior = self.body.with_heads(environment, only_forward, key=prior_key)
        return Bootstrapped(
            network=self.body.with_heads(environment, wide, key=key),
            prior=prior,
            chosen=None,
            heads=heads,
            config=self,
        )


class Bootstrapped(Ensemble):
    r"""An ensemble of policies that share all layers but the last, P_B and log F.

    Member k has the logits $f_k(s) + c\,g_k(s)$, g being a random network of the same shape that
    never learns (Osband et al., "Randomized prior functions for deep reinforcement learning",
    2018): members disagree where few trajectories have been. The ensemble itself is the policy of
    their mean logits, on which all agree in the end.

    Source: Rector-Brooks et al., "Thompson sampling for improved exploration in GFlowNets" (2023).
    """

    network: MLP
    prior: MLP | None
    chosen: Int[Array, ""] | None
    heads: Heads = eqx.field(static=True)
    config: BootstrappedConfig = eqx.field(static=True)

    @property
    def num_members(self) -> int:
        """The number of policies."""
        return self.config.members

    def member(self, index: Int[Array, ""]) -> "Bootstrapped":
        """One of the policies, as a network."""
        return dataclasses.replace(self, chosen=index)

    def __call__(self, features: Array, guidance: Array | None = None) -> PolicyOutput:
        """Outputs of the chosen member at one state, or of them all together."""
        output = self.network(features)
        logits = self._by_member(output)
        if self.prior is not None:
            fixed = jax.lax.stop_gradient(self.prior)
            logits = logits + self.config.prior_scale * self._by_member(fixed(features))
        forward = jnp.mean(logits, axis=0) if self.chosen is None else logits[self.chosen]
        return PolicyOutput(forward, output.backward, output.log_flow)

    def _by_member(self, output: PolicyOutput) -> Float[Array, "members forward"]:
        return output.forward.reshape(self.num_members, self.heads.forward)
