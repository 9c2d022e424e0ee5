"""The laws of a behaviour, over every instance, and what the shipped ones have beside them."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact import replay
from didact.behaviours import (
    MALA,
    Agents,
    ChainsConfig,
    Collect,
    Cycle,
    FromChains,
    FromReplay,
    FromSamples,
    FromTeacher,
    FromUniform,
    LocalSearch,
    Mutate,
    OnPolicy,
    Thompson,
    Turn,
)
from didact.environments import Autoregressive, Diffusion, Hypergrid, PrependAppend
from didact.targets import DeceptiveGrid, GaussianMixture
from didact.testing import _behaviour, check_behaviour

from .._diffusion import diffusion_sampler
from .._statistics import fits
from .._tabular import ensemble_sampler, network_sampler
from ._instances import BEHAVIOURS, CONTINUOUS_BEHAVIOURS, DISCRETE_BEHAVIOURS

ENV, TARGET = Hypergrid(2, 7), DeceptiveGrid(2, 7)
PLANE, MIXTURE = Diffusion(2, 3), GaussianMixture(((1.0, 0.0), (-1.0, 2.0)), 0.7)
SEEDS = 3
BATCH = 16  # rollouts pack their lanes twice on the way

SIMILAR = (
    "on-policy-annealed",
    "local-search-greedy",
    "from-teacher",
    "uniform",
    "chains",
    "mala-cycle",
    "collect",
    "cycle",
)


@functools.cache
def all_agents(sharpness: float = 8.0, student_of=network_sampler) -> Agents:
    """Agents of three seeds, leading axis [SEEDS]; their trajectories differ much in length."""

    @eqx.filter_jit
    def make(key):
        student, teacher, content = jax.random.split(key, 3)
        x = jax.random.randint(content, (9, 2), 0, 6)
        reward, priority = jax.vmap(TARGET.log_reward)(x), jax.random.normal(content, (9,))
        buffer = replay.add(replay.empty(jax.eval_shape(lambda: x[0]), 12), x, reward, priority)
        return Agents(
            TARGET,
            student_of(ENV, student, sharpness=sharpness),
            network_sampler(ENV, teacher, sharpness=sharpness),
            buffer,
            replay.RankDraw(jnp.asarray(0.01)),
            ChainsConfig().begin(ENV, content, BATCH),
        )

    made = [make(jax.random.key(seed)) for seed in range(SEEDS)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)


@functools.cache
def all_agents_of_the_plane() -> Agents:
    """The same over the plane, with float objects."""

    @eqx.filter_jit
    def make(key):
        student, teacher, content = jax.random.split(key, 3)
        x = jax.random.normal(content, (9, 2))
        reward = jax.vmap(MIXTURE.log_reward)(x)
        empty = replay.empty(jax.eval_shape(lambda: x[0]), 12)
        return Agents(
            MIXTURE,
            diffusion_sampler(PLANE, student),
            diffusion_sampler(PLANE, teacher),
            replay.add(empty, x, reward, reward),
            replay.RankDraw(jnp.asarray(0.01)),
        )

    made = [make(jax.random.key(seed)) for seed in range(SEEDS)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)


def agents(seed: int) -> Agents:
    return jax.tree.map(lambda leaf: leaf[seed], all_agents())


def all_agents_for(behaviour, sharpness: float = 8.0) -> Agents:
    """Those over the plane, or with an ensemble, for the behaviours that need one."""
    if behaviour in CONTINUOUS_BEHAVIOURS.values():
        return all_agents_of_the_plane()
    if behaviour is BEHAVIOURS["thompson"]:
        return all_agents(1.0, ensemble_sampler)
    return all_agents(sharpness)


def agents_for(behaviour, seed: int) -> Agents:
    return jax.tree.map(lambda leaf: leaf[seed], all_agents_for(behaviour))


def propose(behaviour, agents, key, step):
    """Compiled as the kit does it, so that each behaviour is compiled once."""
    return _behaviour.propose(behaviour, agents, key, step, BATCH)


@pytest.mark.parametrize(
    "behaviour",
    # An annealed epsilon and a greedy search are an epsilon and a search; a uniform policy is one,
    # chains move as a search does, MALA inside a cycle is MALA and a cycle, what is collected is
    # another's, and a cycle of sizes is a cycle.
    [
        pytest.param(one, marks=[pytest.mark.slow] * (name in SIMILAR), id=name)
        for name, one in BEHAVIOURS.items()
    ],
)
def test_every_law_holds(behaviour, key):
    of_seed = jax.tree.map(lambda leaf: leaf[0], all_agents_for(behaviour, 1.0))
    check_behaviour(behaviour, of_seed, key=key, batch_size=BATCH)


@pytest.mark.parametrize("step", range(3))
def test_jit_changes_nothing(step, key):
    """For each kind of behaviour, one of which has its turn."""
    cycle, step = BEHAVIOURS["cycle"], jnp.asarray(step)
    assert eqx.tree_equal(cycle(agents(0), key, step, BATCH), propose(cycle, agents(0), key, step))


def test_what_each_turn_costs_and_promises():
    """MALA: one evaluation to begin, one a step, one of what it found, and its inner's."""
    own = OnPolicy()
    assert own.turns == (Turn("student", 1, on_policy=True),)
    assert OnPolicy(epsilon=0.1).turns == OnPolicy(temperature=2.0).turns == (Turn("student"),)
    assert FromTeacher().turns == (Turn("teacher"),)
    drawn = {"from_buffer": True}
    assert FromReplay().turns == (Turn("replay", 0, **drawn),)
    assert FromReplay(3).turns == (Turn("replay", 0, batches=3, **drawn),)
    assert BEHAVIOURS["cycle-of-sizes"].most_batches == 3
    assert FromSamples().turns == (Turn("samples"),)
    assert Collect(own).turns == (Turn("student", collects=True),)
    assert MALA(own, 10, 5).turns == (Turn("search", 13),)
    assert MALA(FromReplay(), 10, 5).turns == (Turn("search", 12, **drawn),)
    assert Collect(MALA(FromReplay())).turns == (Turn("search", 202, collects=True, **drawn),)
    assert LocalSearch(own).turns == (Turn("search"),)
    assert LocalSearch(FromReplay()).turns == (Turn("search", **drawn),)
    assert Mutate().turns == (Turn("search", **drawn),)
    assert FromUniform().turns == (Turn("uniform"),)
    assert FromChains().turns == (Turn("chains"),)
    assert Thompson().turns == (Turn("student"),)


