"""The laws of a kernel: draws have the probabilities it states, and masked edges none."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact._kernels import Categorical
from didact._types import Kernel

from .._statistics import fits, rejects
from ._instances import KERNELS

DRAWS = 40_000
every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


def probabilities(kernel: Kernel) -> np.ndarray:
    """The law of a discrete kernel, from its own log_prob, in float64."""
    actions = jnp.arange(kernel.mask.shape[0])
    return np.exp(np.asarray(jax.vmap(kernel.log_prob)(actions), np.float64))


@eqx.filter_jit
def counts(kernel: Kernel, key: jax.Array) -> jax.Array:
    """How often each action is drawn among `DRAWS`."""
    drawn = jax.vmap(kernel.from_noise)(kernel.noise(key, (DRAWS,)))
    return jnp.bincount(drawn, length=kernel.mask.shape[0])


@every_kernel
def test_log_prob_is_normalised_and_vanishes_on_masked_actions(kernel):
    law = probabilities(kernel)
    np.testing.assert_allclose(law.sum(), 1, atol=2e-6)
    assert np.all(law[~np.asarray(kernel.mask)] == 0)


@every_kernel
def test_draws_have_the_stated_law(kernel, key):
    """χ², error rate `_statistics.ERROR_RATE` for each kernel."""
    assert fits(counts(kernel, key), probabilities(kernel))


@every_kernel
def test_sample_is_from_noise_of_noise(kernel, key):
    draws = jax.vmap(kernel.sample)(jax.random.split(key, 2_000))
    drawn = np.bincount(np.asarray(draws), minlength=kernel.mask.shape[0])
    assert fits(drawn, probabilities(kernel))


def test_the_check_of_draws_fails_for_a_wrong_sampler(key):
    """Wrong sampler: the same kernel at temperature 1.15."""
    kernel = KERNELS["categorical-uneven"]
    assert rejects(counts(kernel.temper(1.15), key), probabilities(kernel))


@every_kernel
@pytest.mark.parametrize("change", ["none", "explore", "temper"])
def test_a_masked_action_is_never_chosen(kernel, change):
    """At 0, at the largest float below 1, and at every step of the cumulative distribution."""
    kernel = {
        "none": kernel,
        "explore": kernel.explore(1.0),
        "temper": kernel.temper(1e-3),
    }[change]
    steps = np.cumsum(probabilities(kernel)).astype(np.float32)
    steps = np.concatenate([[0], steps, np.nextafter(steps, 0), np.nextafter(steps, 2)])
    last = np.nextafter(np.float32(1), np.float32(0))
    noise = jnp.asarray(np.append(np.clip(steps, 0, last), last), jnp.float32)
    chosen = np.asarray(jax.vmap(kernel.from_noise)(noise))
    assert np.all((chosen >= 0) & (chosen < len(kernel.mask)))
    assert np.all(np.asarray(kernel.mask)[chosen])


def test_the_extremes_of_the_noise_choose_the_first_and_last_possible_action():
    kernel = KERNELS["categorical-masked-between"]
    assert kernel.from_noise(jnp.asarray(0.0)) == 0
    assert kernel.from_noise(jnp.asarray(np.nextafter(np.float32(1), np.float32(0)))) == 4
    kernel = KERNELS["categorical-masked-first"]
    assert kernel.from_noise(jnp.asarray(0.0)) == 1


@every_kernel
def test_a_likelihood_ratio_of_e_to_the_100_is_no_trouble(kernel):
    mask = kernel.mask
    spread = jnp.where(jnp.arange(len(mask)) % 2 == 0, 100.0, -100.0)
    extreme = Categorical(spread, mask)
    gradient = jax.grad(lambda logits: Categorical(logits, mask).log_prob(jnp.argmax(mask)))(spread)
    assert np.all(np.isfinite(gradient))
    np.testing.assert_allclose(probabilities(extreme).sum(), 1, atol=1e-6)


@every_kernel
def test_no_exploration_changes_nothing(kernel):
    np.testing.assert_allclose(probabilities(kernel.explore(0.0)), probabilities(kernel), atol=1e-6)


@every_kernel
def test_full_exploration_is_uniform_over_allowed_actions(kernel):
    mask = np.asarray(kernel.mask)
    np.testing.assert_allclose(probabilities(kernel.explore(1.0)), mask / mask.sum(), atol=1e-6)


@every_kernel
@pytest.mark.parametrize("amount", [0.01, 0.3])
def test_exploration_is_a_mixture(kernel, amount):
    mask = np.asarray(kernel.mask)
    mixture = (1 - amount) * probabilities(kernel) + amount * mask / mask.sum()
    np.testing.assert_allclose(probabilities(kernel.explore(amount)), mixture, atol=2e-6)


@every_kernel
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_tempering_is_a_power(kernel, temperature):
    power = probabilities(kernel) ** (1 / temperature)
    # Powers amplify the rounding of logits as large as 1e4.
    np.testing.assert_allclose(
        probabilities(kernel.temper(temperature)), power / power.sum(), atol=1e-5
    )


def test_noise_has_the_shape_asked_for(key):
    kernel = KERNELS["categorical-even"]
    assert kernel.noise(key).shape == ()
    assert kernel.noise(key, (3, 2)).shape == (3, 2)
    assert kernel.noise(key, (5,)).dtype == kernel.logits.dtype
