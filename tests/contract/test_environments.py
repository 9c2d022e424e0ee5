"""The laws of an environment, over every state and edge of every instance."""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact._sampler import sample_backward, sample_forward
from didact._types import EnumerableEnvironment
from didact.environments import Hypergrid, published_backward_kernel

from .._tabular import IMPOSSIBLE, network_sampler
from ._instances import ENUMERABLE_ENVIRONMENTS as ENVIRONMENTS

every_environment = pytest.mark.parametrize("env", ENVIRONMENTS.values(), ids=ENVIRONMENTS)


@dataclasses.dataclass(frozen=True)
class Facts:
    """What an environment says about all its states [N] and edges [N, A]."""

    index: Any
    is_initial: Any
    is_terminal: Any
    depth: Any
    object_index: Any  # number of terminal_state(sample_of(state))
    child: Any  # number of step(state, a)
    parent: Any  # number of backward_step(state, a)
    there_and_back: Any  # number of backward_step(step(state, a), a)
    back_and_there: Any
    log_pf: Any
    log_pb: Any
    log_pb_learned: Any

    @property
    def forward_edges(self):
        return (self.log_pf > IMPOSSIBLE) & ~self.is_terminal[:, None]

    @property
    def backward_edges(self):
        return (self.log_pb > IMPOSSIBLE) & ~self.is_initial[:, None]


@functools.cache
def facts(env: EnumerableEnvironment) -> Facts:
    return Facts(*jax.tree.map(np.asarray, _facts(env)))


@eqx.filter_jit
def _facts(env: EnumerableEnvironment):
    actions = jnp.arange(env.num_actions)
    key_f, key_b = jax.random.split(jax.random.key(1))

    def about(index):
        state = env.state_at(index)
        params_f = 3 * jax.random.normal(jax.random.fold_in(key_f, index), (env.forward_size,))
        params_b = 3 * jax.random.normal(jax.random.fold_in(key_b, index), (env.backward_size,))

        def law(kernel):
            return jax.vmap(kernel.log_prob)(actions)

        def number(move):
            return jax.vmap(lambda a: env.index_of(move(state, a)))(actions)

        return (
            env.index_of(state),
            env.is_initial(state),
            env.is_terminal(state),
            env.depth(state),
            env.index_of(env.terminal_state(env.sample_of(state))),
            number(env.step),
            number(env.backward_step),
            number(lambda s, a: env.backward_step(env.step(s, a), a)),
            number(lambda s, a: env.step(env.backward_step(s, a), a)),
            law(env.forward_kernel(state, params_f)),
            law(env.backward_kernel(state, None)),
            law(env.backward_kernel(state, params_b)),
        )

    return jax.vmap(about)(jnp.arange(env.num_internal + env.num_terminal_states))


@every_environment
def test_states_are_numbered_without_gaps(env):
    f = facts(env)
    np.testing.assert_array_equal(f.index, np.arange(len(f.index)))


@every_environment
def test_terminal_states_are_the_last_numbers(env):
    f = facts(env)
    np.testing.assert_array_equal(f.is_terminal, f.index >= env.num_internal)
    assert np.sum(f.is_terminal) == env.num_terminal_states


@every_environment
def test_every_state_is_reached_from_the_one_initial_state(env):
    f = facts(env)
    (start,) = np.flatnonzero(f.is_initial)
    assert start == env.index_of(env.initial_state())
    reached, frontier = {int(start)}, [int(start)]
    while frontier:
        state = frontier.pop()
        new = {int(c) for c in f.child[state][f.forward_edges[state]]} - reached
        reached |= new
        frontier += new
    assert reached == set(range(len(f.index)))


@every_environment
def test_a_terminal_state_and_its_object_determine_each_other(env):
    f = facts(env)
    ends = f.is_terminal
    np.testing.assert_array_equal(f.object_index[ends], f.index[ends])


@every_environment
def test_stepping_back_undoes_a_step(env):
    f = facts(env)
    state, action = np.nonzero(f.forward_edges)
    assert len(state) > 0
    np.testing.assert_array_equal(f.there_and_back[state, action], state)


@every_environment
def test_stepping_forward_undoes_a_step_back(env):
    f = facts(env)
    state, action = np.nonzero(f.backward_edges)
    np.testing.assert_array_equal(f.back_and_there[state, action], state)


@every_environment
def test_an_edge_allowed_forward_is_allowed_backward(env):
    f = facts(env)
    state, action = np.nonzero(f.forward_edges)
    assert np.all(f.backward_edges[f.child[state, action], action])


@every_environment
def test_an_edge_allowed_backward_is_allowed_forward(env):
    f = facts(env)
    state, action = np.nonzero(f.backward_edges)
    assert np.all(f.forward_edges[f.parent[state, action], action])


@every_environment
def test_an_edge_leads_one_deeper_and_no_path_exceeds_num_steps(env):
    f = facts(env)
    state, action = np.nonzero(f.forward_edges)
    np.testing.assert_array_equal(f.depth[f.child[state, action]], f.depth[state] + 1)
    assert f.depth[f.is_initial] == 0
    assert f.depth.max() == env.num_steps


@every_environment
@pytest.mark.parametrize("which", ["log_pf", "log_pb", "log_pb_learned"])
def test_policies_sum_to_one_and_vanish_on_masked_edges(env, which):
    f = facts(env)
    edges = f.forward_edges if which == "log_pf" else f.backward_edges
    defined = ~(f.is_terminal if which == "log_pf" else f.is_initial)
    probability = np.exp(getattr(f, which).astype(np.float64))
    np.testing.assert_allclose(probability.sum(axis=1)[defined], 1, atol=1e-6)
    assert np.all(probability[~edges & defined[:, None]] == 0)
    assert np.all(probability[edges] > 0)


