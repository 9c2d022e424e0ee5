"""The laws of an environment, over every instance, and what the shipped ones have beside them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact._sampler import sample_backward, sample_forward
from didact.environments import Hypergrid, SiteEnvironment, published_backward_kernel
from didact.testing import _sites as sites
from didact.testing import check_environment
from didact.testing._enumeration import IMPOSSIBLE, facts
from didact.testing._laws import Ledger
from didact.testing._trajectories import check_trajectories

from .._tabular import network_sampler
from ._instances import ENUMERABLE_ENVIRONMENTS, ENVIRONMENTS

# Each dimension, kind and size that is a case of its own: the others are between them.
BETWEEN = ("hypergrid-1x3", "hypergrid-3x3", "hypergrid-4x2", "autoregressive-3^1", "brownian-3d-2")


@pytest.mark.parametrize(
    "env",
    [
        pytest.param(env, marks=[pytest.mark.slow] * (name in BETWEEN), id=name)
        for name, env in ENVIRONMENTS.items()
    ],
)
def test_every_law_holds(env, key):
    checked = check_environment(env, key=key)
    assert not checked.left_out
    assert (sites.SITES in checked.laws) == isinstance(env, SiteEnvironment)
    wanted = "all " if env in ENUMERABLE_ENVIRONMENTS.values() else "64 trajectories"
    assert checked.extent.startswith(wanted)


def all_facts(env):
    """Those of all states, under the key of the test above."""
    return facts(env, jax.random.key(0), np.arange(env.num_internal + env.num_terminal_states))


@pytest.mark.parametrize("env", ENUMERABLE_ENVIRONMENTS.values(), ids=ENUMERABLE_ENVIRONMENTS)
def test_the_fixed_backward_policy_is_uniform_over_parents(env):
    f = all_facts(env)
    count = f.backward_edges.sum(axis=1, keepdims=True)
    state, action = np.nonzero(f.backward_edges)
    np.testing.assert_allclose(f.log_pb[state, action], -np.log(count[state, 0]), atol=1e-6)


@pytest.mark.parametrize("env", [Hypergrid(1, 3), Hypergrid(2, 6), Hypergrid(4, 3)], ids=repr)
def test_published_backward_policy_breaks_the_law_it_must_and_no_other(env):
    """It puts mass on parents that are terminal, at border cells with two or more coordinates
    above 0, and is the right P_B everywhere else.
    """
    f = all_facts(env)
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
    env = ENUMERABLE_ENVIRONMENTS[name]
    sampler = network_sampler(env, key, backward_head=learned)
    trajectory, ends, wanted = _rollout(sampler, key, direction)
    check_trajectories(Ledger(sampler), env, trajectory, f"A {direction} rollout")
    mask = np.asarray(trajectory.mask)
    length = mask.sum(axis=1)
    assert np.all(length >= 1)
    # The padding is at the end of forward rollouts and at the front of backward ones.
    assert np.all(mask[:, 0 if direction == "forward" else -1])
    if direction == "backward":
        np.testing.assert_array_equal(ends, wanted)
    else:
        assert len(np.unique(ends)) > 1


@eqx.filter_jit
def _rollout(sampler, key, direction):
    """Trajectories, the numbers of their ends, and those that a way back was to begin at."""
    env = sampler.environment
    wanted = env.num_internal + jnp.arange(24) % env.num_terminal_states
    if direction == "forward":
        trajectory = sample_forward(sampler, key, 24)
    else:
        x = jax.vmap(lambda i: env.sample_of(env.state_at(i)))(wanted)
        trajectory = sample_backward(sampler, key, x)
    return trajectory, jax.vmap(env.index_of)(trajectory.terminal), wanted
