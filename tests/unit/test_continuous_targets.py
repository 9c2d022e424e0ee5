"""What every target on R^dim does: shapes, gradients, modes, its configuration, its arguments."""

import functools
import json
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact._config import from_json, to_json
from didact._types import SamplableTarget
from didact.targets import (
    GMM25,
    GMM40,
    Checkerboard,
    EightGaussians,
    Funnel,
    GaussianMixture,
    LogGaussianCox,
    LogisticRegression,
    ManyWell,
    Ring,
)

TARGETS = {
    "mixture": GaussianMixture(((0.0, 1.0, -2.0), (3.0, 0.0, 0.5)), (0.5, 2.0), (1.0, 3.0)),
    "gmm25": GMM25(),
    "gmm40": GMM40(),
    "eight": EightGaussians(),
    "ring": Ring(),
    "checkerboard": Checkerboard(),
    "many-well": ManyWell(),
    "funnel": Funnel(),
    "logistic": LogisticRegression(3, 20),
    "cox": LogGaussianCox(3),
}
SAMPLABLE = {name: t for name, t in TARGETS.items() if isinstance(t, SamplableTarget)}


@functools.cache
def look(target):
    """A compiled function of rows of x: log R, its gradient, the mode."""
    one = lambda x: (*jax.value_and_grad(target.log_reward)(x), target.mode_index(x))  # noqa: E731
    return jax.jit(jax.vmap(one))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_values_gradients_and_modes_near_and_far(target):
    size, rng = 1e4, np.random.default_rng(0)
    inner = rng.uniform(-1, 1, (48, target.dim)) * size ** rng.uniform(-1, 1, (48, 1))
    corners = rng.choice([-size, 0.0, size], (47, target.dim))
    x = jnp.asarray(np.concatenate([np.zeros((1, target.dim)), inner, corners]), jnp.float32)
    value, gradient, mode = look(target)(x)
    assert value.shape == mode.shape == (len(x),)
    assert (value.dtype, gradient.dtype, mode.dtype) == (jnp.float32, jnp.float32, jnp.int32)
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(gradient))
    last = -1 if target.num_modes is None else target.num_modes - 1
    assert np.all((np.asarray(mode) >= -1) & (np.asarray(mode) <= last))
    # log R falls on the way out, and its gradient says so: no ray has a plateau.
    outside = np.abs(x).max(axis=1) == size
    assert np.all(np.sum(np.asarray(gradient * x), axis=1)[outside] < 0)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_gradients_agree_with_differences(target):
    step, rng = 1e-3, np.random.default_rng(1)
    x, direction = rng.normal(size=(2, 32, target.dim))
    rows = np.concatenate([x, x + step * direction, x - step * direction])
    value, gradient, _ = look(target)(jnp.asarray(rows, jnp.float32))
    _, above, below = np.asarray(value, np.float64).reshape(3, 32)
    slope = np.sum(np.asarray(gradient)[:32] * direction, axis=1)
    # Rounding log R of size 100 moves the difference by 0.01.
    np.testing.assert_allclose((above - below) / (2 * step), slope, rtol=0.01, atol=0.05)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_round_trip_through_json(target):
    assert eqx.tree_equal(from_json(json.loads(json.dumps(to_json(target)))), target)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_nothing_is_trainable(target):
    assert jax.tree.leaves(target) == []


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_wrong_shape_is_refused(target):
    wrong = jnp.zeros(target.dim + 1)
    for method in (target.log_reward, target.mode_index):
        with pytest.raises(ValueError, match="x must have shape"):
            jax.eval_shape(method, wrong)


@pytest.mark.parametrize("target", SAMPLABLE.values(), ids=SAMPLABLE)
def test_samples_have_the_shape_of_a_point(target, key):
    x = jax.eval_shape(target.sample, key)
    assert (x.shape, x.dtype) == ((target.dim,), jnp.float32)


def modes(target, x) -> np.ndarray:
    """Mode of each row."""
    return np.asarray(jax.jit(jax.vmap(target.mode_index))(jnp.asarray(x, jnp.float32)))


def test_the_mode_of_a_point_of_a_mixture():
    target = GaussianMixture(((0.0, 0.0), (40.0, 0.0)), (1.0, 0.1))
    edge = math.sqrt(-2 * math.log(0.001))  # the 0.999 quantile of χ²(2) is -2 log 0.001
    inside, outside = edge - 1e-3, edge + 1e-3
    x = [[inside, 0], [0, -outside], [40, 0.1 * inside], [40 - 0.1 * outside, 0], [20, 0]]
    np.testing.assert_array_equal(modes(target, x), [0, -1, 1, -1, -1])
    # The narrower component is the more responsible one where both hold the point.
    nested = GaussianMixture(((0.0,), (0.0,)), (1.0, 0.1), (1.0, 2.0))
    np.testing.assert_array_equal(modes(nested, [[0.1], [1.0], [4.0]]), [1, 0, -1])


@pytest.mark.parametrize("target", [GMM25(), GMM40(), EightGaussians()], ids=repr)
def test_means_belong_to_their_components(target):
    means = target.components().means
    np.testing.assert_array_equal(modes(target, means), np.arange(target.num_modes))


