"""The Teacher's rewards, by hand: the formulas of the paper's three tasks and their relatives."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from didact._types import ObjectiveOutput
from didact.teacher import Complementary, DoubleLog, LossGuided, OneSided, Plain, Sibling

DELTA = [2.0, -2.0, 0.0, 100.0]
LOG_R = [1.0, -1.0, 0.5, 2.0]


def evaluate(reward, residual=DELTA, log_reward=LOG_R, steps=None, mask=None):
    residual = jnp.asarray(residual, jnp.float32)
    steps = None if steps is None else jnp.asarray(steps, jnp.float32)
    mask = jnp.ones((len(residual), 1), bool) if mask is None else jnp.asarray(mask, bool)
    output = ObjectiveOutput(residual**2, residual, steps, residual)
    return np.asarray(reward(output, jnp.asarray(log_reward, jnp.float32), mask))


def test_the_grid_form():
    """log( log(1 + η + (1 + 19·1[δ > 0]) δ²) + 1e-8 ), η = 1e-3, without R."""
    expected = [
        math.log(math.log(1.001 + 20 * 4) + 1e-8),
        math.log(math.log(1.001 + 4) + 1e-8),
        math.log(math.log(1.001) + 1e-8),
        math.log(math.log(1.001 + 20 * 10_000) + 1e-8),
    ]
    np.testing.assert_allclose(evaluate(DoubleLog()), expected, rtol=1e-5)


def test_the_grid_form_multiplies_by_the_reward_inside_the_floor():
    """log( log(1 + η + w δ²) R^α + 1e-8 )."""
    for alpha, log_reward in ((1.0, 1.0), (2.0, -12.0)):
        inner = math.log(1.001 + 20 * 4) * math.exp(alpha * log_reward) + 1e-8
        found = evaluate(DoubleLog(alpha=alpha), [2.0], [log_reward])
        np.testing.assert_allclose(found, [math.log(inner)], rtol=1e-5)


def test_the_diffusion_form():
    """log( log(1.001 + w ½δ²) ) + ½ log R, and the error is 1e-12 where log R is too low."""
    form = DoubleLog(alpha=0.5, floor=0.0, scale=0.5)
    expected = [
        math.log(math.log(1.001 + 20 * 2)) + 0.5,
        math.log(math.log(1.001 + 2)) - 0.5,
        math.log(math.log(1.001)) + 0.25,
        math.log(math.log(1.001 + 20 * 5_000)) + 1.0,
    ]
    np.testing.assert_allclose(evaluate(form), expected, rtol=1e-5)
    below = DoubleLog(alpha=0.5, floor=0.0, scale=0.5, threshold=0.75)
    expected[1] = math.log(math.log(1.001 + 1e-12)) - 0.5
    np.testing.assert_allclose(evaluate(below), expected, rtol=1e-5)


def test_the_biochemical_form():
    """log( log(1.001 + w min(δ², 5000)) ) + ½ log R."""
    form = DoubleLog(alpha=0.5, floor=0.0, cap=5000.0)
    expected = [
        math.log(math.log(1.001 + 20 * 4)) + 0.5,
        math.log(math.log(1.001 + 4)) - 0.5,
        math.log(math.log(1.001)) + 0.25,
        math.log(math.log(1.001 + 20 * 5_000)) + 1.0,
    ]
    np.testing.assert_allclose(evaluate(form), expected, rtol=1e-5)
    at_the_cap = evaluate(form, [math.sqrt(5000.0), 1e4], [0.0, 0.0])
    np.testing.assert_allclose(at_the_cap[0], at_the_cap[1], rtol=1e-6)


def test_the_sum_over_transitions():
    """Σ_t log(1 + η + w(δ_t) δ_t²) over real transitions, as with detailed balance."""
    steps = [[1.0, -2.0, 50.0], [3.0, 0.5, -1.0]]
    mask = [[1, 1, 0], [1, 1, 1]]
    found = evaluate(DoubleLog(per_step=True), [0.0, 0.0], [0.0, 0.0], steps, mask)
    first = math.log(1.001 + 20) + math.log(1.001 + 4)
    second = math.log(1.001 + 20 * 9) + math.log(1.001 + 20 * 0.25) + math.log(1.001 + 1)
    np.testing.assert_allclose(found, [math.log(first), math.log(second)], rtol=1e-5)


def test_the_sum_over_transitions_needs_an_objective_with_transitions():
    with pytest.raises(ValueError, match="DB or SubTB"):
        evaluate(DoubleLog(per_step=True))


def test_asymmetry_and_eta_are_what_they_say():
    found = evaluate(DoubleLog(eta=0.5, asymmetry=3.0), [1.0, -1.0], [0.0, 0.0])
    expected = [math.log(math.log(1.5 + 4)), math.log(math.log(1.5 + 1))]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_plain_form():
    """log(η + w δ²) + α log R."""
    expected = [math.log(1e-3 + 80), math.log(1e-3 + 4), math.log(1e-3), math.log(1e-3 + 2e5)]
    np.testing.assert_allclose(evaluate(Plain()), expected, rtol=1e-5)
    shifted = np.add(expected, np.multiply(0.5, LOG_R))
    np.testing.assert_allclose(evaluate(Plain(alpha=0.5)), shifted, rtol=1e-5)


def test_the_one_sided_form():
    """log(η + max(δ, 0)) + α log R, α = 1 by default."""
    expected = [math.log(2.01) + 1, math.log(0.01) - 1, math.log(0.01) + 0.5, math.log(100.01) + 2]
    np.testing.assert_allclose(evaluate(OneSided()), expected, rtol=1e-5)


def test_the_one_sided_form_with_a_floor():
    """log( (η + max(δ, 0)) R^α + floor·Ẑ ), Ẑ from log w = log Ẑ + δ."""
    residual = jnp.asarray(DELTA)
    output = ObjectiveOutput(residual**2, residual, None, residual + 3.0)
    found = OneSided(floor=0.1)(output, jnp.asarray(LOG_R), jnp.ones((4, 1), bool))
    missed = np.multiply([2.01, 0.01, 0.01, 100.01], np.exp(LOG_R))
    np.testing.assert_allclose(found, np.log(missed + 0.1 * math.exp(3)), rtol=1e-5)
    with pytest.raises(ValueError, match="floor must be >= 0"):
        OneSided(floor=-0.1)


def test_small_errors_of_a_converged_student_stay_apart_in_single_precision():
    form = DoubleLog(eta=1e-9, floor=0.0)
    found = evaluate(form, [-1e-4, -2e-4, -4e-4], [0.0, 0.0, 0.0])
    expected = np.log(np.log1p(1e-9 + np.square([1e-4, 2e-4, 4e-4])))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("form", [DoubleLog, Plain, OneSided])
def test_eta_must_be_positive(form):
    with pytest.raises(ValueError, match="eta must be > 0"):
        form(eta=0.0)


@pytest.mark.parametrize("form", [DoubleLog, Plain])
def test_asymmetry_must_not_be_negative(form):
    with pytest.raises(ValueError, match="asymmetry must be >= 0"):
        form(asymmetry=-1.0)


def test_the_published_form_without_its_logarithm():
    """log( w δ² + 1e-8 ), the published code's option without the logarithm, is `Plain`."""
    found = evaluate(Plain(eta=1e-8), [2.0, -2.0, 0.0], [1.0, -1.0, 0.5])
    np.testing.assert_allclose(found, [math.log(80), math.log(4), math.log(1e-8)], rtol=1e-5)


