"""The graph of a small environment and its flows, in NumPy and float64; and a graph of walks
that no environment has.

It uses nothing of the package's exact evaluation, so that the two can be compared. States carry
the numbers of `EnumerableEnvironment.index_of`: the ones with edges out of them first, then the
terminal ones.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from .._types import SCORE_FLOOR, EnumerableEnvironment, State, Trajectory
from ._enumeration import IMPOSSIBLE

Table = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Paths:
    """Trajectories as numbers of states [B, T+1] and actions [B, T], padded at one end."""

    states: NDArray[np.int64]
    actions: NDArray[np.int32]
    mask: NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, eq=False)
class Edges:
    """States that are numbered, and the edges between them.

    `child[i, a]` is the number of the state that action a leads to from state i, -1 where the
    action is not allowed; `order` lists the internal states by depth.
    """

    child: NDArray[np.int64]  # [internal, actions]
    order: NDArray[np.int64]

    @property
    def num_internal(self) -> int:
        """How many states have edges out of them."""
        return len(self.child)

    @property
    def num_ends(self) -> int:
        """How many states are terminal: they have the last numbers."""
        return int(self.child.max()) + 1 - self.num_internal

    def terminal_law(self, log_pf: Table) -> Table:
        """P_T: the chance to end in each terminal state, from log P_F of every edge."""
        visits = np.zeros(self.num_internal + self.num_ends)
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

    def numbered_paths(self, *, pad_front: bool = False) -> Paths:
        """All trajectories as one batch of numbers, padded at the end or at the front."""
        paths = list(self.paths())
        horizon = max(map(len, paths))
        states = np.zeros((len(paths), horizon + 1), np.int64)
        actions = np.zeros((len(paths), horizon), np.int32)
        mask = np.zeros((len(paths), horizon), bool)
        for b, path in enumerate(paths):
            start = horizon - len(path) if pad_front else 0
            end = start + len(path)
            states[b, :start] = self.order[0]
            states[b, start:end] = [state for state, _ in path]
            states[b, end:] = self.child[path[-1]]
            actions[b, start:end] = [action for _, action in path]
            mask[b, start:end] = True
        return Paths(states, actions, mask)


@dataclasses.dataclass(frozen=True, eq=False)
class Graph(Edges):
    """The states of an environment and the edges between them."""

    environment: EnumerableEnvironment
    states: State
    objects: Any

    def trajectories(self, *, pad_front: bool = False) -> Trajectory:
        """All trajectories as one batch, padded at the end or at the front."""
        paths = self.numbered_paths(pad_front=pad_front)
        return Trajectory(
            jax.tree.map(lambda leaf: jnp.asarray(leaf[paths.states]), self.states),
            jnp.asarray(paths.actions),
            jnp.asarray(paths.mask),
        )

    def terminal_numbers(self, trajectory: Trajectory) -> NDArray[np.int64]:
        """Number of the terminal state (from 0) of each trajectory of a batch."""
        return self.numbers(trajectory.terminal) - self.num_internal

    def numbers(self, states: State) -> NDArray[np.int64]:
        """Numbers of a batch of states."""
        return np.asarray(_numbers(self.environment, states), np.int64)


def graph(environment: EnumerableEnvironment) -> Graph:
    """The graph of a small environment."""
    states, objects, child, depth = jax.tree.map(np.asarray, _explore(environment))
    internal = environment.num_internal
    return Graph(
        child[:internal].astype(np.int64),
        np.argsort(depth[:internal], kind="stable"),
        environment,
        states,
        objects,
    )


def stairs(rows: int, columns: int) -> Edges:
    """Walks on a grid, one up in a coordinate at a time, that stop anywhere. Where they end is the
    number of steps alone: most ends have several parents, and trajectories several lengths.
    """
    row, column = np.divmod(np.arange(rows * columns), columns)
    place = np.arange(rows * columns)
    up = np.where(row + 1 < rows, place + columns, -1)
    right = np.where(column + 1 < columns, place + 1, -1)
    stop = rows * columns + row + column
    return Edges(np.stack([up, right, stop], axis=1), np.argsort(row + column, kind="stable"))


@eqx.filter_jit
def _explore(environment: EnumerableEnvironment) -> tuple[State, Any, Array, Array]:
    count = environment.num_internal + environment.num_terminal_states
    states = jax.vmap(environment.state_at)(jnp.arange(count))
    actions = jnp.arange(environment.num_actions)
    params = jnp.zeros(environment.forward_size)

    def children(state: State) -> Array:
        kernel = environment.forward_kernel(state, params)
        allowed = jax.vmap(kernel.log_prob)(actions) > IMPOSSIBLE
        child = jax.vmap(lambda a: environment.index_of(environment.step(state, a)))(actions)
        return jnp.where(allowed & ~environment.is_terminal(state), child, -1)

    ends = jax.tree.map(lambda leaf: leaf[environment.num_internal :], states)
    objects = jax.vmap(environment.sample_of)(ends)
    return states, objects, jax.vmap(children)(states), jax.vmap(environment.depth)(states)


@eqx.filter_jit
def _numbers(environment: EnumerableEnvironment, states: State) -> Array:
    return jax.vmap(environment.index_of)(states)
