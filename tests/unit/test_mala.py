"""The Metropolis-adjusted Langevin algorithm leaves its target as it is."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from didact.behaviours._mala import run_mala
from didact.targets import FromFunction, GaussianMixture

from .._statistics import ERROR_RATE, fits, rejects

CHAINS, STEPS, STEP_SIZE = 20_000, 6, 0.8
MIXTURE = GaussianMixture(((1.5, 0.0), (-1.0, 1.0)), (0.5, 0.8), (0.3, 0.7))
"""Two unequal heaps, between which the chains do move."""


@functools.cache
def exact() -> jax.Array:
    return jax.vmap(MIXTURE.sample)(jax.random.split(jax.random.key(1), CHAINS))


def run(target, key, x, step_size, acceptance=0.574, num_steps=STEPS, burn_in=0):
    numbers = jnp.asarray(step_size), jnp.asarray(acceptance)
    return _run(target, key, x, *numbers, num_steps, burn_in)


@eqx.filter_jit
def _run(target, key, x, step_size, acceptance, num_steps, burn_in):
    return run_mala(
        target,
        key,
        x,
        num_steps=num_steps,
        burn_in=burn_in,
        step_size=step_size,
        acceptance=acceptance,
    )


def cells(x) -> np.ndarray:
    """How many points lie in each cell of a grid of 6 by 6."""
    edges = np.linspace(-2.5, 2.5, 5)
    row, column = (np.searchsorted(edges, np.asarray(x)[:, i]) for i in range(2))
    return np.bincount(6 * row + column, minlength=36)


def law_of_cells() -> np.ndarray:
    """The target's mass of each cell."""
    edges = np.append(np.linspace(-2.5, 2.5, 5), np.inf)
    law = np.zeros((6, 6))
    for mean, scale, weight in zip(*MIXTURE.components(), strict=True):
        row, column = (np.diff(stats.norm.cdf(edges, m, scale), prepend=0) for m in mean)
        law += weight * np.outer(row, column)
    return law.ravel()


def test_chains_from_exact_samples_keep_their_law(key):
    """χ², error rate `_statistics.ERROR_RATE`, before and after."""
    assert fits(cells(exact()), law_of_cells())
    x, step_size = run(MIXTURE, key, exact(), STEP_SIZE)
    np.testing.assert_allclose(step_size, STEP_SIZE, rtol=1e-6)
    assert fits(cells(x), law_of_cells())
    # They go somewhere: few stay for all steps, and some change heaps.
    assert np.mean(np.all(x == exact(), axis=1)) < 0.1
    modes = jax.vmap(MIXTURE.mode_index)
    assert np.mean(modes(x) != modes(exact())) > 0.05


@pytest.mark.parametrize("kind", ["unadjusted", "symmetric"])
def test_chains_that_are_wrong_do_not(kind, key):
    """All proposals accepted; or accepted by the ratio of R alone, as if they were symmetric."""
    value_and_grad = jax.vmap(jax.value_and_grad(MIXTURE.log_reward))

    @jax.jit
    def run_wrong(x):
        def body(x, key):
            move_key, accept_key = jax.random.split(key)
            value, gradient = value_and_grad(x)
            noise = jax.random.normal(move_key, x.shape)
            new = x + 0.5 * STEP_SIZE * gradient + jnp.sqrt(STEP_SIZE) * noise
            ratio = jnp.exp(value_and_grad(new)[0] - value)
            chance = 1.0 if kind == "unadjusted" else ratio
            accept = jax.random.uniform(accept_key, (CHAINS,)) < chance
            return jnp.where(accept[:, None], new, x), None

        return jax.lax.scan(body, x, jax.random.split(key, STEPS))[0]

    assert rejects(cells(run_wrong(exact())), law_of_cells())


@pytest.mark.parametrize(("acceptance", "start"), [(0.574, 1e-4), (0.574, 30.0), (0.85, 2.0)])
def test_the_step_size_finds_the_acceptance_asked_for(acceptance, start, key):
    """From steps far too short or too long; then one step shows the share that moves."""
    x = exact()[:2_000]
    x, step_size = run(MIXTURE, key, x, start, acceptance, 60, 59)
    moved, _ = run(MIXTURE, key, exact(), step_size, acceptance, 1, 0)
    share = np.mean(np.any(moved != exact(), axis=1))
    np.testing.assert_allclose(share, acceptance, atol=0.03)


def test_without_burn_in_the_step_size_stays(key):
    _, step_size = run(MIXTURE, key, exact(), 0.01)
    np.testing.assert_allclose(step_size, 0.01, rtol=1e-6)


@pytest.mark.parametrize("outside", [-jnp.inf, jnp.nan])
def test_chains_never_leave_where_log_r_is_finite(outside, key):
    """Uniform on a square: they stay in it and stay uniform (Kolmogorov–Smirnov, the error rate
    shared by two coordinates).
    """
    box = FromFunction(lambda x: jnp.where(jnp.all(jnp.abs(x) < 1), 0.0, outside))
    x = jax.random.uniform(jax.random.key(2), (4_000, 2), minval=-1, maxval=1)
    x, _ = run(box, key, x, 0.5)
    assert np.all(np.abs(x) < 1)
    for coordinate in np.asarray(x).T:
        assert stats.kstest(coordinate, "uniform", (-1, 2)).pvalue > ERROR_RATE / 2


def test_chains_climb_to_where_the_mass_is(key):
    """From far away, where all but the first few steps are accepted uphill."""
    x = jnp.tile(jnp.asarray([[6.0, -6.0]]), (2_000, 1))
    x, _ = run(MIXTURE, key, x, 0.05, 0.574, 60, 59)
    assert np.mean(jax.vmap(MIXTURE.mode_index)(x) >= 0) > 0.95
