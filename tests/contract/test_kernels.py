"""The laws of a kernel, over every instance, and what the shipped ones have beside them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact._kernels import Categorical, Gaussian
from didact._types import Kernel
from didact.testing import check_kernel

from ._instances import CATEGORICALS, GAUSSIANS, KERNELS

every_categorical = pytest.mark.parametrize("kernel", CATEGORICALS.values(), ids=CATEGORICALS)
every_gaussian = pytest.mark.parametrize("kernel", GAUSSIANS.values(), ids=GAUSSIANS)


def probabilities(kernel: Kernel) -> np.ndarray:
    """The law of a discrete kernel, from its own log_prob, in float64."""
    actions = jnp.arange(kernel.mask.shape[0])
    return np.exp(np.asarray(jax.vmap(kernel.log_prob)(actions), np.float64))


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_every_law_holds(kernel, key):
    """Draws at the error rate of the kit; that the check can fail is shown in tests/testing."""
    assert not check_kernel(kernel, key=key).left_out


@every_categorical
def test_log_prob_vanishes_on_masked_actions(kernel):
    assert np.all(probabilities(kernel)[~np.asarray(kernel.mask)] == 0)


@every_categorical
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
    kernel = CATEGORICALS["categorical-masked-between"]
    assert kernel.from_noise(jnp.asarray(0.0)) == 0
    assert kernel.from_noise(jnp.asarray(np.nextafter(np.float32(1), np.float32(0)))) == 4
    kernel = CATEGORICALS["categorical-masked-first"]
    assert kernel.from_noise(jnp.asarray(0.0)) == 1


@every_categorical
def test_a_likelihood_ratio_of_e_to_the_100_is_no_trouble(kernel):
    mask = kernel.mask
    spread = jnp.where(jnp.arange(len(mask)) % 2 == 0, 100.0, -100.0)
    extreme = Categorical(spread, mask)
    gradient = jax.grad(lambda logits: Categorical(logits, mask).log_prob(jnp.argmax(mask)))(spread)
    assert np.all(np.isfinite(gradient))
    np.testing.assert_allclose(probabilities(extreme).sum(), 1, atol=1e-6)


@every_categorical
def test_full_exploration_is_uniform_over_allowed_actions(kernel):
    mask = np.asarray(kernel.mask)
    np.testing.assert_allclose(probabilities(kernel.explore(1.0)), mask / mask.sum(), atol=1e-6)


@every_categorical
@pytest.mark.parametrize("amount", [0.01, 0.3])
def test_exploration_is_a_mixture(kernel, amount):
    mask = np.asarray(kernel.mask)
    mixture = (1 - amount) * probabilities(kernel) + amount * mask / mask.sum()
    np.testing.assert_allclose(probabilities(kernel.explore(amount)), mixture, atol=2e-6)


@every_categorical
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_tempering_is_a_power(kernel, temperature):
    power = probabilities(kernel) ** (1 / temperature)
    # Powers amplify the rounding of logits as large as 1e4.
    np.testing.assert_allclose(
        probabilities(kernel.temper(temperature)), power / power.sum(), atol=1e-5
    )


def test_noise_has_the_precision_of_the_logits(key):
    kernel = CATEGORICALS["categorical-even"]
    assert kernel.noise(key, (5,)).dtype == kernel.logits.dtype


# ---- Gaussian kernels ------------------------------------------------------------------------


@every_gaussian
def test_the_density_at_the_mean_is_known(kernel):
    std = np.asarray(kernel.std, np.float64)
    peak = -np.sum(np.log(np.sqrt(2 * np.pi) * std[std > 0]))
    np.testing.assert_allclose(kernel.log_prob(kernel.mean), peak, rtol=1e-5, atol=1e-6)


@every_gaussian
def test_noise_and_edge_determine_each_other(kernel, key):
    noise = kernel.noise(key, (64,))
    edge = jax.vmap(kernel.from_noise)(noise)
    again = jax.vmap(kernel.to_noise)(edge)
    spread = np.asarray(kernel.std) > 0
    # A digit of the edge is worth eps·|edge|/σ of noise.
    lost = np.abs(np.asarray(edge)) / np.where(spread, kernel.std, 1) * 3e-7
    assert np.all(np.abs(again - noise)[:, spread] <= 2e-6 + lost[:, spread])
    assert np.all(np.asarray(again)[:, ~spread] == 0)
    np.testing.assert_array_equal(edge[:, ~spread], np.tile(kernel.mean, (64, 1))[:, ~spread])


@every_gaussian
def test_gradients_are_finite_and_a_point_mass_has_none(kernel):
    edge = kernel.mean + 0.3 * kernel.std

    def of_log_prob(mean, std, edge):
        return Gaussian(mean, std).log_prob(edge)

    def of_noise(mean, std, edge):
        return jnp.sum(Gaussian(mean, std).to_noise(edge))

    point = np.asarray(kernel.std) == 0
    for function in (of_log_prob, of_noise):
        assert np.isfinite(function(kernel.mean, kernel.std, edge))
        for leaf in jax.grad(function, argnums=(0, 1, 2))(kernel.mean, kernel.std, edge):
            assert np.all(np.isfinite(leaf))
            assert np.all(np.asarray(leaf)[point] == 0)
    # From the noise, edges follow the parameters.
    by_mean, by_std = jax.jacobian(
        lambda mean, std: Gaussian(mean, std).from_noise(jnp.full_like(mean, 0.3)), (0, 1)
    )(kernel.mean, kernel.std)
    np.testing.assert_allclose(by_mean, np.eye(len(point)))
    np.testing.assert_allclose(by_std, 0.3 * np.eye(len(point)), rtol=1e-6)


@every_gaussian
def test_exploration_and_temperature_scale_the_variance(kernel):
    variance = np.square(kernel.std)
    for changed, factor in (
        (kernel.explore(0.0), 1.0),
        (kernel.explore(0.5), 2.0),
        (kernel.explore(0.9), 10.0),
        (kernel.explore(1.0), 100.0),
        (kernel.temper(1.0), 1.0),
        (kernel.temper(0.25), 0.25),
        (kernel.temper(4.0), 4.0),
    ):
        np.testing.assert_allclose(np.square(changed.std), factor * variance, rtol=1e-4)
        np.testing.assert_array_equal(changed.mean, kernel.mean)


def test_gaussian_noise_has_the_precision_of_the_mean(key):
    kernel = GAUSSIANS["gaussian-space"]
    assert kernel.noise(key, (5,)).dtype == kernel.mean.dtype