# ---- other methods' auxiliary samplers -------------------------------------------------------


def test_a_loss_guided_sampler_adds_the_loss_to_the_reward():
    """log( R + λ δ² ), whichever way the Student errs."""
    expected = [math.log(math.exp(r) + 3 * d**2) for d, r in zip(DELTA, LOG_R, strict=True)]
    np.testing.assert_allclose(evaluate(LossGuided(3.0)), expected, rtol=1e-5)
    # Where the Student is right it is after the target itself.
    assert evaluate(LossGuided())[2] == LOG_R[2]


def test_a_complementary_explorer_leaves_alone_what_the_student_gives_enough():
    """R where the Student gives less than α of what is due, δ > -log α; next to none elsewhere."""
    residual = [0.8, 0.6, 0.0, -5.0]
    found = evaluate(Complementary(alpha=0.5, floor=1e-3), residual, LOG_R)
    assert math.log(2) == pytest.approx(0.693, abs=1e-3)
    floor = math.log(1e-3)
    expected = [LOG_R[0], LOG_R[1] + floor, LOG_R[2] + floor, LOG_R[3] + floor]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_sibling_adds_how_new_the_object_is():
    """log( R^βe + (s r)^βi ), r being how new the end of the last edge is, wherever it stands."""
    novelty = [[9.0, 0.25, 9.0], [9.0, 9.0, 4.0], [9.0, 9.0, 1.0]]
    mask = [[1, 1, 0], [0, 1, 1], [1, 1, 1]]
    log_reward = [1.0, -30.0, 0.0]
    output = ObjectiveOutput(*[jnp.zeros(3)] * 2, None, jnp.zeros(3), jnp.asarray(novelty))
    sibling = Sibling(extrinsic=0.5, intrinsic=2.0, scale=3.0)
    found = sibling(output, jnp.asarray(log_reward), jnp.asarray(mask, bool))
    new = [0.25, 4.0, 1.0]
    expected = [
        math.log(math.exp(0.5 * r) + (3 * n) ** 2) for r, n in zip(log_reward, new, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("build", "remedy"),
    [
        (lambda: Sibling(extrinsic=0.0), "extrinsic must be > 0"),
        (lambda: Sibling(scale=-1.0), "scale must be > 0"),
        (lambda: LossGuided(0.0), "weight must be > 0"),
        (lambda: Complementary(alpha=1.5), "alpha must be <= 1"),
        (lambda: Complementary(floor=0.0), "floor must be > 0"),
        (lambda: Complementary(floor=1.0), r"\(0, 1\)"),
    ],
)
def test_impossible_rewards_of_explorers_are_refused(build, remedy):
    with pytest.raises(ValueError, match=remedy):
        build()
