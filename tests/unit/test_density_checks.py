"""Checks of log-densities, and the search for where their mass lies."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from didact._constraints import Constraint
from didact._density import check_density, find_scale

RNG = np.random.default_rng(0)
CENTRES = jnp.asarray(RNG.uniform(-10, 10, (10, 20)), jnp.float32)
COVARIATES = jnp.asarray(RNG.normal(size=(50, 4)), jnp.float32)
LABELS = jnp.asarray(RNG.integers(0, 2, 50), jnp.float32)


def mixture(x):
    return jax.nn.logsumexp(-0.5 * jnp.sum((x - CENTRES) ** 2, axis=1))


def logistic(x):
    """A posterior with a weak prior, of scale 100."""
    logit = COVARIATES @ x
    return jnp.sum(LABELS * logit - jax.nn.softplus(logit)) - 0.5 * jnp.sum((x / 100) ** 2)


def funnel(x):
    return -(x[0] ** 2) / 18 - 0.5 * jnp.sum(x[1:] ** 2 * jnp.exp(-x[0]) + x[0])


def schools(position):
    """Eight schools, whose density is unbounded where tau goes to 0 along theta = mu."""
    theta, mu, tau = position["theta"], position["mu"], position["tau"]
    prior = -0.5 * jnp.sum(((theta - mu) / tau) ** 2) - 8 * jnp.log(tau) - mu**2 / 50
    return prior - jnp.log1p((tau / 5) ** 2) - 0.5 * jnp.sum((theta - 5) ** 2 / 100)


def dirichlet(x):
    return jnp.sum(-0.95 * jnp.log(x))


SCHOOLS = Constraint(
    {"theta": np.zeros(8), "mu": 0.0, "tau": 1.0},
    ({"theta": None, "mu": None, "tau": 0}, None),
)


@pytest.mark.parametrize(
    ("logdensity_fn", "constraint"),
    [
        (lambda x: -3.5 * jnp.log1p(jnp.sum(x**2) / 2), Constraint(5)),
        (lambda x: -jnp.log1p(x[0] ** 2), Constraint(1)),
        (funnel, Constraint(10)),
        (mixture, Constraint(20)),
        (logistic, Constraint(4)),
        (schools, SCHOOLS),
        (dirichlet, Constraint(4, simplex=True)),
        (lambda x: 0.0, Constraint(3, (-1, 1))),
        (lambda x: jnp.sum(-3 * jnp.log(x) - 1 / x), Constraint(2, (0, None))),
    ],
    ids=[
        *("student", "cauchy", "funnel", "mixture", "logistic", "schools", "dirichlet", "box"),
        "inverse-gamma",
    ],
)
def test_proper_densities_pass(logdensity_fn, constraint, key):
    report = check_density(logdensity_fn, constraint, key)
    assert report.support_share == 1
    assert 64 < report.calls < 10_000


def test_a_half_space_passes_and_its_share_is_told(key):
    report = check_density(lambda x: jnp.where(x[0] > 0, -x[0], -jnp.inf), Constraint(1), key)
    assert 0.3 < report.support_share < 0.7


def unused_lookup(x):
    raise KeyError("sigma")


VECTOR, POSITIVE = Constraint(3), Constraint(3, (0, None))


@pytest.mark.parametrize(
    ("logdensity_fn", "constraint", "message"),
    [
        (3.0, VECTOR, "must be a function of a position, got float"),
        (unused_lookup, VECTOR, "raised KeyError: 'sigma', for a position of shape"),
        (lambda x: np.exp(x).sum(), VECTOR, "TracerArrayConversionError.*write it with jax.numpy"),
        (lambda x: -x[0] if x[0] > 0 else x[0], VECTOR, "TracerBoolConversionError.*pure_callback"),
        (lambda x: float(x[0]), VECTOR, "ConcretizationTypeError.*write it with jax.numpy"),
        (lambda x: x @ np.ones(4), VECTOR, r"raised TypeError: dot.*shape \(3,\).* give its dim"),
        (lambda x: x["mu"], VECTOR, "raised TypeError.*give its dim or template"),
        (lambda x: None, VECTOR, "must return one number, got nothing"),
        (lambda x: (x[0], x), VECTOR, "must return one number, got a tuple"),
        (lambda x: -(x**2), VECTOR, r"an array of shape \(3,\).*jnp.sum.*not for a batch"),
        (lambda x: 0, VECTOR, "real number, got dtype int32"),
        (lambda x: x[0] > 0, VECTOR, "real number, got dtype bool"),
        (lambda x: 1j * x[0], VECTOR, "real number, got dtype complex64"),
        (
            lambda x: jax.lax.while_loop(lambda y: y < 1, lambda y: y + 1, x[0]),
            VECTOR,
            "cannot be differentiated and batched.*Reverse-mode.*custom_jvp",
        ),
        (lambda x: jnp.sum(jnp.log(x)), VECTOR, r"is nan at \d+ of 64.* x = \[.*give bounds="),
        (lambda x: jnp.sum(x) + jnp.inf, VECTOR, r"is inf at 64 of 64 points tested"),
        (
            lambda x: jnp.where(x[0] > 1e3, -x[0], -jnp.inf),
            VECTOR,
            r"-inf at all 64 points.* by bounds=\(lower, upper\)",
        ),
        (
            lambda x: -jnp.sum(x**2) + jnp.where(x[0] > 0, jnp.sqrt(x[0]), 0),
            VECTOR,
            "gradient of logdensity_fn is not finite.*inside jnp.where",
        ),
        (lambda x: -jnp.sum(jnp.round(x) ** 2), VECTOR, "in steps.* take rounding"),
        (lambda x: 0.0, VECTOR, r"not seem to be integrable.* give bounds=\(lower, upper\), or"),
        (lambda x: jnp.sum(jnp.exp(x)), VECTOR, "not seem to be integrable"),
        (lambda x: -0.5 * jnp.sum(x[:2] ** 2), VECTOR, r"goes from .* at x\[2\] = .* to .*x\[2\]"),
        (lambda x: 5 * jnp.sum(jnp.cos(x)), VECTOR, "not seem to be integrable"),
        (lambda x: -1.5 * jnp.log1p(jnp.sum(x**2)), VECTOR, "not seem to be integrable"),
        (lambda x: -jnp.sum(jnp.log(x)), POSITIVE, "not seem to be .* Jacobian of its bounds"),
        (lambda x: -2 * jnp.sum(jnp.log(x)), Constraint(3, (0, 1)), "not seem to be integrable"),
    ],
    ids=[
        *("no-function", "raises", "numpy", "if", "float", "dimension", "tree", "none", "tuple"),
        *("vector", "int", "bool", "complex", "while", "nan", "inf", "zero", "gradient", "steps"),
        *("constant", "growing", "flat", "periodic", "cubic-tail", "log-flat", "pole"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(logdensity_fn, constraint, message, key):
    with pytest.raises(ValueError, match=message) as caught:
        check_density(logdensity_fn, constraint, key)
    assert "\n" not in str(caught.value)


def test_what_a_function_raises_is_chained(key):
    with pytest.raises(ValueError, match="raised KeyError") as caught:
        check_density(unused_lookup, VECTOR, key)
    assert isinstance(caught.value.__cause__, KeyError)


class Normals(eqx.Module):
    """Two normals with given weights: its arrays are arguments of one compiled search."""

    mean: Array
    std: Array
    log_weight: Array

    def __call__(self, z: Array) -> Array:
        log_p = jax.scipy.stats.norm.logpdf(z, self.mean, self.std).sum(axis=1)
        return jax.nn.logsumexp(log_p + self.log_weight)


def normals(mean, std, share=0.5) -> Normals:
    mean, std = (np.broadcast_to(np.asarray(a, np.float32), (2, 10)) for a in (mean, std))
    share = np.log(np.array([1 - share, share], np.float32))
    return Normals(jnp.asarray(mean), jnp.asarray(std), jnp.asarray(share))


SCALES = 10.0 ** np.linspace(-3, 3, 10)


@pytest.mark.parametrize(
    ("location", "scale"),
    [
        (0, 1),
        (1e3, 1e-3 * np.arange(2, 12)),
        (0, SCALES),
        (3 * SCALES[::-1] * (np.arange(10) > 0), SCALES),
        (0, 1e-4),
        (-500, 1e4),
    ],
    ids=["standard", "far-and-narrow", "scales", "scales-and-places", "small", "large"],
)
def test_normals_of_any_scale_are_standardised(location, scale, key):
    found = find_scale(normals(location, scale), 10, key)
    assert bool(found.converged)
    # 256 nearly independent points: a quantile's error is about 0.12 of the scale, so 0.6 for the
    # location and 1.7 for the scale are beyond four standard errors.
    assert np.all(np.abs((np.asarray(found.location) - location) / scale) < 0.6)
    assert np.all(np.abs(np.log(np.asarray(found.scale) / scale)) < np.log(1.7))
    np.testing.assert_allclose(found.log_z, 0, atol=0.5)
    assert found.population.shape == (256, 10)
    again = jax.vmap(normals(location, scale))(found.population)
    np.testing.assert_allclose(found.log_density, again, rtol=1e-3, atol=0.05)
    assert 10_000 < int(found.calls) < 200_000


@pytest.mark.parametrize("share", [0.5, 0.1], ids=["equal", "minor"])
def test_far_modes_are_all_found(share, key):
    modes = np.array([[-50.0], [50.0]])
    found = find_scale(normals(modes, 1.0, share), 10, key)
    right = np.mean(np.asarray(found.population) > 0, axis=0)
    assert np.all(right > share / 3)
    assert np.all(right < 1 - share / 3)
    # Both lie within |u| of 1 to 3.
    u = (modes - np.asarray(found.location)) / np.asarray(found.scale)
    assert np.all(np.abs(u) > 0.2)
    assert np.all(np.abs(u) < 4.5)
    np.testing.assert_allclose(found.log_z, 0, atol=0.5)


def test_a_mode_beyond_reach_shows_that_the_test_can_fail(key):
    """A needle of 1e-3 at a distance of 50 has no slope that leads to it."""
    std = np.array([[1.0], [1e-3]])
    found = find_scale(normals([[0.0], [50.0]], std), 10, key)
    assert np.all(np.asarray(found.population) < 25)


class Curved(eqx.Module):
    """A funnel, a banana, a normal with correlations of 0.999, and one cut in half."""

    kind: Array

    def __call__(self, z: Array) -> Array:
        banana = -0.5 * (z[0] / 10) ** 2 - 0.5 * (z[1] + 0.03 * z[0] ** 2 - 3) ** 2
        banana -= 0.5 * jnp.sum(z[2:] ** 2)
        total = jnp.sum(z)
        correlated = -0.5 * (jnp.sum(z**2) - total**2 / 10) / 1e-3 - 0.5 * total**2 / 99.9
        half = jnp.where(z[0] > 0, -0.5 * jnp.sum(z**2), -jnp.inf)
        return jnp.stack([funnel(z), banana, correlated, half])[self.kind]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(0, id="funnel"),
        pytest.param(1, marks=pytest.mark.slow, id="banana"),
        pytest.param(2, marks=pytest.mark.slow, id="correlated"),
    ],
)
def test_curved_and_correlated_densities_are_standardised(kind, key):
    """Medians and standard deviations; for the funnel's x, whose tails are heavy, the quantile
    at 95 % over 1.645, which is 3.1.
    """
    location = [np.zeros(10), [0, 0, *np.zeros(8)], np.zeros(10)][kind]
    scale = [[3, *[3.1] * 9], [10, 4.4, *np.ones(8)], np.ones(10)][kind]
    found = find_scale(Curved(jnp.asarray(kind)), 10, key)
    # Points of one population follow each other slowly here: factors of 3 are asked for.
    assert np.all(np.abs((np.asarray(found.location) - location) / scale) < 1.5)
    assert np.all(np.abs(np.log(np.asarray(found.scale) / scale)) < np.log(3))


def test_the_search_stays_where_the_density_is_not_zero(key):
    found = find_scale(Curved(jnp.asarray(3)), 10, key)
    assert np.all(np.asarray(found.population)[:, 0] > 0)
    assert np.all(np.isfinite(found.log_density))
    np.testing.assert_allclose(found.log_z, 5 * np.log(2 * np.pi) - np.log(2), atol=0.5)


def test_impossible_searches_are_refused(key):
    with pytest.raises(ValueError, match="dim must be >= 1"):
        find_scale(mixture, 0, key)
    with pytest.raises(ValueError, match="particles must be >= 16"):
        find_scale(mixture, 20, key, particles=8)
    with pytest.raises(ValueError, match=r"no point was found .* bounds="):
        find_scale(normals(np.nan, 1), 10, key)
