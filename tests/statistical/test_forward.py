"""Forward rollouts have the law of the policy: terminal states, trajectories, batches.

Pearson's χ² at `_statistics.ERROR_RATE`, with fixed keys; each kind of check is also shown to fail
for a stated wrong sampler.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact.behaviours import Agents, FromTeacher, OnPolicy
from didact.environments import Hypergrid
from didact.targets import DeceptiveGrid

from .._statistics import fits, rejects
from .._tabular import graph, network_sampler, score_all

ENV = Hypergrid(2, 5)
TARGET = DeceptiveGrid(2, 5)
DRAWS = 24_000


PLAIN = OnPolicy(epsilon=0.0, temperature=1.0)


@functools.cache
def policy(env=ENV):
    return network_sampler(env, jax.random.key(11))


def terminal_law(sampler, behaviour: OnPolicy | FromTeacher) -> np.ndarray:
    """The exact law of the explored policy, from its logits in float64: first the temperature,
    then uniform actions.
    """
    law = graph(sampler.environment)
    states = jax.tree.map(lambda leaf: jnp.asarray(leaf[: law.num_internal]), law.states)
    logits = jax.vmap(lambda s: sampler.output(s).forward)(states)
    logits = np.asarray(logits, np.float64) / behaviour.temperature
    allowed = law.child >= 0
    weight = np.where(allowed, np.exp(logits - logits.max(axis=1, keepdims=True)), 0)
    own = weight / weight.sum(axis=1, keepdims=True)
    mixed = (1 - behaviour.epsilon) * own
    mixed += behaviour.epsilon * allowed / allowed.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        return law.terminal_law(np.log(mixed))


def draw(sampler, key, batch_size, behaviour=PLAIN):
    """Trajectories [DRAWS / batch_size, batch_size]; the work stops with the last of all."""
    # As arrays, so that one program serves all amounts of exploration.
    return _draw(sampler, key, batch_size, jax.tree.map(jnp.asarray, behaviour))


@eqx.filter_jit
def _draw(sampler, key, batch_size, behaviour):
    agents, step = Agents(TARGET, sampler, sampler, None), jnp.asarray(0)

    def one(key):
        return behaviour(agents, key, step, batch_size, axis_name="draws").trajectory

    return jax.vmap(one, axis_name="draws")(jax.random.split(key, DRAWS // batch_size))


def terminal_counts(sampler, key, batch_size, behaviour=PLAIN) -> np.ndarray:
    env = sampler.environment
    trajectory = draw(sampler, key, batch_size, behaviour)
    ends = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), trajectory.terminal)
    numbers = graph(env).numbers(ends) - env.num_internal
    assert np.all(numbers >= 0)
    return np.bincount(numbers, minlength=env.num_terminal_states)


@pytest.mark.parametrize("batch_size", [1, 3, 5, 16])
def test_terminal_states_for_every_way_of_packing_lanes(batch_size, key):
    counts = terminal_counts(policy(), key, batch_size)
    assert fits(counts, terminal_law(policy(), PLAIN))


@pytest.mark.parametrize(
    "behaviour",
    [
        OnPolicy(epsilon=0.3, temperature=1.0),
        OnPolicy(epsilon=1.0, temperature=1.0),
        OnPolicy(epsilon=0.0, temperature=3.0),
        OnPolicy(epsilon=0.0, temperature=0.5),
        OnPolicy(epsilon=0.2, temperature=2.0),
        FromTeacher(epsilon=0.2, temperature=2.0),
    ],
    ids=str,
)
def test_terminal_states_under_exploration(behaviour, key):
    counts = terminal_counts(policy(), key, 16, behaviour)
    assert fits(counts, terminal_law(policy(), behaviour))


@pytest.mark.parametrize(
    "wrong",
    [OnPolicy(epsilon=0.08, temperature=1.0), OnPolicy(epsilon=0.0, temperature=1.15)],
    ids=["uniform-actions", "temperature"],
)
def test_the_check_fails_for_a_wrong_sampler(wrong, key):
    """Wrong samplers: 8 % uniform actions, and a temperature of 1.15, that nobody asked for."""
    counts = terminal_counts(policy(), key, 16, wrong)
    assert rejects(counts, terminal_law(policy(), PLAIN))


SMALL = Hypergrid(2, 4)


def trajectory_numbers(env, trajectory) -> np.ndarray:
    """The number of each forward trajectory of a flat batch, in the order of `Graph.paths`."""
    law = graph(env)
    paths = {tuple(a for _, a in path): i for i, path in enumerate(law.paths())}
    actions, mask = np.asarray(trajectory.actions), np.asarray(trajectory.mask)
    return np.array([paths[tuple(a[m])] for a, m in zip(actions, mask, strict=True)])


def test_whole_trajectories_have_the_law_of_the_policy(key):
    sampler, law = policy(SMALL), graph(SMALL)
    trajectory = draw(sampler, key, 16)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), trajectory)
    counts = np.bincount(trajectory_numbers(SMALL, flat), minlength=sum(1 for _ in law.paths()))
    scored = score_all(sampler, law, np.zeros(SMALL.num_terminal_states))
    probability = np.exp(np.asarray(scored.log_pf, np.float64).sum(axis=1))
    np.testing.assert_allclose(probability.sum(), 1, atol=1e-5)
    assert fits(counts, probability)


@pytest.mark.parametrize("lanes", [(0, 1), (0, 15), (3, 12)], ids=str)
def test_trajectories_of_a_batch_are_independent(lanes, key):
    """The joint law of two lanes is the product of their laws, whichever stage they end in."""
    env = Hypergrid(1, 4)
    sampler = policy(env)
    trajectory = draw(sampler, key, 16)
    counts = joint_counts(env, trajectory, lanes)
    law = terminal_law(sampler, PLAIN)
    assert fits(counts.ravel(), np.outer(law, law).ravel())


def test_the_check_of_independence_fails_for_a_wrong_sampler(key):
    """Wrong sampler: one batch in four gives lane 1 what it gave lane 0."""
    env = Hypergrid(1, 4)
    sampler = policy(env)
    trajectory = draw(sampler, key, 16)
    copied = jax.tree.map(lambda leaf: leaf.at[::4, 1].set(leaf[::4, 0]), trajectory)
    law = terminal_law(sampler, PLAIN)
    assert rejects(joint_counts(env, copied, (0, 1)).ravel(), np.outer(law, law).ravel())


def joint_counts(env, trajectory, lanes) -> np.ndarray:
    law = graph(env)
    ends = [
        law.numbers(jax.tree.map(lambda leaf, i=i: leaf[:, i, -1], trajectory.states))
        - env.num_internal
        for i in lanes
    ]
    counts = np.zeros((env.num_terminal_states,) * 2)
    np.add.at(counts, tuple(ends), 1)
    return counts
