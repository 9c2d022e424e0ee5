"""Novelty: how new states are, for methods that are rewarded for what they have not seen.

What is known is learned along the way: a memory, which the training loop carries beside the
samplers and keeps in checkpoints.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ._checks import require
from ._config import require_types
from ._types import Environment, State
from .networks import MLP, MLPConfig, Network
from .networks._network import Heads

Memory = PyTree
"""What a measure of novelty has learned."""


class Novelty(eqx.Module):
    """A measure of how new states are."""

    @abc.abstractmethod
    def init(self, environment: Environment, *, key: PRNGKeyArray) -> Memory:
        """The memory before anything was seen."""

    @abc.abstractmethod
    def __call__(self, memory: Memory, environment: Environment, state: State) -> Float[Array, ""]:
        """How new one state is, at least 0."""

    @abc.abstractmethod
    def learn(
        self,
        memory: Memory,
        environment: Environment,
        state: State,
        weight: Float[Array, " N"],
    ) -> Memory:
        """The memory after having seen states [N], each `weight` times."""


class RNDMemory(eqx.Module):
    """The networks of `RND`, and the state of the optimiser."""

    target: MLP
    predictor: MLP
    opt_state: PyTree


class RND(Novelty):
    r"""Random network distillation: a network learns to predict another one, which is random and
    fixed, on the states that are seen.

    $$\nu(s) = \lVert g_\phi(s) - g(s)\rVert_2, \qquad \text{loss} = \operatorname{mean}\nu(s)$$

    over the states of a batch's trajectories, each as often as it occurs. The environment's
    features must be a vector.

    Source: Burda et al., "Exploration by random network distillation", ICLR 2019; the shape and the
    loss are those of Pan et al. (2023), as in the published grid experiments. Known divergence:
    there each trajectory counts as much as any other, here each visit does.

    **Arguments:** `width` and `depth` of both networks; `size` of their outputs; `learning_rate` of
    Adam.
    """

    width: int = eqx.field(static=True, default=256)
    depth: int = eqx.field(static=True, default=2)
    size: int = eqx.field(static=True, default=128)
    learning_rate: float = 1e-3

    def __check_init__(self):
        require("width", self.width, at_least=1)
        require("depth", self.depth, at_least=1)
        require("size", self.size, at_least=1)
        require("learning_rate", self.learning_rate, at_least=0)
        require_types(self)

    def init(self, environment: Environment, *, key: PRNGKeyArray) -> RNDMemory:
        """Two networks that know nothing of each other."""
        heads = Heads(self.size, backward=0, flow=0)
        target, predictor = (
            MLPConfig(self.width, self.depth).with_heads(environment, heads, key=k)
            for k in jax.random.split(key)
        )
        return RNDMemory(target, predictor, self._optimiser().init(_parameters(predictor)))

    def __call__(
        self, memory: RNDMemory, environment: Environment, state: State
    ) -> Float[Array, ""]:
        """How far the prediction is off."""
        features = environment.features(state)
        error = memory.predictor(features).forward - memory.target(features).forward
        return optax.safe_norm(error, 1e-8)

    def learn(
        self,
        memory: RNDMemory,
        environment: Environment,
        state: State,
        weight: Float[Array, " N"],
    ) -> RNDMemory:
        """One step of the predictor."""
        total = jnp.maximum(jnp.sum(weight), 1)

        @jax.grad
        def gradient(parameters: MLP) -> Float[Array, ""]:
            predictor = eqx.combine(parameters, memory.predictor)
            now = RNDMemory(memory.target, predictor, None)
            novelty = jax.vmap(lambda one: self(now, environment, one))(state)
            return jnp.sum(weight * novelty) / total

        parameters = _parameters(memory.predictor)
        updates, opt_state = self._optimiser().update(gradient(parameters), memory.opt_state)
        return RNDMemory(memory.target, eqx.apply_updates(memory.predictor, updates), opt_state)

    def _optimiser(self) -> optax.GradientTransformation:
        return optax.chain(optax.scale_by_adam(), optax.scale(-self.learning_rate))


def _parameters(network: Network) -> PyTree:
    return eqx.filter(network, eqx.is_inexact_array)


__all__ = ["RND", "Novelty", "RNDMemory"]
