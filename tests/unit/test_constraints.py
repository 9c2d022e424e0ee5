"""Positions under constraints: bijections, their Jacobians, and what they refuse."""

import collections
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from didact._constraints import Constraint, unconstrained_logdensity

NESTED = {
    "free": jnp.zeros((2, 1)),
    "inner": {"scale": 1.0, "box": jnp.zeros(3)},
    "weights": jnp.full((2, 3), 1 / 3),
}


def nested() -> Constraint:
    """Every transform, in a tree of dictionaries."""
    lower = {"free": None, "inner": {"scale": 0, "box": np.array([-1, -np.inf, 2])}, "weights": 0}
    upper = {"free": None, "inner": {"scale": np.inf, "box": np.array([1, 5, 2.5])}, "weights": 1}
    simplex = {"free": False, "inner": False, "weights": True}
    return Constraint(NESTED, (lower, upper), simplex)


def first_weights(position) -> jax.Array:
    """The coordinates that densities are taken with respect to."""
    flat = {**position, "weights": position["weights"][:, :-1]}
    return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(flat)])


SIDES = {"free": (None, None), "lower": (-2, None), "upper": (None, 3.5), "both": (-2, 3.5)}


@settings(max_examples=8)
@given(
    shape=st.lists(st.integers(1, 3), max_size=3),
    side=st.sampled_from(sorted(SIDES)),
    seed=st.integers(0, 2**16),
)
def test_round_trips_over_shapes(shape, side, seed):
    constraint = Constraint({"a": np.zeros(shape, np.float32)}, SIDES[side])
    assert constraint.size == math.prod(shape)
    z = 2 * np.random.default_rng(seed).normal(size=constraint.size).astype(np.float32)
    position = constraint.to_position(jnp.asarray(z))
    assert position["a"].shape == tuple(shape)
    np.testing.assert_allclose(constraint.from_position(position), z, rtol=1e-4, atol=1e-4)


@settings(max_examples=5)
@given(
    batch=st.lists(st.integers(1, 3), max_size=2),
    weights=st.integers(2, 5),
    seed=st.integers(0, 2**16),
)
def test_round_trips_of_simplexes(batch, weights, seed):
    constraint = Constraint(np.zeros((*batch, weights), np.float32), simplex=True)
    assert constraint.size == math.prod(batch) * (weights - 1)
    z = 2 * np.random.default_rng(seed).normal(size=constraint.size).astype(np.float32)
    position = constraint.to_position(jnp.asarray(z))
    np.testing.assert_allclose(position.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(constraint.from_position(position), z, rtol=1e-3, atol=1e-3)


def test_nested_trees_keep_structure_shapes_and_constraints():
    constraint = nested()
    z = jnp.linspace(-3, 3, constraint.size)
    position = constraint.to_position(z)
    assert jax.tree.structure(position) == jax.tree.structure(NESTED)
    assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == jnp.shape(b), position, NESTED))
    inner = position["inner"]
    assert inner["scale"] > 0
    assert np.all(np.asarray(inner["box"]) > [-1, -np.inf, 2])
    assert np.all(np.asarray(inner["box"]) < [1, 5, 2.5])
    np.testing.assert_allclose(constraint.from_position(position), z, atol=1e-4)
    Pair = collections.namedtuple("Pair", ["mean", "scale"])
    pair = Constraint(Pair(0.0, 1.0), (Pair(None, 0.0), None))
    assert isinstance(pair.to_position(jnp.zeros(2)), Pair)


def test_log_det_is_that_of_the_jacobian():
    constraint = nested()
    z = jnp.linspace(-2, 2, constraint.size)
    jacobian = jax.jit(jax.jacfwd(lambda z: first_weights(constraint.to_position(z))))(z)
    expected = np.linalg.slogdet(np.asarray(jacobian, np.float64))[1]
    np.testing.assert_allclose(constraint.log_det(z), expected, rtol=1e-4)


def mass_1d(logdensity_fn, constraint, reach=40.0) -> float:
    z = jnp.linspace(-reach, reach, 20_001)[:, None]
    density = jnp.exp(jax.vmap(unconstrained_logdensity(logdensity_fn, constraint))(z))
    return float(np.trapezoid(np.asarray(density, np.float64), dx=2 * reach / 20_000))


def test_pulled_back_densities_of_one_number_integrate_to_1():
    def uniform(x):
        return jnp.zeros(()) - jnp.log(5.0)

    def exponential(x):
        return jnp.log(0.01) - 0.01 * (x[0] - 7)

    def half_cauchy(x):
        return jnp.log(2 / jnp.pi) - jnp.log1p((4 - x[0]) ** 2)

    np.testing.assert_allclose(mass_1d(uniform, Constraint(1, (-2, 3))), 1, rtol=1e-4)
    np.testing.assert_allclose(mass_1d(exponential, Constraint(1, (7, None))), 1, rtol=1e-4)
    np.testing.assert_allclose(mass_1d(half_cauchy, Constraint(1, (None, 4))), 1, rtol=1e-4)
    # Bounds that the density does not have leave mass out: the check can fail.
    assert mass_1d(exponential, Constraint(1, (17, None))) < 0.95


