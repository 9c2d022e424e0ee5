"""Back-and-forth search by Metropolis–Hastings leaves the target as it is.

Chains start from exact samples and end, whatever the Student is like, as exact samples. One
chi-square test a case at level 1e-4; acceptance without the chances of the ways is shown to fail.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from didact.behaviours import Agents, Behaviour, Cycle, LocalSearch, OnPolicy, Proposal, Turn
from didact.behaviours._behaviour import propose_backward
from didact.environments import Hypergrid, PrependAppend
from didact.metrics import exact
from didact.targets import FromFunction

from .._tabular import network_sampler

ENVIRONMENTS = {"strings": PrependAppend(3, 3), "grid": Hypergrid(2, 4)}
TARGET = FromFunction(lambda x: 1.2 * jnp.sin(2.0 * jnp.sum(x * jnp.arange(1, 1 + x.shape[0]))))
CHAINS, ROUNDS = 8192, 3


class FromTruth(Behaviour):
    """Exact samples, as the beginning of chains."""

    log_p: jax.Array

    @property
    def turns(self):
        return (Turn("samples"),)

    def __call__(self, agents, key, step, batch_size, *, axis_name=None) -> Proposal:
        env = agents.student.environment
        draw_key, walk_key = jax.random.split(key)
        number = jax.random.categorical(draw_key, self.log_p, shape=(batch_size,))
        x = jax.vmap(lambda i: env.sample_of(env.state_at(env.num_internal + i)))(number)
        return propose_backward(
            agents,
            walk_key,
            x,
            log_reward=jnp.zeros(batch_size),
            weight=jnp.ones(batch_size),
            fresh=True,
            known=False,
            axis_name=axis_name,
        )


class Wrong(LocalSearch):
    """Accepts as if the ways back and forth were as likely as each other."""

    def _move(self, sampler, key, x):
        new, log_ratio = super()._move(sampler, key, x)
        return new, jnp.zeros_like(log_ratio)


@eqx.filter_jit
def first_and_last(search: LocalSearch, sampler, log_p, key):
    """The numbers of the objects with which the chains begin, and of those at which they end."""
    env = sampler.environment
    begin_key, rounds_key = jax.random.split(key)
    agents = Agents(TARGET, sampler, None, None)
    begun = FromTruth(log_p)(agents, begin_key, jnp.asarray(0), CHAINS)
    x = jax.vmap(env.sample_of)(begun.trajectory.terminal)
    log_reward_fn = jax.vmap(TARGET.log_reward)
    here = x, log_reward_fn(x)
    for k in jax.random.split(rounds_key, ROUNDS):
        here, _ = search._round(sampler, log_reward_fn, here, k)

    def number(x):
        return jax.vmap(lambda one: env.index_of(env.terminal_state(one)))(x) - env.num_internal

    return number(x), number(here[0])


@pytest.mark.parametrize(
    ("name", "random_depth"),
    [
        ("strings", False),
        pytest.param("strings", True, marks=pytest.mark.slow),
        pytest.param("grid", False, marks=pytest.mark.slow),
        pytest.param("grid", True, marks=pytest.mark.slow),
    ],
)
def test_metropolis_hastings_keeps_the_target(name, random_depth):
    env = ENVIRONMENTS[name]
    key = jax.random.key(11)
    sampler = network_sampler(env, key, sharpness=3.0)
    p = np.exp(exact.truth(env, TARGET).log_p)
    log_p = jnp.log(jnp.asarray(p))

    def run(kind):
        search = kind(FromTruth(log_p), 2, 1, random_depth=random_depth)
        return map(np.asarray, first_and_last(search, sampler, log_p, key))

    begun, moved = run(LocalSearch)
    _, wrong = run(Wrong)

    def p_value(number):
        return stats.chisquare(np.bincount(number, minlength=len(p)), CHAINS * p).pvalue

    assert np.mean(begun != moved) > 0.1
    assert p_value(begun) > 1e-4
    assert p_value(moved) > 1e-4
    assert p_value(wrong) < 1e-4


def test_greedy_chains_only_climb_and_all_proposals_are_the_batch():
    env = ENVIRONMENTS["strings"]
    sampler = network_sampler(env, jax.random.key(3))
    log_p = jnp.asarray(exact.truth(env, TARGET).log_p)
    search = LocalSearch(FromTruth(log_p), depth=2, rounds=3, greedy=True)
    agents = Agents(TARGET, sampler, None, None)
    proposal = eqx.filter_jit(search)(agents, jax.random.key(0), jnp.asarray(0), 32)
    x = np.asarray(jax.vmap(env.sample_of)(proposal.trajectory.terminal)).reshape(4, 8, 3)
    reward = np.asarray(proposal.log_reward).reshape(4, 8)
    # Two edges back and two forth keep one symbol, at either end or between, of the present string.
    present, best = x[0], reward[0]
    for row, value in zip(x[1:], reward[1:], strict=True):
        for old, new in zip(present, row, strict=True):
            assert set(old) & set(new)
        better = value > best
        present = np.where(better[:, None], row, present)
        best = np.where(better, value, best)
    assert np.any(best > reward[0])


def test_a_batch_that_cannot_be_shared_is_refused():
    env = ENVIRONMENTS["strings"]
    agents = Agents(TARGET, network_sampler(env, jax.random.key(3)), None, None)
    search = LocalSearch(FromTruth(jnp.zeros(27)), rounds=3)
    with pytest.raises(ValueError, match="a multiple of 4, got 30"):
        search(agents, jax.random.key(0), jnp.asarray(0), 30)
    with pytest.raises(ValueError, match="single behaviour"):
        LocalSearch(Cycle((OnPolicy(), OnPolicy())))
