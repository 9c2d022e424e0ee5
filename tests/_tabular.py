"""Exact laws of small environments, in NumPy and float64.

Nothing here uses the package's own exact evaluation: the tests compare against a second,
independent computation, that of the conformance kit.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from didact._sampler import Sampler, score
from didact._types import EnumerableEnvironment, Kernel, PolicyOutput, Scored, State
from didact.networks import BootstrappedConfig, MLPConfig
from didact.testing import _graph
from didact.testing._graph import Graph, Table

scored_trajectories = eqx.filter_jit(score)
graph = functools.cache(_graph.graph)


class TablePolicy(eqx.Module):
    """A policy that looks its output up: rows are states, found by their features."""

    features: Array  # [states, ...]
    forward: Float[Array, "states forward"]
    backward: Float[Array, "states backward"] | None = None
    log_flow: Float[Array, " states"] | None = None

    def __call__(self, features: Array) -> PolicyOutput:
        same = jnp.all(self.features == features, axis=tuple(range(1, self.features.ndim)))
        row = jnp.argmax(same)
        return PolicyOutput(
            forward=self.forward[row],
            backward=None if self.backward is None else self.backward[row],
            log_flow=None if self.log_flow is None else self.log_flow[row],
        )


def table_sampler(
    law: Graph,
    log_pf: Table,
    log_z: float,
    *,
    backward: Table | None = None,
    log_flow: Table | None = None,
    backward_scoring: Callable[..., Kernel] | None = None,
) -> Sampler:
    """A sampler with the given P_F (and logits of P_B [all states], and log F)."""
    env = law.environment
    features = jax.vmap(env.features)(jax.tree.map(jnp.asarray, law.states))
    padded = np.zeros((len(features), env.forward_size))
    padded[: law.num_internal] = log_pf
    policy = TablePolicy(
        features,
        _as_float(padded),
        None if backward is None else _as_float(backward),
        None if log_flow is None else _as_float(log_flow),
    )
    return Sampler(env, policy, _as_float(log_z), backward_scoring)


def network_sampler(
    environment: EnumerableEnvironment,
    key: Array,
    *,
    backward_head: bool = False,
    flow_head: bool = False,
    backward_scoring: Callable[..., Kernel] | None = None,
    sharpness: float = 8.0,
) -> Sampler:
    """A small random network. Its outputs are multiplied by `sharpness`, as the policies of
    fresh networks are all but uniform.
    """
    policy = MLPConfig(width=8, depth=1).build(
        environment, flow_head=flow_head, backward_head=backward_head, key=key
    )
    policy = eqx.tree_at(
        lambda p: p.layers[-1],
        policy,
        jax.tree.map(lambda leaf: sharpness * leaf, policy.layers[-1]),
    )
    return Sampler(environment, policy, jnp.asarray(0.7), backward_scoring)


def ensemble_sampler(
    environment: EnumerableEnvironment, key: Array, *, sharpness: float = 8.0
) -> Sampler:
    """The same with three policies."""
    config = BootstrappedConfig(width=8, depth=1, members=3)
    policy = config.build(environment, flow_head=False, backward_head=False, key=key)
    policy = eqx.tree_at(
        lambda p: p.network.layers[-1],
        policy,
        jax.tree.map(lambda leaf: sharpness * leaf, policy.network.layers[-1]),
    )
    return Sampler(environment, policy, jnp.asarray(0.7))


@eqx.filter_jit
def _edge_scores(sampler: Sampler, states: State, child: Array) -> tuple[Array, Array]:
    env = sampler.environment
    actions = jnp.arange(child.shape[1])
    internal = jax.tree.map(lambda leaf: leaf[: child.shape[0]], states)
    following = jax.tree.map(lambda leaf: leaf[child], states)

    def log_pf(state: State) -> Array:
        return jax.vmap(sampler.forward_kernel(state).log_prob)(actions)

    def log_pb(state: State, action: Array) -> Array:
        params = sampler.output(state).backward
        if sampler.backward_scoring is None:
            return env.backward_kernel(state, params).log_prob(action)
        return sampler.backward_scoring(env, state, params).log_prob(action)

    by_action = jax.vmap(log_pb, in_axes=(0, 0))
    return jax.vmap(log_pf)(internal), jax.vmap(by_action, in_axes=(0, None))(following, actions)


def edge_scores(sampler: Sampler, law: Graph) -> tuple[Table, Table]:
    """log P_F and log P_B (as scored) of every edge, [internal, actions]."""
    log_pf, log_pb = _edge_scores(
        sampler, jax.tree.map(jnp.asarray, law.states), jnp.asarray(law.child)
    )
    return np.asarray(log_pf, np.float64), np.asarray(log_pb, np.float64)


def optimal_sampler(
    law: Graph,
    log_reward: Table,
    *,
    backward: Table | None = None,
    backward_scoring: Callable[..., Kernel] | None = None,
) -> Sampler:
    """The sampler with exact flows: every objective is 0 on every trajectory."""
    blank = np.zeros((law.num_internal, law.environment.forward_size))
    options = {"backward": backward, "backward_scoring": backward_scoring}
    _, log_pb = edge_scores(table_sampler(law, blank, 0.0, **options), law)
    log_flow = law.log_flow(log_pb, log_reward)
    log_z = float(log_flow[law.order[0]])
    log_pf = law.exact_policy(log_pb, log_flow)
    return table_sampler(law, log_pf, log_z, log_flow=log_flow, **options)


def score_all(
    sampler: Sampler, law: Graph, log_reward: Table, *, pad_front: bool = False
) -> Scored:
    """Scores of all trajectories of an environment."""
    trajectory = law.trajectories(pad_front=pad_front)
    ends = law.terminal_numbers(trajectory)
    rewards = _as_float(log_reward[ends])
    return scored_trajectories(sampler, trajectory, rewards, jnp.ones_like(rewards))


def _as_float(values: Any) -> Array:
    return jnp.asarray(values, jnp.result_type(float))