def test_a_pulled_back_dirichlet_integrates_to_1_and_has_its_mean():
    alpha = np.array([0.5, 2.0, 3.0])
    normaliser = special.gammaln(alpha.sum()) - special.gammaln(alpha).sum()
    constraint = Constraint(3, simplex=True)

    def dirichlet(x):
        return normaliser + jnp.sum((jnp.asarray(alpha, x.dtype) - 1) * jnp.log(x))

    axis = jnp.linspace(-40, 20, 601)
    z = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    log_p = jax.vmap(unconstrained_logdensity(dirichlet, constraint))(z)
    weight = np.exp(np.asarray(log_p, np.float64)) * 0.1**2
    np.testing.assert_allclose(weight.sum(), 1, rtol=1e-3)
    mean = weight @ np.asarray(jax.vmap(constraint.to_position)(z))
    np.testing.assert_allclose(mean, alpha / alpha.sum(), rtol=1e-3)


@pytest.mark.parametrize("size", [50.0, 1e4])
def test_extremes_are_finite_and_inside(size):
    constraint = nested()
    signs = np.random.default_rng(0).choice([-1, 1], (20, constraint.size))
    corners = jnp.asarray(size * signs, jnp.float32)

    def terms(z):
        """Log-densities that are infinite at the bounds, and log_det."""
        position = constraint.to_position(z)
        box = position["inner"]["box"]
        gaps = [box[0] + 1, 1 - box[0], 5 - box[1], box[2] - 2, 2.5 - box[2]]
        inside = jnp.concatenate([jnp.stack(gaps), position["weights"].reshape(-1)])
        inside = jnp.append(inside, position["inner"]["scale"])
        return jnp.append(jnp.log(inside), constraint.log_det(z)), constraint.from_position(
            position
        )

    @jax.jit
    @jax.vmap
    def evaluate(z):
        return terms(z), jax.jacrev(lambda z: terms(z)[0])(z)

    assert all(np.isfinite(array).all() for array in jax.tree.leaves(evaluate(corners)))


def test_outside_of_bounds_is_nan():
    assert np.isnan(Constraint(2, (0, 1)).from_position(jnp.asarray([0.5, 1.5]))[1])
    assert np.isnan(Constraint(1, (0, None)).from_position(jnp.asarray([-1.0]))[0])


def test_names_and_kinds_of_coordinates():
    constraint = nested()
    assert constraint.names() == [
        "free[0, 0]", "free[1, 0]", "inner.box[0]", "inner.box[1]", "inner.box[2]", "inner.scale",
        "weights[0, 0]", "weights[0, 1]", "weights[0, 2]",
        "weights[1, 0]", "weights[1, 1]", "weights[1, 2]",
    ]  # fmt: skip
    assert constraint.coordinate_names()[6:] == [
        "weights[0, 0]", "weights[0, 1]", "weights[1, 0]", "weights[1, 1]",
    ]  # fmt: skip
    assert constraint.is_free().tolist() == [True, True] + 8 * [False]
    assert Constraint(2).names() == ["x[0]", "x[1]"]
    assert Constraint((1.0, np.zeros(1))).names() == ["x0", "x1[0]"]
    assert Constraint(jax.ShapeDtypeStruct((), jnp.float32)).names() == ["x"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "dim must be >= 1, got 0"),
        (([],), "give one position, or the dimension"),
        ((True,), "template leaf x is of dtype bool"),
        (({"n": np.ones(2, np.int32)},), "template leaf n is of dtype int32: .* write 1.0 for 1"),
        ((np.ones((2, 0)),), "template leaf x is empty"),
        ((2, (0,)), r"must be a pair \(lower, upper\)"),
        ((1.0, (2, 1)), "bounds of x: lower must be < upper .* got lower 2.0 and upper 1.0"),
        ((3, ([0, 0, 0], [1, 1, 0])), r"bounds of x\[2\]: lower must be < upper"),
        ((1, (1, 1 + 1e-9)), r"lower must be < upper \(in float32\)"),
        ((1, (-3e38, 3e38)), "too close together or too far apart"),
        ((3, (0, [1, 2])), r"upper bound of x must be .* broadcasts to shape \(3,\)"),
        ((3, ("zero", None)), "lower bound of x must be a number"),
        ((3, (np.nan, None)), "lower bound of x is NaN"),
        ((NESTED, ({"free": 0}, None)), "lower bounds must be one value, or a pytree that"),
        ((NESTED, None, {"weight": True}), "simplex must be one value, or a pytree that matches"),
        ((3, None, 1), "simplex of x must be True or False"),
        ((1, None, True), "simplex x needs a last axis of at least 2"),
        ((1.0, None, True), "simplex x needs a last axis of at least 2"),
        ((3, (0.1, None), True), r"simplex x cannot have bounds within \(0, 1\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_no_constraint_is_refused_with_a_remedy(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        Constraint(*arguments)
    assert "\n" not in str(caught.value)


def test_positions_of_another_structure_are_refused():
    with pytest.raises(ValueError, match="give one like the template"):
        Constraint(3).from_position(jnp.zeros(4))
    with pytest.raises(ValueError, match="give one like the template"):
        nested().from_position({"free": jnp.zeros((2, 1))})
