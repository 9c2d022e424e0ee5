"""What a network's configuration is, and the parts that networks share."""

import abc
import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, Inexact, Int, PRNGKeyArray

from .._types import Environment, PolicyOutput


@dataclasses.dataclass(frozen=True)
class NetworkConfig(abc.ABC):
    """The shape of a network: what is saved, and from which the network is built."""

    @property
    @abc.abstractmethod
    def guided(self) -> bool:
        """Whether the network takes the gradient of log R at each state as a second argument."""

    @abc.abstractmethod
    def build(
        self,
        environment: Environment,
        *,
        flow_head: bool,
        backward_head: bool,
        key: PRNGKeyArray,
    ) -> "Network":
        """A freshly initialised network for an environment."""


class Network(eqx.Module):
    """A policy network: `features` of one state (and where `config.guided`, the gradient of log R
    there) in, `PolicyOutput` out.
    """

    heads: eqx.AbstractVar["Heads"]
    config: eqx.AbstractVar[NetworkConfig]

    @abc.abstractmethod
    def __call__(self, features: Any, guidance: Array | None = None) -> PolicyOutput:
        """Outputs at one state."""


class EnsembleConfig(NetworkConfig):
    """The shape of an `Ensemble`."""


class Ensemble(Network):
    """Several policies in one network, which by itself is a policy that speaks for all of them."""

    @property
    @abc.abstractmethod
    def num_members(self) -> int:
        """The number of policies."""

    @abc.abstractmethod
    def member(self, index: Int[Array, ""]) -> "Ensemble":
        """One of the policies, as a network."""


@dataclasses.dataclass(frozen=True)
class Heads:
    """Sizes of the heads for P_F, a learned P_B (0: fixed) and log F (0 or 1), side by side."""

    forward: int
    backward: int
    flow: int

    @staticmethod
    def of(environment: Environment, *, flow_head: bool, backward_head: bool) -> "Heads":
        """Those for an environment."""
        return Heads(
            environment.forward_size,
            environment.backward_size if backward_head else 0,
            int(flow_head),
        )

    @property
    def total(self) -> int:
        """Size of all together."""
        return self.forward + self.backward + self.flow

    def split(self, out: Float[Array, " outputs"]) -> PolicyOutput:
        """The heads of one output vector."""
        end = self.forward + self.backward
        return PolicyOutput(
            forward=out[: self.forward],
            backward=out[self.forward : end] if self.backward else None,
            log_flow=out[end] if self.flow else None,
        )


class Layer(eqx.Module):
    """An affine map, `weight` [in, out] and `bias` [out]."""

    weight: Inexact[Array, "inputs outputs"]
    bias: Inexact[Array, " outputs"]

    @staticmethod
    def initialise(inputs: int, outputs: int, *, key: PRNGKeyArray) -> "Layer":
        """Uniform in ±1/sqrt(inputs), as torch's Linear."""
        bound = 1 / math.sqrt(inputs)
        weight_key, bias_key = jax.random.split(key)
        return Layer(
            jax.random.uniform(weight_key, (inputs, outputs), minval=-bound, maxval=bound),
            jax.random.uniform(bias_key, (outputs,), minval=-bound, maxval=bound),
        )

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """x · weight + bias."""
        return x @ self.weight + self.bias
