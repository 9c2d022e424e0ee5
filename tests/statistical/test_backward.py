"""Backward rollouts have the law of P_B; their importance weights have the mean P_T(x)."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact._sampler import sample_backward, score
from didact.environments import Hypergrid

from .._statistics import fits, rejects
from .._tabular import edge_scores, graph, network_sampler, score_all

ENV = Hypergrid(3, 4)
DRAWS = 12_000
# A stop inside, a stop at the far corner, the border with one way in, and the start itself.
OBJECTS = {"inside": (1, 2, 1), "far": (2, 2, 2), "border": (1, 3, 2), "start": (0, 0, 0)}


@functools.cache
def policy(learned: bool):
    return network_sampler(ENV, jax.random.key(12), backward_head=learned)


@eqx.filter_jit
def draw(sampler, key, x):
    return sample_backward(sampler, key, jnp.tile(x, (DRAWS, 1)))


@functools.cache
def numbered_paths():
    return {tuple(a for _, a in path): i for i, path in enumerate(graph(ENV).paths())}


@functools.cache
def exact_laws(learned: bool):
    """log P_B(τ|x) of all trajectories, and the object that each ends in."""
    law = graph(ENV)
    scored = score_all(policy(learned), law, np.zeros(ENV.num_terminal_states))
    return (
        np.asarray(scored.log_pb, np.float64).sum(axis=1),
        law.terminal_numbers(law.trajectories()),
    )


def counts_of(trajectory) -> np.ndarray:
    paths = numbered_paths()
    actions, mask = np.asarray(trajectory.actions), np.asarray(trajectory.mask)
    numbers = [paths[tuple(a[m])] for a, m in zip(actions, mask, strict=True)]
    return np.bincount(numbers, minlength=len(paths))


def probabilities(learned: bool, x) -> np.ndarray:
    log_pb, ends = exact_laws(learned)
    (number,) = graph(ENV).numbers(
        jax.tree.map(lambda leaf: leaf[None], ENV.terminal_state(jnp.asarray(x)))
    )
    return np.where(ends == number - ENV.num_internal, np.exp(log_pb), 0)


@pytest.mark.parametrize("learned", [False, True], ids=["fixed-pb", "learned-pb"])
@pytest.mark.parametrize("x", OBJECTS.values(), ids=OBJECTS)
def test_backward_trajectories_have_the_law_of_p_b(x, learned, key):
    trajectory = draw(policy(learned), key, jnp.asarray(x, jnp.int32))
    assert fits(counts_of(trajectory), probabilities(learned, x))


def test_the_check_fails_for_a_wrong_sampler(key):
    """Wrong sampler: the fixed P_B in place of the learned one."""
    x = OBJECTS["far"]
    trajectory = draw(policy(False), key, jnp.asarray(x, jnp.int32))
    assert rejects(counts_of(trajectory), probabilities(True, x))


@pytest.mark.slow
def test_importance_weights_estimate_the_terminal_law_of_a_larger_grid(key):
    """(2, 16), 255 terminal states, 4,000 backward trajectories for each of eight objects: the
    mean weight is P_T(x) within 4.5 standard errors (8 tests: error rate below 6e-5).

    The standard error is exact: the second moment of the weights is a sum over trajectories of
    P_F²/P_B, which the same recursion as P_T gives.
    """
    env = Hypergrid(2, 16)
    law, sampler = graph(env), network_sampler(env, jax.random.key(13), sharpness=0.7)
    log_pf, log_pb = edge_scores(sampler, law)
    terminal_law = law.terminal_law(log_pf)
    second_moment = law.terminal_law(2 * log_pf - log_pb)
    np.testing.assert_allclose(terminal_law.sum(), 1, atol=1e-5)
    x = jnp.asarray([[0, 0], [0, 15], [15, 6], [3, 2], [5, 5], [2, 4], [4, 7], [8, 3]], jnp.int32)
    numbers = law.numbers(jax.vmap(env.terminal_state)(x)) - env.num_internal
    weights = mean_weights(sampler, key, x, 4_000)
    expected, mean = terminal_law[numbers], weights.mean(axis=0)
    variance = np.maximum(second_moment[numbers] - expected**2, 0)
    error = np.sqrt(variance / len(weights)) + 1e-5 * expected  # and rounding
    assert np.all(np.abs(mean - expected) < 4.5 * error)
    # No weight is so large that the mean would not be near normal, and all are precise.
    assert np.all(weights.max(axis=0) < 0.01 * len(weights) * expected)
    assert np.all(error < 0.05 * expected)
    # Shown to fail: weights that are half too large are outside for every object.
    assert np.all(np.abs(1.5 * mean - expected) > 4.5 * error)


@eqx.filter_jit
def log_weights(sampler, key, x):
    """log P_F - log P_B of a backward trajectory from each object."""
    trajectory = sample_backward(sampler, key, x)
    ones = jnp.ones(len(trajectory.mask))
    scored = score(sampler, trajectory, ones, ones)
    return jnp.sum(scored.log_pf, axis=1) - jnp.sum(scored.log_pb, axis=1)


def mean_weights(sampler, key, x, count: int) -> np.ndarray:
    """Weights of `count` trajectories from each object."""
    x = jnp.tile(x, (count // 8, 1))
    drawn = [log_weights(sampler, k, x) for k in jax.random.split(key, 8)]
    return np.exp(np.concatenate(drawn).astype(np.float64)).reshape(count, -1)
