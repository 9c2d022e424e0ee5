"""Models of numpyro, Markov chains from the draws of a fit, and its form in ArviZ.

The fits here are put together by hand, of samplers that were not trained; the slow test trains.
"""

import functools
import math
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray
from jaxtyping import Array
from numpyro.infer.util import potential_energy, unconstrain_fn
from scipy import integrate, stats

import didact
from didact import Constraint, Fit, FitConfig, Sampler
from didact._constraints import unconstrained_logdensity
from didact._fit import _numpyro
from didact._fit._numpyro import read_model
from didact.environments import Brownian, Diffusion
from didact.networks import DiffusionMLPConfig

from .._statistics import fits, rejects


@functools.cache
def untrained(dim: int) -> Sampler:
    environment = Diffusion(dim, 2, Brownian(1.0))
    network = DiffusionMLPConfig(width=4, harmonics=2)
    build = functools.partial(network.build, environment, flow_head=False, backward_head=False)
    return Sampler(environment, build(key=jax.random.key(0)), jnp.zeros(()))


def by_hand(constraint: Constraint, z: Array, log_weights: np.ndarray) -> Fit:
    """A fit with these draws, given in unconstrained coordinates."""
    return Fit(
        samples=jax.jit(jax.vmap(constraint.to_position))(z),
        log_weights=log_weights,
        log_z=0.5,
        log_z_interval=(0.25, 0.75),
        elbo=0.0,
        ess=100.0,
        k_hat=0.1,
        reliable=True,
        reason="put together by hand.",
        modes=(),
        calls=0,
        seconds=0.0,
        log_z_by_seed=(0.5, 0.5),
        constraint=constraint,
        samplers=(untrained(constraint.size),) * 2,
        location=jnp.zeros(constraint.size),
        scale=jnp.ones(constraint.size),
    )


# ---- models of numpyro ----------------------------------------------------------------------


def of_all_supports(y):
    """A model with a latent site of every support that is taken over."""
    real = numpyro.sample("real", dist.Normal(0, 5))
    positive = numpyro.sample("positive", dist.HalfCauchy(2.0).expand([2]))
    simplex = numpyro.sample("simplex", dist.Dirichlet(jnp.ones(3)).expand([2]))
    with numpyro.plate("columns", 3, dim=-1), numpyro.plate("rows", 2, dim=-2):
        numpyro.sample("interval", dist.Uniform(jnp.asarray([0.0, 1.0, 2.0]), 5.0))
    numpyro.sample("below", dist.TruncatedNormal(0, 1, high=2.0))
    numpyro.sample("above", dist.TruncatedNormal(real, positive[0], low=-1.0))
    share = numpyro.sample("unit", dist.Beta(2, 3))
    numpyro.sample("log", dist.LogNormal(0, 1))
    numpyro.sample("vector", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)))
    numpyro.sample("event", dist.Uniform(0, 1).expand([2, 2]).to_event(2))
    numpyro.sample("improper", dist.ImproperUniform(dist.constraints.positive, (), (2,)))
    numpyro.deterministic("sum", real + share)
    numpyro.factor("penalty", -(share**2) - jnp.sum(simplex[0] ** 2))
    numpyro.sample("y", dist.Normal(real, positive[1]), obs=y)
    numpyro.sample("count", dist.Poisson(positive[0]), obs=3)


DATA = jnp.asarray([0.3, -1.2, 4.0])


@functools.cache
def posterior() -> tuple[_numpyro.Posterior, Constraint]:
    read = read_model(of_all_supports, (), {"y": DATA})
    return read, Constraint(read.template, (read.lower, read.upper), read.simplex)


def test_the_log_density_is_that_of_numpyro_with_its_jacobians(key):
    """In the unconstrained coordinates, which are those of numpyro, too."""
    read, constraint = posterior()
    z = jax.random.normal(key, (6, constraint.size))
    arguments = of_all_supports, (), {"y": DATA}

    def theirs(z):
        return -potential_energy(*arguments, unconstrain_fn(*arguments, constraint.to_position(z)))

    mine = unconstrained_logdensity(read.logdensity_fn, constraint)
    values = jax.jit(jax.vmap(lambda z: (mine(z), theirs(z))))(z)
    np.testing.assert_allclose(*values, rtol=2e-5)


