"""Thompson sampling: who is followed, and who learns from what."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact._experiment import Experiment, OptimiserConfig
from didact._sampler import Sampler, layout, sample_forward, score
from didact._train import _shares, init, step, untrained_agent, update
from didact.behaviours import Agents, OnPolicy, Thompson
from didact.environments import Hypergrid
from didact.networks import BootstrappedConfig, MLPConfig
from didact.objectives import TB
from didact.targets import DeceptiveGrid

ENV, TARGET = Hypergrid(2, 6), DeceptiveGrid(2, 6)
CONFIG = BootstrappedConfig(width=8, depth=1, members=3)
BATCH = 64


def ensemble(config: BootstrappedConfig = CONFIG) -> Sampler:
    policy = config.build(ENV, flow_head=False, backward_head=False, key=jax.random.key(2))
    return Sampler(ENV, policy, jnp.asarray(0.5))


@functools.cache
def setting() -> Experiment:
    return Experiment(
        environment=ENV,
        target=TARGET,
        behaviour=Thompson(),
        network=CONFIG,
        bootstrap=0.5,
        batch_size=8,
    )


def test_each_trajectory_follows_one_policy_from_its_beginning_to_its_end():
    """Two policies, each of which goes one way and no other: all ways end in one of two corners,
    about as often in either. The policy of both together mixes them on the way.
    """
    two = dataclasses.replace(CONFIG, members=2, prior_scale=0.0)
    sampler = ensemble(two)
    # Member k goes up in coordinate k: logits [k, action].
    logits = jnp.asarray([[60.0, 0.0, 0.0], [0.0, 60.0, 0.0]]).reshape(-1)
    last = sampler.policy.network.layers[-1]
    sampler = eqx.tree_at(
        lambda s: (s.policy.network.layers[-1].weight, s.policy.network.layers[-1].bias),
        sampler,
        (jnp.zeros_like(last.weight), logits),
    )
    agents = Agents(TARGET, sampler, None, None)

    def ends(behaviour) -> list[tuple[int, ...]]:
        proposal = eqx.filter_jit(behaviour)(agents, jax.random.key(0), jnp.asarray(0), BATCH)
        return [tuple(map(int, x)) for x in np.asarray(proposal.trajectory.terminal.position)]

    found = ends(Thompson())
    assert set(found) == {(5, 0), (0, 5)}
    assert 20 < found.count((5, 0)) < 44  # a fair coin is outside with a chance of 0.4 %
    assert any(x > 0 and y > 0 for x, y in ends(OnPolicy()))


@pytest.mark.slow
def test_the_ensemble_by_itself_has_the_mean_of_its_members_logits():
    sampler = ensemble()
    state = ENV.state_at(jnp.asarray(7))
    members = [sampler.policy.member(jnp.asarray(k))(ENV.features(state)).forward for k in range(3)]
    assert not np.allclose(members[0], members[1])
    np.testing.assert_allclose(
        sampler.output(state).forward, np.mean(members, axis=0), rtol=1e-5, atol=1e-6
    )


@functools.cache
def batch():
    sampler = ensemble()
    trajectory = sample_forward(sampler, jax.random.key(4), 8)
    log_reward = jax.vmap(lambda end: TARGET.log_reward(ENV.sample_of(end)))(trajectory.terminal)
    return trajectory, layout(sampler, trajectory), log_reward


def learn(weight):
    """The ensemble after one step by these weights [members, B], and the loss of the step."""
    optimiser = OptimiserConfig(learning_rate=1e-2)
    trajectory, place, log_reward = batch()
    agent = untrained_agent(ensemble(), optimiser)
    agent, _, loss, _ = eqx.filter_jit(update)(
        agent, optimiser, TB(), trajectory, place, log_reward, weight, TARGET
    )
    return agent.sampler, float(loss)


@pytest.mark.slow
def test_a_member_learns_from_its_own_share_and_nothing_of_the_prior_ever_does():
    """The outputs of one without a share stay, those of the others move; the loss is the mean over
    members of trajectory balance on what each of them is given.
    """
    trajectory, place, log_reward = batch()
    rng = np.random.default_rng(0)
    weight = jnp.asarray(rng.integers(0, 2, (3, 8)), jnp.float32).at[1].set(0)
    before, (after, loss) = ensemble(), learn(weight)
    changed = np.asarray(after.policy.network.layers[-1].weight).reshape(8, 3, -1)
    changed = np.any(
        changed != np.asarray(before.policy.network.layers[-1].weight).reshape(8, 3, -1), (0, 2)
    )
    assert changed.tolist() == [True, False, True]
    assert eqx.tree_equal(after.policy.prior, before.policy.prior)

    losses = []
    for k in range(3):
        alone = eqx.tree_at(lambda s: s.policy, before, before.policy.member(jnp.asarray(k)))
        ones = jnp.ones_like(log_reward)
        each = TB()(eqx.filter_jit(score)(alone, trajectory, log_reward, ones, place)).loss
        losses.append(float(jnp.sum(weight[k] * each) / jnp.maximum(jnp.sum(weight[k]), 1)))
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-4)


def test_shares_are_drawn_for_each_member_and_trajectory_by_themselves():
    """Each of 3·2000 with chance ½, and of two members one without the other as often."""
    state = jax.tree.map(lambda leaf: leaf[0], init(setting(), [0]).seeds)
    weight = jnp.asarray([1.0] * 1999 + [0.0])
    shares = np.asarray(_shares(setting(), state, jnp.asarray(3), weight))
    assert shares.shape == (3, 2000)
    assert np.all(shares[:, -1] == 0)
    # Five standard deviations: 0.011 for one member, as much for two that differ.
    assert np.abs(shares[:, :-1].mean(axis=1) - 0.5).max() < 0.056
    differ = [np.mean(shares[a] != shares[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert np.abs(np.subtract(differ, 0.5)).max() < 0.056
    again = np.asarray(_shares(setting(), state, jnp.asarray(4), weight))
    assert not np.array_equal(again, shares)


@pytest.mark.slow
def test_members_learn_apart_and_prior_functions_keep_as_they_were():
    state = init(setting(), [0])
    before = state.student(0)
    for _ in range(5):
        state, info = step(setting(), state)
        assert np.isfinite(info.loss[0])
    after = state.student(0)
    assert eqx.tree_equal(after.policy.prior, before.policy.prior)
    assert not eqx.tree_equal(after.policy.network, before.policy.network)


def test_what_an_ensemble_cannot_be_is_refused():
    with pytest.raises(ValueError, match="members must be >= 2"):
        BootstrappedConfig(members=1)
    with pytest.raises(ValueError, match="prior_scale must be >= 0"):
        BootstrappedConfig(prior_scale=-1.0)
    with pytest.raises(ValueError, match="width must be >= 1"):
        BootstrappedConfig(width=0)
    with pytest.raises(ValueError, match="a BootstrappedConfig as its network"):
        dataclasses.replace(setting(), network=MLPConfig())
    with pytest.raises(ValueError, match="bootstrap must be <= 1"):
        dataclasses.replace(setting(), bootstrap=1.5)
    with pytest.raises(ValueError, match="bootstrap must be > 0"):
        dataclasses.replace(setting(), bootstrap=0.0)