@every_environment
def test_the_fixed_backward_policy_is_uniform_over_parents(env):
    f = facts(env)
    count = f.backward_edges.sum(axis=1, keepdims=True)
    state, action = np.nonzero(f.backward_edges)
    np.testing.assert_allclose(f.log_pb[state, action], -np.log(count[state, 0]), atol=1e-6)


@pytest.mark.parametrize("env", [Hypergrid(1, 3), Hypergrid(2, 6), Hypergrid(4, 3)], ids=repr)
def test_published_backward_policy_breaks_the_law_it_must_and_no_other(env):
    """It puts mass on parents that are terminal, at border cells with two or more coordinates
    above 0, and is the right P_B everywhere else.
    """
    f = facts(env)
    states = jax.vmap(env.state_at)(jnp.arange(len(f.index)))
    log_pb_published = np.asarray(_published(env, states))
    position, stopped = np.asarray(states.position), np.asarray(states.stopped)
    border = np.any(position == env.side - 1, axis=1) & ~stopped
    exempt = border & (np.sum(position > 0, axis=1) >= 2)
    published = log_pb_published > IMPOSSIBLE
    defined = ~f.is_initial

    # The law that it breaks: an edge allowed backward is allowed forward.
    state, action = np.nonzero(published & defined[:, None])
    impossible = ~f.forward_edges[f.parent[state, action], action]
    np.testing.assert_array_equal(np.unique(state[impossible]), np.flatnonzero(exempt))
    assert np.all(f.is_terminal[f.parent[state, action][impossible]])
    # It still gives every true edge some mass, sums to 1, and steps undo each other.
    assert np.all(published[f.backward_edges])
    total = np.exp(log_pb_published.astype(np.float64)).sum(axis=1)
    np.testing.assert_allclose(total[defined], 1, atol=1e-6)
    np.testing.assert_array_equal(f.back_and_there[state, action], state)
    # Elsewhere it is the environment's own.
    same = defined & ~exempt
    np.testing.assert_array_equal(log_pb_published[same], f.log_pb[same])
    if np.any(exempt):
        count = np.sum(position[exempt] > 0, axis=1)
        first = log_pb_published[exempt].max(axis=1)
        np.testing.assert_allclose(first, -np.log(count), atol=1e-6)


@eqx.filter_jit
def _published(env, states):
    actions = jnp.arange(env.num_actions)

    def law(state):
        return jax.vmap(published_backward_kernel(env, state, None).log_prob)(actions)

    return jax.vmap(law)(states)


@pytest.mark.parametrize(
    ("name", "direction", "learned"),
    [
        ("hypergrid-1x3", "forward", False),
        ("hypergrid-2x6", "forward", True),
        ("hypergrid-4x3", "forward", False),
        ("hypergrid-2x2", "backward", False),
        ("hypergrid-2x6", "backward", False),
        ("hypergrid-4x3", "backward", True),
        ("prepend-append-3^3", "forward", False),
        ("prepend-append-3^3", "backward", False),
    ],
)
def test_rollouts_are_padded_paths(name, direction, learned, key):
    env = ENVIRONMENTS[name]
    sampler = network_sampler(env, key, backward_head=learned)
    found = jax.tree.map(np.asarray, _rollout(sampler, key, direction))
    mask = found.mask
    assert np.all(found.first_is_initial)
    assert np.all(found.last_is_terminal)
    # The mask is one run, at the front of forward rollouts and at the end of backward ones.
    length = mask.sum(axis=1, keepdims=True)
    place = np.arange(mask.shape[1])
    run = place < length if direction == "forward" else place >= mask.shape[1] - length
    np.testing.assert_array_equal(mask, run)
    assert np.all(length >= 1)
    # Edges follow their actions, both ways, and are allowed; padding stands still.
    assert np.all(found.follows[mask])
    assert np.all(found.leads_back[mask])
    assert np.all(found.allowed[mask])
    assert np.all(found.still[~mask])
    if direction == "backward":
        np.testing.assert_array_equal(found.ends, found.wanted)
    else:
        assert len(np.unique(found.ends)) > 1


class _Rollout(eqx.Module):
    mask: Any
    first_is_initial: Any
    last_is_terminal: Any
    ends: Any
    wanted: Any
    follows: Any
    leads_back: Any
    allowed: Any
    still: Any


@eqx.filter_jit
def _rollout(sampler, key, direction):
    env = sampler.environment
    wanted = env.num_internal + jnp.arange(24) % env.num_terminal_states
    if direction == "forward":
        trajectory = sample_forward(sampler, key, 24)
    else:
        x = jax.vmap(lambda i: env.sample_of(env.state_at(i)))(wanted)
        trajectory = sample_backward(sampler, key, x)

    def edge(state, action, following):
        same = eqx.tree_equal
        kernel = env.forward_kernel(state, jnp.zeros(env.forward_size))
        return (
            same(env.step(state, action), following),
            same(env.backward_step(following, action), state),
            (kernel.log_prob(action) > IMPOSSIBLE) & ~env.is_terminal(state),
            same(state, following),
        )

    states = trajectory.states
    now = jax.tree.map(lambda leaf: leaf[:, :-1], states)
    after = jax.tree.map(lambda leaf: leaf[:, 1:], states)
    return _Rollout(
        trajectory.mask,
        jax.vmap(env.is_initial)(jax.tree.map(lambda leaf: leaf[:, 0], states)),
        jax.vmap(env.is_terminal)(trajectory.terminal),
        jax.vmap(env.index_of)(trajectory.terminal),
        wanted,
        *jax.vmap(jax.vmap(edge))(now, trajectory.actions, after),
    )