def test_supports_become_constraints():
    read, _ = posterior()
    bounded = {
        "positive": (0, math.inf),
        "interval": ([0, 1, 2], 5),
        "below": (-math.inf, 2),
        "above": (-1, math.inf),
        "unit": (0, 1),
        "log": (0, math.inf),
        "event": (0, 1),
        "improper": (0, math.inf),
    }
    shapes = {"positive": (2,), "simplex": (2, 3), "interval": (2, 3), "event": (2, 2)}
    shapes |= {"vector": (2,), "improper": (2,)}
    assert set(read.template) == {*bounded, "real", "simplex", "vector"}
    for name, struct in read.template.items():
        lower, upper = bounded.get(name, (-math.inf, math.inf))
        assert struct.shape == shapes.get(name, ())
        np.testing.assert_array_equal(read.lower[name], lower)
        np.testing.assert_array_equal(read.upper[name], upper)
        assert read.simplex[name] == (name == "simplex")


def test_a_saved_fit_draws_within_the_supports_without_the_model(tmp_path, key):
    _, constraint = posterior()
    z = jax.random.normal(key, (6, constraint.size))
    loaded = didact.load_fit(by_hand(constraint, z, np.zeros(6)).save(tmp_path / "fit.npz"))
    drawn = loaded.sample(key, 3)
    assert jax.tree.map(lambda leaf: leaf.shape[0], drawn) == dict.fromkeys(drawn, 3)
    assert np.all(drawn["positive"] > 0)
    assert np.all((drawn["event"] > 0) & (drawn["event"] < 1))
    np.testing.assert_allclose(drawn["simplex"].sum(-1), 1, rtol=1e-6)
    # And numpyro takes them for what follows from them.
    predictive = numpyro.infer.Predictive(of_all_supports, drawn, return_sites=["sum"])
    np.testing.assert_allclose(predictive(key, y=DATA)["sum"], drawn["real"] + drawn["unit"])


def _subsampled():
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    with numpyro.plate("rows", 3, subsample_size=2) as at:
        numpyro.sample("y", dist.Normal(mean, 1), obs=DATA[at])


def _masked():
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    known = jnp.asarray([True, False, True])
    numpyro.sample("y", dist.Normal(mean, 1).expand([3]), obs=DATA, obs_mask=known)


def _missing():
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(mean, 1), obs=jnp.asarray([0.0, jnp.nan]))


def _bounds_vary():
    numpyro.sample("x", dist.Uniform(0, numpyro.sample("most", dist.HalfNormal(1.0))))