def test_exploration_is_annealed_to_none():
    """ε(1 - t/n): all variance of the last explored step is the kernel's own."""
    annealed = DISCRETE_BEHAVIOURS["on-policy-annealed"]
    key, of_seed = jax.random.key(8), agents(0)
    for step in range(6):
        share = 0.5 * max(1 - step / 3, 0)
        expected = propose(OnPolicy(epsilon=jnp.asarray(share)), of_seed, key, jnp.asarray(0))
        found = propose(annealed, of_seed, key, jnp.asarray(step))
        assert eqx.tree_equal(found.trajectory, expected.trajectory), step
    first, last = (propose(annealed, of_seed, key, jnp.asarray(step)) for step in (0, 3))
    assert not eqx.tree_equal(first.trajectory, last.trajectory)


def test_what_is_collected_is_what_the_inner_behaviour_proposes(key):
    step = jnp.asarray(0)
    inner = propose(FromTeacher(), agents(0), key, step)
    proposal = propose(DISCRETE_BEHAVIOURS["collect"], agents(0), key, step)
    assert not inner.collect
    marked = eqx.tree_at(lambda p: p.collect, inner, jnp.asarray(True))
    assert eqx.tree_equal(proposal, marked)


@pytest.mark.parametrize("step", range(3))
def test_samples_of_the_target_are_exact_and_not_of_the_student(step, key):
    proposal = propose(FromSamples(), agents_for(FromSamples(), step), key, jnp.asarray(step))
    draw_key, _ = jax.random.split(key)
    x = jax.vmap(MIXTURE.sample)(jax.random.split(draw_key, BATCH))
    np.testing.assert_allclose(proposal.trajectory.terminal.position, x, rtol=1e-6)


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


def test_mutants_differ_in_one_site_from_what_is_drawn_for_them(key):
    """By the rule of the behaviour, or by that of the buffer."""
    best_first = replay.RankDraw(1e-9)
    buffer = agents(0).replay
    held = np.asarray(buffer.x)[: int(buffer.size)]
    best = held[np.argmin(np.asarray(buffer.rank)[: int(buffer.size)])]
    drawn, first = (
        propose(behaviour, agents(0), key, jnp.asarray(0))
        for behaviour in (Mutate(), Mutate(best_first))
    )
    away = np.sum(np.asarray(drawn.trajectory.terminal.position)[:, None] != held, axis=2)
    assert np.all(away.min(axis=1) <= 1)
    assert len(np.unique(away.argmin(axis=1))) > 2
    one_off = np.sum(np.asarray(first.trajectory.terminal.position) != best, axis=1)
    np.testing.assert_array_equal(one_off, 1)
    assert drawn.fresh
    assert not drawn.known
    ruled = dataclasses.replace(agents(0), draw=best_first)
    assert eqx.tree_equal(propose(Mutate(), ruled, key, jnp.asarray(0)), first)


SITES = [
    (Hypergrid(2, 5), (1, 3), (5, 5)),
    (Hypergrid(2, 5), (4, 2), (5, 4)),  # a second site must not reach the border
    (PrependAppend(3, 2), (0, 2), (3, 3)),
    (Autoregressive(2, 2), (1, 1), (2, 2)),
]
"""An environment, an object, and the number of values that each of its sites may have."""


