"""A policy without a network."""

import dataclasses
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from .._types import Environment, PolicyOutput
from ._network import Heads, Network, NetworkConfig


@dataclasses.dataclass(frozen=True)
class UniformConfig(NetworkConfig):
    """No network: all edges out of a state are as likely; a Gaussian step is the environment's own.

    A Student with it learns log Z alone. It shows what exploration finds by itself.
    """

    @property
    def guided(self) -> bool:
        """It knows nothing."""
        return False

    def build(
        self,
        environment: Environment,
        *,
        flow_head: bool,
        backward_head: bool,
        key: PRNGKeyArray,
    ) -> "Uniform":
        """The policy for an environment. The key is not used."""
        heads = Heads.of(environment, flow_head=flow_head, backward_head=backward_head)
        return Uniform(heads, self)

    def build_for(self, environment: Environment) -> "Uniform":
        """The policy for an environment, with the head for P_F alone."""
        return Uniform(Heads.of(environment, flow_head=False, backward_head=False), self)


class Uniform(Network):
    """Zeros as the parameters of P_F, of a learned P_B and for log F."""

    heads: Heads = eqx.field(static=True)
    config: UniformConfig = eqx.field(static=True)

    def __call__(self, features: Any, guidance: Array | None = None) -> PolicyOutput:
        """Outputs at any state."""
        return self.heads.split(jnp.zeros(self.heads.total))