REFUSED = {
    "discrete": (lambda: numpyro.sample("k", dist.Poisson(3.0)), "'k' is discrete.*pass its obser"),
    "delta": (lambda: numpyro.sample("k", dist.Delta(3.0)), "'k' is a Delta.*deterministic"),
    "cholesky": (lambda: numpyro.sample("l", dist.LKJCholesky(3, 1.0)), "'l' has support Corr"),
    "dependent": (_bounds_vary, "support of site 'x' depends on other latent sites"),
    "missing": (_missing, "1 of 2 observations of site 'y' are NaN"),
    "masked": (_masked, "'y_unobserved' is latent and masked"),
    "subsample": (_subsampled, "'rows' is a plate with a random subsample"),
    "param": (lambda: numpyro.param("p", 1.0), "'p' is a param, which has no prior"),
    "empty": (lambda: numpyro.sample("y", dist.Normal(0, 1), obs=1.0), "no latent sites"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_taken_over_is_refused_by_name(name):
    model, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        read_model(model, (), {})


def test_options_are_those_of_fit_but_what_the_model_decides(monkeypatch, key):
    taken = {}

    def fit(_, **options):
        taken.update(options)
        return by_hand(Constraint(1), jnp.zeros((2, 1)), np.zeros(2))

    monkeypatch.setattr(_numpyro, "fit", fit)
    kwargs = {"rng_key": key, "model_kwargs": {"y": DATA}}
    didact.fit_numpyro(of_all_supports, max_calls=7, **kwargs)
    assert taken["max_calls"] == 7
    assert set(taken["template"]) == set(posterior()[0].template)
    with pytest.raises(ValueError, match="bounds, template come from the model"):
        didact.fit_numpyro(of_all_supports, template=0.0, bounds=(0, 1), **kwargs)


EFFECT = np.asarray([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERROR = np.asarray([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def eight_schools(*, centred: bool):
    """Rubin (1981)."""
    mean = numpyro.sample("mean", dist.Normal(0, 5))
    spread = numpyro.sample("spread", dist.HalfCauchy(5))
    if centred:
        school = numpyro.sample("school", dist.Normal(mean, spread).expand([8]))
    else:
        noise = numpyro.sample("noise", dist.Normal(0, 1).expand([8]))
        school = numpyro.deterministic("school", mean + spread * noise)
    numpyro.sample("effect", dist.Normal(school, ERROR), obs=EFFECT)


@functools.cache
def log_evidence() -> float:
    """log p(y) of the eight schools, by quadrature over mean and log spread."""
    normal, cauchy = stats.norm, stats.halfcauchy(scale=5)

    def joint(mean, log_spread):
        spread = math.exp(log_spread)
        likelihood = normal.logpdf(EFFECT, mean, np.hypot(ERROR, spread)).sum()
        prior = normal.logpdf(mean, 0, 5) + cauchy.logpdf(spread) + log_spread
        return math.exp(likelihood + prior + 32)

    return math.log(integrate.dblquad(joint, -12, 8, -25, 30, epsabs=1e-6)[0]) - 32


@functools.cache
def by_nuts() -> tuple[np.ndarray, np.ndarray]:
    """Posterior means of mean, spread and schools, and their standard errors."""
    kernel = numpyro.infer.NUTS(eight_schools, target_accept_prob=0.95)
    options = {"num_warmup": 1_000, "num_samples": 4_000, "num_chains": 2}
    chains = numpyro.infer.MCMC(kernel, chain_method="sequential", progress_bar=False, **options)
    chains.run(jax.random.key(1), centred=False)
    drawn = as_columns(chains.get_samples(group_by_chain=True))
    effective = numpyro.diagnostics.effective_sample_size(drawn)
    flat = drawn.reshape(-1, drawn.shape[-1])
    return flat.mean(0), flat.std(0) / np.sqrt(effective)


def as_columns(samples) -> np.ndarray:
    mean, spread = (np.asarray(samples[name])[..., None] for name in ("mean", "spread"))
    school = samples.get("school")
    if school is None:
        school = mean + spread * np.asarray(samples["noise"])
    return np.concatenate([mean, spread, school], -1)


@pytest.mark.slow
@pytest.mark.parametrize("centred", [False, True])
def test_eight_schools_agree_with_nuts_and_quadrature(centred, key):
    """Ten means within 5 standard errors of both, which happens by chance to 1 key of 170,000 as
    far as the errors are normal. The draws without their weights fail it.

    The funnel of the centred model is too much for so little training, which the verdict says.
    """
    config = FitConfig(width=64, num_steps=16, round_steps=600, max_rounds=1)
    result = didact.fit_numpyro(
        eight_schools, rng_key=key, model_kwargs={"centred": centred}, config=config
    )
    drawn = as_columns(result.samples)
    weight = np.exp(result.log_weights - result.log_weights.max())
    expected, noise = by_nuts()

    def distance(weight):
        weight = weight / weight.sum()
        mean = weight @ drawn
        error = np.sqrt(weight**2 @ (drawn - mean) ** 2)
        return np.abs(mean - expected) / np.hypot(error, noise)

    assert distance(weight).max() < 5
    assert distance(np.ones(len(weight))).max() > 5
    assert result.reliable != centred, str(result)
    # The interval has 90 %, thrice its width all but 1 key of a million.
    low, high = result.log_z_interval
    assert low - (high - low) < log_evidence() < high + (high - low)


# ---- Markov chains --------------------------------------------------------------------------

COVARIANCE = np.asarray([[1.0, 0.8], [0.8, 1.0]])
PAIR = Constraint({"a": 0.0, "b": 0.0}, bounds=({"a": None, "b": 0.0}, None))
CHAINS = 2_048


class LogNormalPair(eqx.Module):
    """(a, log b) is normal with this precision, in two heaps if they are apart. The numbers are
    arguments of what is compiled, which therefore serves all tests.
    """

    precision: Array
    apart: Array

    def __call__(self, position):
        x = jnp.stack([position["a"], jnp.log(position["b"])])
        offset = jnp.stack([x - self.apart, x + self.apart])
        heaps = -0.5 * jnp.sum((offset @ self.precision) * offset, axis=1)
        return jax.nn.logsumexp(heaps) - x[1]


def chains_from(z, kernel, *, log_weights=None, inflation=1.0, apart=0.0):
    log_weights = np.zeros(len(z)) if log_weights is None else log_weights
    fit = by_hand(PAIR, jnp.asarray(z, jnp.float32), log_weights)
    precision = jnp.asarray(np.linalg.inv(inflation * COVARIANCE), jnp.float32)
    density = LogNormalPair(precision, jnp.asarray(apart))
    steps = {"num_steps": 4, "num_warmup": 60, "num_chains": CHAINS}
    return fit.refine(density, jax.random.key(3), kernel=kernel, **steps)


def cells(samples) -> np.ndarray:
    """Counts over 4 x 4 cells, each of mass 1/16 if (a, log b) has the covariance above."""
    z = np.stack([samples["a"], np.log(samples["b"])], -1)
    white = z @ np.linalg.inv(np.linalg.cholesky(COVARIANCE)).T
    row, column = np.searchsorted(stats.norm.ppf([0.25, 0.5, 0.75]), white).T
    return np.bincount(4 * row + column, minlength=16)


def last_cells(refined) -> np.ndarray:
    return cells({name: np.asarray(leaf[:, -1]) for name, leaf in refined.samples.items()})


@functools.cache
def exact() -> np.ndarray:
    return np.random.default_rng(0).multivariate_normal([0, 0], COVARIANCE, 2 * CHAINS)


EQUAL = np.full(16, 1 / 16)
BOTH = pytest.mark.parametrize("kernel", [pytest.param("nuts", marks=pytest.mark.slow), "mala"])


@BOTH
def test_chains_leave_their_density_as_it_is(kernel):
    """The last positions of chains that start at exact draws, by a χ² test at `ERROR_RATE`. The
    chains of a density that is wider by a half fail it.
    """
    refined = chains_from(exact(), kernel)
    assert fits(last_cells(refined), EQUAL)
    assert rejects(last_cells(chains_from(exact(), kernel, inflation=1.5)), EQUAL)
    assert refined.samples["a"].shape == refined.samples["b"].shape == (CHAINS, 4)
    target = {"nuts": 0.8, "mala": 0.574}[kernel]
    assert refined.acceptance.shape == (CHAINS,)
    assert refined.acceptance.mean() == pytest.approx(target, abs=0.1)
    assert refined.r_hat.shape == (2,)
    assert refined.divergences == 0
    assert refined.calls >= 65 * CHAINS  # the start, and one for each step at the least


@BOTH
def test_chains_repair_draws_that_are_wrong(kernel):
    """Draws of a tenth of the width, three standard deviations off, that claim equal weights."""
    wrong = 3 + 0.1 * exact()
    assert rejects(cells({"a": wrong[:, 0], "b": np.exp(wrong[:, 1])}), EQUAL)
    assert fits(last_cells(chains_from(wrong, kernel)), EQUAL)


def test_chains_start_by_weight():
    """Of two heaps that chains do not cross they keep the shares, and R-hat tells of it."""
    upper = np.arange(2 * CHAINS) >= CHAINS
    z = exact() + np.where(upper, 30, -30)[:, None]
    refined = chains_from(z, "mala", log_weights=np.log(np.where(upper, 0.9, 0.1)), apart=30.0)
    share = np.mean(np.asarray(refined.samples["a"]) > 0, axis=1)
    assert set(share) == {0, 1}
    # Four standard errors: fails for 1 of 16,000 keys.
    assert share.mean() == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / CHAINS))
    assert refined.r_hat.min() > 1.3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kernel": "hmc"}, "kernel must be"),
        ({"num_steps": 3}, "num_steps must be >= 4"),
        ({"num_warmup": 0}, "num_warmup must be >= 1"),
        ({"num_chains": 1}, "num_chains must be >= 2"),
    ],
)
def test_refine_refuses_what_it_cannot_run(wrong, message, key):
    fit = by_hand(PAIR, jnp.zeros((2, 2)), np.zeros(2))
    with pytest.raises(ValueError, match=message):
        fit.refine(lambda x: -(x["a"] ** 2), key, **wrong)


# ---- ArviZ ----------------------------------------------------------------------------------


def test_arviz_takes_draws_weights_and_verdict(tmp_path, key):
    """One chain for each sampler; names from the paths of nested positions; attributes that
    netCDF can hold, though the verdict has an infinite number.
    """
    template = {"net": [np.zeros((2, 3), np.float32), 0.0], "scope/rate": np.ones(2, np.float32)}
    constraint = Constraint(template, bounds=({"net": None, "scope/rate": 0.0}, None))
    z, log_weights = jax.random.normal(key, (7, constraint.size)), np.arange(7.0)
    fit = by_hand(constraint, z, log_weights)
    tree = fit.to_arviz()
    shapes = {name: value.shape for name, value in tree["posterior"].data_vars.items()}
    # Of seven draws the last has no partner in the other chain.
    assert shapes == {"net.0": (2, 3, 2, 3), "net.1": (2, 3), "scope.rate": (2, 3, 2)}
    assert all(value.dims[:2] == ("chain", "draw") for value in tree["posterior"].values())
    np.testing.assert_array_equal(tree["sample_stats"]["log_weight"], [[0, 2, 4], [1, 3, 5]])
    weights = tree["posterior"]["scope.rate"]
    np.testing.assert_array_equal(weights[1, 2], fit.samples["scope/rate"][5])
    tree["posterior"].to_dataset().to_netcdf(tmp_path / "posterior.nc", engine="scipy")
    with xarray.open_dataset(tmp_path / "posterior.nc", engine="scipy") as read:
        assert read.attrs["reliable"] == "True"
        assert read.attrs["reason"] == "put together by hand."
        assert (read.attrs["log_z_low"], read.attrs["log_z_high"]) == (0.25, 0.75)
        assert read.attrs["inference_library"] == "didact"
        np.testing.assert_array_equal(read["net.1"], tree["posterior"]["net.1"])


def test_a_vector_is_named_x():
    fit = by_hand(Constraint(3), jnp.zeros((4, 3)), np.zeros(4))
    assert fit.to_arviz()["posterior"]["x"].shape == (2, 2, 3)


@pytest.mark.parametrize("template", [{"a": {"b": 0.0}, "a.b": 0.0}, {"draw": 0.0}])
def test_names_that_arviz_would_confuse_are_refused(template):
    constraint = Constraint(template)
    fit = by_hand(constraint, jnp.zeros((2, constraint.size)), np.zeros(2))
    with pytest.raises(ValueError, match=r"ArviZ cannot tell (a\.b|draw) from another: rename"):
        fit.to_arviz()


# ---- without the extras ---------------------------------------------------------------------


@pytest.mark.parametrize("extra", ["arviz", "blackjax", "numpyro"])
def test_a_package_that_is_not_there_is_named_with_its_extra(extra, monkeypatch, key):
    for module in ("arviz_base", "blackjax", "blackjax.diagnostics", "numpyro.infer.util"):
        monkeypatch.setitem(sys.modules, module, None)
    fit = by_hand(Constraint(1), jnp.zeros((2, 1)), np.zeros(2))
    call = {
        "arviz": fit.to_arviz,
        "blackjax": lambda: fit.refine(lambda x: -jnp.sum(x**2), key),
        "numpyro": lambda: didact.fit_numpyro(of_all_supports, rng_key=key),
    }[extra]
    with pytest.raises(ImportError, match=rf"pip install 'didact\[{extra}\]'"):
        call()