@pytest.mark.parametrize(("env", "x", "num_values"), SITES)
def test_all_other_values_of_all_sites_are_as_likely(env, x, num_values, key):
    children = jax.vmap(env.mutate, (0, None))(jax.random.split(key, 4096), jnp.asarray(x))
    law, counts = np.zeros((5, 5)), np.zeros((5, 5))
    for site, number in enumerate(num_values):
        for value in set(range(number)) - {x[site]}:
            law[tuple(np.where(np.arange(2) == site, value, x))] = 1 / (2 * (number - 1))
    np.add.at(counts, tuple(np.asarray(children).T), 1)
    assert fits(counts.ravel(), law.ravel())


def test_several_batches_of_the_buffer_are_a_larger_one(key):
    step = jnp.asarray(0)
    several = propose(FromReplay(3), agents(0), key, step)
    large = _behaviour.propose(FromReplay(), agents(0), key, step, 3 * BATCH)
    assert eqx.tree_equal(several, large)


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
    nobody = Agents(TARGET, agents(0).student, None, None)
    with pytest.raises(ValueError, match="teacher_reward"):
        FromTeacher()(nobody, key, jnp.asarray(0), BATCH)
    with pytest.raises(ValueError, match="a replay"):
        FromReplay()(nobody, key, jnp.asarray(0), BATCH)
    with pytest.raises(ValueError, match="a replay"):
        Collect(OnPolicy())(nobody, key, jnp.asarray(0), BATCH)
    with pytest.raises(ValueError, match="a replay"):
        Mutate()(nobody, key, jnp.asarray(0), BATCH)
    with pytest.raises(ValueError, match="Diffusion is no SiteEnvironment"):
        Mutate()(agents_for(BEHAVIOURS["mala-cycle"], 0), key, jnp.asarray(0), BATCH)
    with pytest.raises(ValueError, match="exact samples, which DeceptiveGrid has not"):
        FromSamples()(nobody, key, jnp.asarray(0), BATCH)
    with pytest.raises(ValueError, match=r"chains=ChainsConfig\(\)"):
        FromChains()(nobody, key, jnp.asarray(0), BATCH)
    with pytest.raises(ValueError, match="one object for each chain"):
        LocalSearch(FromChains(), rounds=3)(agents(0), key, jnp.asarray(0), BATCH)
    alone = Agents(TARGET, agents(0).teacher, None, None)
    with pytest.raises(ValueError, match="a BootstrappedConfig"):
        Thompson()(alone, key, jnp.asarray(0), BATCH)


@pytest.mark.parametrize(
    ("build", "remedy"),
    [
        (lambda: Cycle(()), "at least one"),
        (lambda: Cycle((OnPolicy(), Cycle((OnPolicy(), FromReplay())))), "nested"),
        (lambda: Collect(Cycle((OnPolicy(), FromTeacher()))), "inside a Cycle"),
        (lambda: Collect(Collect(OnPolicy())), "single"),
        (lambda: Collect(FromReplay()), r"FromReplay\(\)"),
        (lambda: MALA(Cycle((OnPolicy(), FromReplay()))), "inside Collect or a Cycle"),
        (lambda: MALA(Collect(OnPolicy())), "inside Collect"),
        (lambda: LocalSearch(FromReplay(2)), "one batch, got one of 2"),
        (lambda: MALA(FromReplay(2)), "one batch, got one of 2"),
        (lambda: FromReplay(0), "batches must be >= 1"),
        (lambda: MALA(OnPolicy(), 0, 0), "num_steps must be >= 1"),
        (lambda: MALA(OnPolicy(), 5, 5), "burn_in must be below num_steps"),
        (lambda: MALA(OnPolicy(), 5, -1), "burn_in must be >= 0"),
        (lambda: MALA(OnPolicy(), step_size=0.0), "step_size must be > 0"),
        (lambda: MALA(OnPolicy(), acceptance=1.0), r"\(0, 1\)"),
    ],
)
def test_impossible_combinations_are_refused(build, remedy):
    with pytest.raises(ValueError, match=remedy):
        build()


@pytest.mark.parametrize("kind", [OnPolicy, FromTeacher])
@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"epsilon": -0.1}, r"\[0, 1\]"),
        ({"epsilon": 1.1}, r"\[0, 1\]"),
        ({"epsilon": float("nan")}, r"\[0, 1\]"),
        ({"temperature": 0.0}, "> 0"),
        ({"epsilon": 0.1, "anneal_steps": 0}, ">= 1"),
        ({"anneal_steps": 5}, "give an epsilon"),
    ],
)
def test_impossible_exploration_is_refused(kind, settings, remedy):
    with pytest.raises(ValueError, match=remedy):
        kind(**settings)