def test_the_modes_of_many_wells_are_the_signs():
    signs = np.asarray([[-1, -1, -1], [-1, -1, 1], [1, -1, -1], [1, 1, 1]])
    x = np.full((4, 6), 9.0)
    x[:, 0::2] = 1.7 * signs
    np.testing.assert_array_equal(modes(ManyWell(6), x), [0, 1, 4, 7])
    assert (ManyWell(6).num_modes, ManyWell().num_modes, ManyWell(62).num_modes) == (
        8,
        2**16,
        2**31,
    )


def test_modes_that_int32_cannot_number_share_a_number():
    target = ManyWell(80)
    assert target.num_modes == 2**40
    right = np.full(80, 1.7)
    first_left = np.where(np.arange(80) == 0, -1.7, 1.7)
    found = modes(target, [right, first_left, -right])
    np.testing.assert_array_equal(found, [2**31 - 1, 2**31 - 1, 0])


@pytest.mark.parametrize(("squares", "filled"), [(1, 1), (3, 5), (4, 8)])
def test_the_squares_of_a_board(squares, filled):
    target = Checkerboard(squares, 1.0)
    assert target.num_modes == filled
    centres = np.arange(squares) - (squares - 1) / 2
    board = np.stack(np.meshgrid(centres, centres, indexing="ij"), axis=-1).reshape(-1, 2)
    beside = [[squares / 2 + 0.1, centres[-1]], [-1e30, 0.0], [math.nan, 0.0]]
    value, _, index = map(np.asarray, look(target)(jnp.asarray([*board, *beside], jnp.float32)))
    assert index[0] == 0  # the lower left one is filled
    np.testing.assert_array_equal(index[index >= 0], np.arange(filled))
    np.testing.assert_array_equal(index[-3:], -1)
    # The log-density is high in the filled squares and low in the others.
    np.testing.assert_allclose(value[index >= 0], -math.log(filled), atol=1e-3)
    assert np.all(value[:-3][index[:-3] < 0] < -8)


def test_data_are_the_same_each_time_and_follow_the_seed():
    features, labels = LogisticRegression(2, 8, seed=1).data()
    again, _ = LogisticRegression(2, 8, seed=1).data()
    other, _ = LogisticRegression(2, 8, seed=2).data()
    np.testing.assert_array_equal(features, again)
    assert not np.array_equal(features, other)
    assert set(labels) <= {0.0, 1.0}
    # The first normal variates of seed 1 in every version of NumPy.
    np.testing.assert_allclose(features[0], [1.62434536, -0.61175641], atol=1e-8)
    counts = LogGaussianCox(4, seed=1).counts()
    np.testing.assert_array_equal(counts, LogGaussianCox(4, seed=1).counts())
    assert not np.array_equal(counts, LogGaussianCox(4, seed=2).counts())
    with pytest.raises(ValueError, match="read-only"):
        counts[0] = 1


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda: GaussianMixture((), 1.0), "means must be points"),
        (lambda: GaussianMixture(((0.0,), (0.0, 1.0)), 1.0), "means must be points"),
        (lambda: GaussianMixture(((),), 1.0), "means must be points"),
        (lambda: GaussianMixture(((math.inf,),), 1.0), "means must be finite"),
        (lambda: GaussianMixture(((0.0,),), 0.0), "scale must be > 0"),
        (lambda: GaussianMixture(((0.0,),), math.nan), "scale must be > 0"),
        (lambda: GaussianMixture(((0.0,),), (1.0, 1.0)), "scale must have one number for each"),
        (lambda: GaussianMixture(((0.0,),), 1.0, (1.0, 1.0)), "weights must have one number"),
        (lambda: GaussianMixture(((0.0,), (1.0,)), 1.0, (1.0, 0.0)), "weights must be > 0"),
        (lambda: GMM40(0), "dim must be >= 1"),
        (lambda: EightGaussians(radius=-1.0), "radius must be > 0"),
        (lambda: Ring(scale=math.inf), "scale must be > 0 and finite"),
        (lambda: Checkerboard(0), "squares must be >= 1"),
        (lambda: Checkerboard(softness=0.0), "softness must be > 0"),
        (lambda: ManyWell(3), "even dim >= 2"),
        (lambda: Funnel(1), "dim must be >= 2"),
        (lambda: Funnel(eta=0.0), "eta must be > 0"),
        (lambda: LogisticRegression(seed=-1), "seed must lie in"),
        (lambda: LogisticRegression(num_observations=0), "num_observations must be >= 1"),
        (lambda: LogGaussianCox(sigma2=0.0), "sigma2 must be > 0"),
        (lambda: LogGaussianCox(mu=30.0), "mu \\+ sigma2/2 must lie in"),
        (lambda: LogGaussianCox(mu=math.nan), "mu \\+ sigma2/2 must lie in"),
    ],
)
def test_impossible_arguments_are_refused(make, remedy):
    with pytest.raises(ValueError, match=remedy):
        make()
