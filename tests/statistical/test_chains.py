"""Markov chains leave the target as it is, at every temperature, and count what they ask for.

Chains start from exact samples of their level and end as such. One chi-square test a level at the
rate of `_statistics`; two wrong chains are shown to fail: one that takes the ways there and back to
be as likely as each other, and one that always exchanges.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact._experiment import Experiment
from didact._train import ask, init, objects, tell
from didact.behaviours import Chains, ChainsConfig, FromChains, run_chains
from didact.behaviours._chains import _propose
from didact.environments import Hypergrid, PrependAppend
from didact.metrics import exact
from didact.networks import UniformConfig
from didact.targets import DeceptiveGrid, FromFunction

from .._statistics import fits, rejects

STRINGS = PrependAppend(3, 3)
TARGET = FromFunction(lambda x: 1.2 * jnp.sin(2.0 * jnp.sum(x * jnp.arange(1, 1 + x.shape[0]))))
# An odd number of exchanges: an even one may put all objects back where they were.
CHAINS, STEPS, LEVELS, HOTTEST = 24_576, 3, 3, 9.0


@eqx.filter_jit
def run(config: ChainsConfig, log_p, key, even_ways, always):
    """Numbers of the objects [CHAINS] with which chains begin, and of those at which they end.

    `even_ways`: the ways there and back are taken to be as likely as each other; `always`: chains
    stay where they are and always exchange.
    """
    begin_key, key = jax.random.split(key)
    level = jnp.arange(CHAINS) % config.levels
    number = jax.random.categorical(begin_key, log_p[None, :] / config.temperatures[level, None])
    x = jax.vmap(lambda i: STRINGS.sample_of(STRINGS.state_at(STRINGS.num_internal + i)))(number)
    log_reward_fn = jax.vmap(TARGET.log_reward)

    def step(chains, key):
        move_key, settle_key = jax.random.split(key)
        x, log_ratio = _propose(3, STRINGS, chains, move_key)
        log_ratio = jnp.where(even_ways & ~jnp.isneginf(log_ratio), 0, log_ratio)
        # Of chains that all have the same reward every exchange is accepted.
        present = jnp.where(always, 0, chains.log_reward)
        log_ratio = jnp.where(always, -jnp.inf, log_ratio)
        chains = eqx.tree_at(lambda c: c.log_reward, chains, present)
        return config.settle(chains, settle_key, x, log_reward_fn(x), log_ratio), None

    begun = Chains(x, log_reward_fn(x))
    chains, _ = jax.lax.scan(step, begun, jax.random.split(key, STEPS))
    end = jax.vmap(lambda one: STRINGS.index_of(STRINGS.terminal_state(one)))(chains.x)
    return number, end - STRINGS.num_internal


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        pytest.param(ChainsConfig(), 0, marks=pytest.mark.slow),
        (ChainsConfig(LEVELS, HOTTEST), 1),
    ],
    ids=["metropolis", "tempering"],
)
def test_each_level_keeps_its_law(config, wrong, key):
    log_p = exact.truth(STRINGS, TARGET).log_p
    right = jnp.asarray([False, False])
    begun, ended = map(np.asarray, run(config, jnp.asarray(log_p), key, *right))
    spoilt = np.asarray(run(config, jnp.asarray(log_p), key, *right.at[wrong].set(True))[1])
    assert np.mean(begun != ended) > 0.3
    rejected = []
    for level, temperature in enumerate(np.asarray(config.temperatures)):
        p = np.exp(np.asarray(log_p, np.float64) / temperature)
        p /= p.sum()
        counts, bad = (
            np.bincount(number[level :: config.levels], minlength=len(p))
            for number in (ended, spoilt)
        )
        assert fits(counts, p), temperature
        rejected.append(rejects(bad, p))
    assert any(rejected)


def test_temperatures_rise_geometrically():
    np.testing.assert_allclose(ChainsConfig(4, hottest=8.0).temperatures, [1, 2, 4, 8], rtol=1e-6)
    np.testing.assert_allclose(ChainsConfig().temperatures, [1.0])


@pytest.mark.slow
def test_tempering_crosses_a_valley_that_metropolis_does_not():
    """Two peaks of one height on a line, with 30 nats between them. A chain stays on the first that
    it comes to, which is the nearer one; with hotter chains beside it, it is on each half the time.
    """
    line = Hypergrid(1, 12)
    target = FromFunction(lambda x: jnp.where((x[0] == 0) | (x[0] == 8), 0.0, -30.0))

    def share_beyond(config):
        found = run_chains(
            *(line, target, jax.random.key(1)),
            num_chains=16,
            num_steps=400,
            depth=3,
            config=config,
        )
        assert found.x.shape == (400, 16 // config.levels, 1)
        assert found.proposed.shape == (400, 16, 1)
        return float(np.mean(np.asarray(found.x)[200:, :, 0] == 8))

    assert share_beyond(ChainsConfig()) < 0.15
    assert 0.3 < share_beyond(ChainsConfig(8, hottest=1e3)) < 0.7


@pytest.mark.slow
def test_the_reward_that_is_reported_is_that_of_the_place(key):
    target = DeceptiveGrid(2, 8)
    found = run_chains(Hypergrid(2, 8), target, key, num_chains=4, num_steps=50)
    begun = np.isfinite(np.asarray(found.log_reward))
    assert begun[-1].all()
    wanted = np.asarray(jax.vmap(jax.vmap(target.log_reward))(found.x))
    np.testing.assert_allclose(np.asarray(found.log_reward)[begun], wanted[begun])


@pytest.mark.slow
def test_chains_in_training_are_counted_like_every_other_source_of_batches():
    """Each step asks for one reward a chain, what is found is what was proposed, and a chain goes
    nowhere else. A Student without a network leaves the chains to themselves.
    """
    setting = Experiment(
        environment=Hypergrid(2, 8),
        target=DeceptiveGrid(2, 8),
        behaviour=FromChains(depth=4),
        chains=ChainsConfig(2, hottest=5.0),
        network=UniformConfig(),
        batch_size=8,
    )
    assert setting.reward_calls(10) == 80
    state, asked, modes = init(setting, [0]), [], set()
    for _ in range(30):
        proposal = ask(setting, state)
        assert proposal.fresh[0]
        assert not proposal.known[0]
        assert not proposal.by_student[0]
        x = objects(setting, proposal)
        rewards = jax.vmap(jax.vmap(setting.target.log_reward))(x)
        state, info = tell(setting, state, proposal, rewards)
        asked += map(tuple, np.asarray(x[0]))
        modes |= {int(setting.target.mode_index(one)) for one in x[0]} - {-1}
        assert int(info.modes_found[0]) == len(modes)
        assert int(info.modes_found_student[0]) == 0
        places = np.asarray(state.seeds.chains.x[0])
        begun = np.isfinite(np.asarray(state.seeds.chains.log_reward[0]))
        assert set(map(tuple, places[begun])) <= set(asked)
    assert begun.all()
    assert modes  # else the key shows nothing: take another


def test_impossible_chains_are_refused(key):
    with pytest.raises(ValueError, match="levels must be >= 1"):
        ChainsConfig(0)
    with pytest.raises(ValueError, match="hottest must be >= 1"):
        ChainsConfig(2, hottest=0.5)
    with pytest.raises(ValueError, match="depth must be >= 1"):
        FromChains(0)
    with pytest.raises(ValueError, match="a multiple"):
        ChainsConfig(3).begin(STRINGS, key, 8)
    grid = {"environment": Hypergrid(2, 8), "target": DeceptiveGrid(2, 8)}
    with pytest.raises(ValueError, match="give the Experiment a ChainsConfig"):
        Experiment(**grid, behaviour=FromChains())
    with pytest.raises(ValueError, match="multiple of the 3 levels"):
        Experiment(**grid, behaviour=FromChains(), chains=ChainsConfig(3), batch_size=8)
