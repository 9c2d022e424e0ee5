"""Exact laws of small environments, in NumPy and float64.

Nothing here uses the package's own exact evaluation: the tests compare against a second,
independent computation. States carry the numbers of `EnumerableEnvironment.index_of`: the ones
with edges out of them first, then the terminal ones.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from didact._sampler import Sampler, score
from didact._types import (
    SCORE_FLOOR,
    EnumerableEnvironment,
    Kernel,
    PolicyOutput,
    Scored,
    State,
    Trajectory,
)
from didact.networks import MLPConfig

Table = NDArray[np.float64]
IMPOSSIBLE = SCORE_FLOOR / 10
"""Below this a log-probability stands for a masked edge."""

scored_trajectories = eqx.filter_jit(score)


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """The states of an environment and the edges between them.

    `child[i, a]` is the number of the state that action a leads to from state i, -1 where the
    action is not allowed; `order` lists the internal states by depth.
    """

    environment: EnumerableEnvironment
    states: State
    child: NDArray[np.int64]  # [internal, actions]
    order: NDArray[np.int64]
    objects: Any

    @property
    def num_internal(self) -> int:
        return self.environment.num_internal

    def terminal_law(self, log_pf: Table) -> Table:
        """P_T: the chance to end in each terminal state, from log P_F of every edge."""
        visits = np.zeros(self.num_internal + self.environment.num_terminal_states)
        visits[self.order[0]] = 1
        edges = self.child >= 0
        for i in self.order:
            np.add.at(visits, self.child[i, edges[i]], visits[i] * np.exp(log_pf[i, edges[i]]))
        return visits[self.num_internal :]

    def log_flow(self, log_pb: Table, log_reward: Table) -> Table:
        """log F(s) = log sum over s' of F(s') P_B(s|s') for internal states, log R at the ends."""
        flow = np.concatenate([np.full(self.num_internal, -np.inf), log_reward])
        for i in self.order[::-1]:
            edges = self.child[i] >= 0
            flow[i] = np.logaddexp.reduce(flow[self.child[i, edges]] + log_pb[i, edges])
        return flow

    def exact_policy(self, log_pb: Table, log_flow: Table) -> Table:
        """log P_F(s'|s) = log F(s') + log P_B(s|s') - log F(s), the optimum of every objective."""
        log_pf = log_flow[self.child] + log_pb - log_flow[: self.num_internal, None]
        return np.where(self.child >= 0, log_pf, SCORE_FLOOR)

    def paths(self) -> Iterator[list[tuple[int, int]]]:
        """All trajectories, as lists of (state, action)."""
        waiting: list[tuple[int, list[tuple[int, int]]]] = [(int(self.order[0]), [])]
        while waiting:
            state, path = waiting.pop()
            if state >= self.num_internal:
                yield path
                continue
            for action in np.flatnonzero(self.child[state] >= 0):
                following = int(self.child[state, action])
                waiting.append((following, [*path, (state, int(action))]))

    def trajectories(self, *, pad_front: bool = False) -> Trajectory:
        """All trajectories as one batch, padded at the end or at the front."""
        paths = list(self.paths())
        horizon = self.environment.num_steps
        states = np.zeros((len(paths), horizon + 1), int)
        actions = np.zeros((len(paths), horizon), np.int32)
        mask = np.zeros((len(paths), horizon), bool)
        for b, path in enumerate(paths):
            start = horizon - len(path) if pad_front else 0
            end = start + len(path)
            numbers = [state for state, _ in path]
            states[b, :start] = self.order[0]
            states[b, start:end] = numbers
            states[b, end:] = self.child[path[-1]]
            actions[b, start:end] = [action for _, action in path]
            mask[b, start:end] = True
        return Trajectory(
            jax.tree.map(lambda leaf: jnp.asarray(leaf[states]), self.states),
            jnp.asarray(actions),
            jnp.asarray(mask),
        )

    def terminal_numbers(self, trajectory: Trajectory) -> NDArray[np.int64]:
        """Number of the terminal state (from 0) of each trajectory of a batch."""
        return self.numbers(trajectory.terminal) - self.num_internal

    def numbers(self, states: State) -> NDArray[np.int64]:
        """Numbers of a batch of states."""
        return np.asarray(_numbers(self.environment, states), np.int64)


@functools.cache
def graph(environment: EnumerableEnvironment) -> Graph:
    """The graph of a small environment."""
    states, child, depth = jax.tree.map(np.asarray, _explore(environment))
    internal = environment.num_internal
    terminal = jax.tree.map(lambda leaf: leaf[internal:], states)
    return Graph(
        environment,
        states,
        child[:internal].astype(np.int64),
        np.argsort(depth[:internal], kind="stable"),
        jax.vmap(environment.sample_of)(terminal),
    )


@eqx.filter_jit
def _explore(environment: EnumerableEnvironment) -> tuple[State, Array, Array]:
    count = environment.num_internal + environment.num_terminal_states
    states = jax.vmap(environment.state_at)(jnp.arange(count))
    actions = jnp.arange(environment.num_actions)
    params = jnp.zeros(environment.forward_size)

    def children(state: State) -> Array:
        kernel = environment.forward_kernel(state, params)
        allowed = jax.vmap(kernel.log_prob)(actions) > IMPOSSIBLE
        child = jax.vmap(lambda a: environment.index_of(environment.step(state, a)))(actions)
        return jnp.where(allowed & ~environment.is_terminal(state), child, -1)

    return states, jax.vmap(children)(states), jax.vmap(environment.depth)(states)


@eqx.filter_jit
def _numbers(environment: EnumerableEnvironment, states: State) -> Array:
    return jax.vmap(environment.index_of)(states)


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
