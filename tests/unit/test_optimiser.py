"""The optimiser against Adam written out in NumPy."""

import math
from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from didact._experiment import OptimiserConfig


class Model(eqx.Module):
    """What an optimiser sees: a network and log Z beside it."""

    weight: jnp.ndarray
    log_z: jnp.ndarray


PARAMS = Model(jnp.asarray([1.0, -2.0]), jnp.asarray(0.5))
GRADIENTS = [
    Model(jnp.asarray([3.0, 0.2]), jnp.asarray(-4.0)),
    Model(jnp.asarray([-0.1, 0.3]), jnp.asarray(0.2)),
    Model(jnp.asarray([0.5, -6.0]), jnp.asarray(2.0)),
]


def run(config: OptimiserConfig, gradients=GRADIENTS) -> list[Model]:
    transformation = config.build()
    params, state, path = PARAMS, transformation.init(PARAMS), []
    for gradient in gradients:
        updates, state = transformation.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path


def by_hand(rates, max_norm=None, weight_decay=0.0, gradients=GRADIENTS) -> list[np.ndarray]:
    """Adam over [weight, weight, log Z]; `rates`: step -> learning rates of the two groups."""
    x = np.array([1.0, -2.0, 0.5])
    first, second, path = np.zeros(3), np.zeros(3), []
    for step, model in enumerate(gradients):
        g = np.array([*np.asarray(model.weight), float(model.log_z)])
        if max_norm is not None:
            g = g * min(1, max_norm / np.linalg.norm(g))
        g = g + weight_decay * np.array([x[0], x[1], 0])
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        mean, square = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
        network, log_z = rates(step)
        x = x - np.array([network, network, log_z]) * mean / (np.sqrt(square) + 1e-8)
        path.append(x)
    return path


def assert_same(config: OptimiserConfig, expected: list[np.ndarray]) -> None:
    for params, x in zip(run(config), expected, strict=True):
        np.testing.assert_allclose([*params.weight, params.log_z], x, rtol=2e-5)


def constant(network, log_z):
    return lambda step: (network, log_z)


def test_log_z_has_its_own_learning_rate():
    config = OptimiserConfig(1e-3, 0.1, max_norm=None)
    assert_same(config, by_hand(constant(1e-3, 0.1)))


def test_gradients_are_clipped_by_their_joint_norm_log_z_included():
    assert_same(OptimiserConfig(1e-3, 0.1), by_hand(constant(1e-3, 0.1), max_norm=1.0))
    # To clip the network alone is something else.
    alone = by_hand(constant(1e-3, 0.1))
    assert not np.allclose(run(OptimiserConfig(1e-3, 0.1))[-1].weight, alone[-1][:2], rtol=1e-5)


def test_the_norm_is_taken_over_log_z_too():
    """The first moment of Adam's state is a tenth of the clipped gradient."""
    config = OptimiserConfig(max_norm=1.0)
    transformation = config.build()
    huge = Model(jnp.asarray([0.0, 3.0]), jnp.asarray(4.0))
    _, state = transformation.update(huge, transformation.init(PARAMS), PARAMS)
    moments = [s.mu for s in state if isinstance(s, optax.ScaleByAdamState)]
    (mu,) = moments
    np.testing.assert_allclose(mu.weight, [0.0, 0.06], rtol=1e-5)
    np.testing.assert_allclose(mu.log_z, 0.08, rtol=1e-5)


def test_weight_decay_is_l2_in_the_gradient_of_the_network_after_clipping():
    config = OptimiserConfig(1e-2, 0.1, max_norm=1.0, weight_decay=0.3)
    assert_same(config, by_hand(constant(1e-2, 0.1), max_norm=1.0, weight_decay=0.3))


def test_both_rates_follow_the_cosine():
    config = OptimiserConfig(1e-2, 0.1, max_norm=None, decay_steps=2, final_fraction=0.2)

    def rates(step):
        share = 0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * min(step / 2, 1)))
        return 1e-2 * share, 0.1 * share

    assert_same(config, by_hand(rates))
    assert rates(5) == (1e-2 * 0.2, 0.1 * 0.2)


def test_both_rates_fall_to_a_tenth_at_each_milestone():
    """The update of that number, counted from 0, is the first at the smaller rate."""
    config = OptimiserConfig(1e-2, 0.1, max_norm=None, milestones=(1, 2))
    assert_same(config, by_hand(lambda step: (1e-2 * 0.1**step, 0.1 * 0.1**step)))
    late = OptimiserConfig(1e-2, 0.1, max_norm=None, milestones=(3,))
    assert_same(late, by_hand(constant(1e-2, 0.1)))


def test_milestones_lower_the_cosine_too():
    config = OptimiserConfig(1e-2, 0.1, max_norm=None, decay_steps=4, milestones=(2,))

    def rates(step):
        share = 0.5 * (1 + math.cos(math.pi * step / 4)) * (0.1 if step >= 2 else 1)
        return 1e-2 * share, 0.1 * share

    assert_same(config, by_hand(rates))


def test_rates_are_constant_by_default():
    rate = OptimiserConfig(max_norm=None)
    one = [Model(jnp.ones(2), jnp.asarray(1.0))] * 3
    path = run(rate, one)
    steps = np.diff([0.5, *(float(p.log_z) for p in path)])
    np.testing.assert_allclose(steps, -0.1, rtol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": -1e-3},
        {"log_z_learning_rate": -1.0},
        {"weight_decay": -1.0},
        {"final_fraction": 1.5},
        {"max_norm": 0.0},
        {"decay_steps": 0},
        {"milestones": (5, 0)},
        {"learning_rate": float("nan")},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=rf"{name} (must|cannot) (be|lie)"):
        OptimiserConfig(**settings)


def test_log_z_is_kept_above_its_least_value_and_leaves_it_again():
    """Its gradients are 8, 8, −8 here: down, and up once they turn."""
    gradients = [Model(PARAMS.weight, jnp.asarray(g)) for g in (8.0, 8.0, -80.0)]
    config = OptimiserConfig(max_norm=None, log_z_learning_rate=0.4, least_log_z=0.3)
    kept = [float(model.log_z) for model in run(config, gradients)]
    free = [float(model.log_z) for model in run(replace(config, least_log_z=None), gradients)]
    assert free[1] < free[0] < 0.3
    assert kept[:2] == pytest.approx([0.3, 0.3])
    # The optimiser's moments know nothing of the bound: the third update is what it was.
    assert kept[2] - kept[1] == pytest.approx(free[2] - free[1], abs=1e-6)
    assert kept[2] > 0.3
