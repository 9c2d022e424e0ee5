"""The laws of a behaviour: jit, vmap and keys change nothing that they must not."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact import replay
from didact.behaviours import Agents, Cycle, FromReplay, FromTeacher, OnPolicy
from didact.environments import Hypergrid

from .._tabular import network_sampler
from ._instances import BEHAVIOURS

ENV = Hypergrid(2, 7)
SEEDS = 3
BATCH = 16  # rollouts pack their lanes twice on the way

every_behaviour = pytest.mark.parametrize("behaviour", BEHAVIOURS.values(), ids=BEHAVIOURS)


@functools.cache
def all_agents(sharpness: float = 8.0) -> Agents:
    """Agents of three seeds, leading axis [SEEDS]; their trajectories differ much in length."""

    def make(key):
        student, teacher, content = jax.random.split(key, 3)
        x = jax.random.randint(content, (9, 2), 0, 6)
        reward = jax.random.normal(content, (9,))
        buffer = replay.add(replay.empty(jax.eval_shape(lambda: x[0]), 12), x, reward, reward)
        return Agents(
            network_sampler(ENV, student, sharpness=sharpness),
            network_sampler(ENV, teacher, sharpness=sharpness),
            buffer,
            jnp.asarray(0.01),
        )

    made = [make(jax.random.key(seed)) for seed in range(SEEDS)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)


def agents(seed: int) -> Agents:
    return jax.tree.map(lambda leaf: leaf[seed], all_agents())


@eqx.filter_jit
def propose(behaviour, agents, key, step):
    return behaviour(agents, key, step, BATCH)


@eqx.filter_jit
def propose_all(behaviour, agents, keys, step):
    return jax.vmap(lambda a, k: behaviour(a, k, step, BATCH, axis_name="seed"), axis_name="seed")(
        agents, keys
    )


def visible(proposal):
    """A proposal without the actions on padding, which mean nothing."""
    real = jnp.where(proposal.trajectory.mask, proposal.trajectory.actions, 0)
    return eqx.tree_at(lambda p: p.trajectory.actions, proposal, real)


@every_behaviour
def test_under_vmap_each_seed_gets_what_it_would_alone(behaviour, key):
    """Bit by bit: trajectories are integers, chosen by comparisons of the same numbers."""
    keys = jax.random.split(key, SEEDS)
    for step in range(2):
        together = propose_all(behaviour, all_agents(), keys, jnp.asarray(step))
        for seed in range(SEEDS):
            alone = propose(behaviour, agents(seed), keys[seed], jnp.asarray(step))
            mine = jax.tree.map(lambda leaf, seed=seed: leaf[seed], together)
            assert eqx.tree_equal(visible(mine), visible(alone)), f"seed {seed}, step {step}"


@pytest.mark.parametrize("step", range(3))
def test_jit_changes_nothing(step, key):
    """For each kind of behaviour, one of which has its turn."""
    cycle, step = BEHAVIOURS["cycle"], jnp.asarray(step)
    assert eqx.tree_equal(cycle(agents(0), key, step, BATCH), propose(cycle, agents(0), key, step))


@every_behaviour
def test_the_key_decides(behaviour, key):
    step = jnp.asarray(0)
    first = propose(behaviour, agents(0), key, step)
    assert eqx.tree_equal(first, propose(behaviour, agents(0), key, step))
    other = propose(behaviour, agents(0), jax.random.key(1), step)
    assert not eqx.tree_equal(first.trajectory, other.trajectory)


@every_behaviour
def test_a_proposal_says_where_it_comes_from(behaviour, key):
    for step, source in enumerate(behaviour.pattern):
        proposal = propose(behaviour, agents(1), key, jnp.asarray(step))
        assert proposal.by_student == (source == "student")
        assert proposal.fresh == (source != "replay")
        assert np.all(np.asarray(proposal.weight) == 1)
        assert proposal.trajectory.mask.shape == (BATCH, ENV.num_steps)
        if source == "replay":
            buffer = agents(1).replay
            x, rewards = np.asarray(buffer.x), np.asarray(buffer.log_reward)
            held = {tuple(x[i]): rewards[i] for i in range(int(buffer.size))}
            ends = np.asarray(jax.vmap(ENV.sample_of)(proposal.trajectory.terminal))
            for x, log_reward in zip(ends, np.asarray(proposal.log_reward), strict=True):
                assert held[tuple(x)] == log_reward


def test_a_cycle_takes_turns_by_the_number_of_the_step(key):
    turns = (OnPolicy(), FromReplay(), FromTeacher(), FromReplay())
    cycle = BEHAVIOURS["cycle"]
    assert cycle.behaviours == turns
    assert len(cycle.distinct) == 3
    for step in range(9):
        number = jnp.asarray(step)
        proposal = propose(cycle, agents(0), key, number)
        expected = propose(turns[step % 4], agents(0), key, number)
        assert eqx.tree_equal(proposal, expected)


@pytest.mark.parametrize("name", ["from-replay", "cycle"])
def test_an_empty_buffer_gives_a_batch_of_weight_0(name, key):
    empty = replay.empty(jax.ShapeDtypeStruct((2,), jnp.int32), 12)
    of_seed = agents(0)
    proposal = propose(
        BEHAVIOURS[name],
        Agents(of_seed.student, of_seed.teacher, empty, of_seed.rank_offset),
        key,
        jnp.asarray(1),
    )
    assert np.all(np.asarray(proposal.weight) == 0)
    assert np.all(jax.vmap(ENV.is_terminal)(proposal.trajectory.terminal))


def test_float64_is_used_throughout_where_it_is_switched_on(key):
    """The cycle has a branch of every kind, and all must agree."""
    behaviour = BEHAVIOURS["cycle"]
    with jax.enable_x64(True):
        widen = lambda leaf: (  # noqa: E731
            leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
        )
        proposal = propose(behaviour, jax.tree.map(widen, agents(0)), key, jnp.asarray(1))
        assert proposal.weight.dtype == jnp.float64
        assert proposal.log_reward.dtype == jnp.float64


def test_a_behaviour_says_what_it_lacks(key):
    nobody = Agents(agents(0).student, None, None)
    with pytest.raises(ValueError, match="teacher_reward"):
        FromTeacher()(nobody, key, jnp.asarray(0), BATCH)
    with pytest.raises(ValueError, match="a replay"):
        FromReplay()(nobody, key, jnp.asarray(0), BATCH)
    with pytest.raises(ValueError, match="at least one"):
        Cycle(())
    with pytest.raises(ValueError, match="nested"):
        Cycle((OnPolicy(), Cycle((OnPolicy(), FromReplay()))))


@pytest.mark.parametrize("kind", [OnPolicy, FromTeacher])
@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"epsilon": -0.1}, r"\[0, 1\]"),
        ({"epsilon": 1.1}, r"\[0, 1\]"),
        ({"epsilon": float("nan")}, r"\[0, 1\]"),
        ({"temperature": 0.0}, "> 0"),
    ],
)
def test_impossible_exploration_is_refused(kind, settings, remedy):
    with pytest.raises(ValueError, match=remedy):
        kind(**settings)
