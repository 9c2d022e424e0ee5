"""The laws of a Teacher's reward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact._types import ObjectiveOutput
from didact.objectives import TB, Squared

from ._instances import EXPLORER_REWARDS, OBJECTIVES, TEACHER_REWARDS
from .test_objectives import learned_part, network_scores, with_learned_part

every_reward = pytest.mark.parametrize("reward", TEACHER_REWARDS.values(), ids=TEACHER_REWARDS)
ALL_REWARDS = TEACHER_REWARDS | EXPLORER_REWARDS
whatever_reward = pytest.mark.parametrize("reward", ALL_REWARDS.values(), ids=ALL_REWARDS)


def output_of(residual) -> ObjectiveOutput:
    residual = jnp.asarray(residual, jnp.float32)
    return ObjectiveOutput(residual**2, residual, None, residual)


def log_reward_of(reward, residual, log_reward=None):
    log_reward = jnp.zeros(len(residual)) if log_reward is None else jnp.asarray(log_reward)
    mask = jnp.ones((len(residual), 1), bool)
    return np.asarray(reward(output_of(residual), log_reward, mask), np.float64)


@whatever_reward
def test_it_is_finite_for_residuals_up_to_1e4_and_any_reward(reward):
    sizes = np.concatenate([[0.0], np.geomspace(1e-12, 1e4, 60)])
    for sign in (1, -1):
        for log_r in (-80.0, 0.0, 80.0):
            values = log_reward_of(reward, sign * sizes, np.full(len(sizes), log_r, np.float32))
            assert np.all(np.isfinite(values))


@every_reward
def test_it_grows_with_the_loss_where_the_student_draws_too_rarely(reward):
    sizes = np.geomspace(1e-2, 70, 60)  # up to the published cap
    assert np.all(np.diff(log_reward_of(reward, sizes)) > 0)
    assert np.all(np.diff(log_reward_of(reward, -sizes)) >= 0)


@every_reward
def test_under_sampling_attracts_more_than_over_sampling(reward):
    sizes = np.geomspace(1e-2, 50, 30)
    assert np.all(log_reward_of(reward, sizes) > log_reward_of(reward, -sizes))


@every_reward
def test_alpha_is_the_exponent_of_the_reward(reward):
    """Where the published floor of 1e-8 is out of sight."""
    residual = np.array([0.5, -2.0, 30.0])
    at_0 = log_reward_of(reward, residual)
    at_2 = log_reward_of(reward, residual, np.full(3, 2.0, np.float32))
    np.testing.assert_allclose(at_2 - at_0, 2 * reward.alpha, atol=1e-5)


@whatever_reward
@pytest.mark.parametrize("make", OBJECTIVES.values(), ids=OBJECTIVES)
def test_no_gradient_flows_from_it_into_the_student(reward, make):
    scored = network_scores()

    def total(part):
        output = make(Squared())(with_learned_part(scored, part))
        return jnp.sum(reward(output, scored.log_reward, scored.mask))

    for leaf in jax.tree.leaves(jax.grad(total)(learned_part(scored))):
        assert np.all(np.asarray(leaf) == 0)


def test_the_same_function_with_a_live_residual_would_have_a_gradient():
    """So that the test above can fail."""
    scored, reward = network_scores(), TEACHER_REWARDS["grid"]

    def total(log_z):
        residual = TB()(scored).residual - log_z
        return jnp.sum(reward(output_of(residual), scored.log_reward, scored.mask))

    assert jax.grad(total)(0.0) != 0
