"""`fit_numpyro`: a model of numpyro as a log-density of named positions with constraints."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PRNGKeyArray

from .._constraints import Position
from ._fit import fit
from ._result import Fit

Site = dict[str, Any]


def fit_numpyro(
    model: Callable[..., Any],
    *args: Any,
    rng_key: PRNGKeyArray,
    model_kwargs: Mapping[str, Any] | None = None,
    **fit_options: Any,
) -> Fit:
    r"""`didact.fit` for the posterior of a numpyro model. Needs the extra `didact[numpyro]`.

    Positions are dicts of the latent sites, each under its name and within its support. Their
    log-density is that of the latent and the observed sites together, log p(θ, y) by
    `numpyro.infer.util.log_density`, so that `Fit.log_z` is the log evidence log p(y).

    | support of a latent site | constraint of the position |
    |---|---|
    | real, also vectors and matrices | none |
    | positive, greater_than, less_than, unit_interval, interval, … | bounds |
    | simplex | simplex |

    Therefore a saved fit needs neither the model nor numpyro to draw. Deterministic sites come
    from `numpyro.infer.Predictive(model, fit.resample(key, n))`, which needs both.

    **Arguments:**

    - `model`, called as model(*args, **model_kwargs);
    - `rng_key`; `fit_options`: those of `didact.fit` but `dim`, `template`, `bounds` and
      `simplex`, which the model decides.

    **Errors:** `ImportError` without numpyro. `ValueError` naming the site for latent sites that
    are discrete, or of another support than those above, or with bounds that depend on other
    latent sites, or without a density (Delta, mask); for observations that are NaN; for a `plate`
    with a random subsample; for a `param` or `mutable`, which have no prior. All that `didact.fit`
    raises.
    """
    decided = sorted({"dim", "template", "bounds", "simplex"} & set(fit_options))
    if decided:
        raise ValueError(f"{', '.join(decided)} come from the model: leave them out.")
    posterior = read_model(model, args, {} if model_kwargs is None else dict(model_kwargs))
    return fit(
        posterior.logdensity_fn,
        template=posterior.template,
        bounds=(posterior.lower, posterior.upper),
        simplex=posterior.simplex,
        rng_key=rng_key,
        **fit_options,
    )


@dataclasses.dataclass(frozen=True)
class Posterior:
    """What `didact.fit` asks for, as read off a model: dicts over the names of the latent sites."""

    logdensity_fn: Callable[[Position], Array]
    template: dict[str, jax.ShapeDtypeStruct]
    lower: dict[str, np.ndarray]
    upper: dict[str, np.ndarray]
    simplex: dict[str, bool]


def read_model(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Posterior:
    """Run the model once, and read its latent sites. Errors are those of `fit_numpyro`."""
    try:
        from numpyro.infer.util import log_density
    except ImportError as error:
        raise ImportError("fit_numpyro needs numpyro: pip install 'didact[numpyro]'.") from error
    template, lower, upper, simplex = {}, {}, {}, {}
    for name, site in _sites(model, args, kwargs).items():
        _refuse_without_density(name, site)
        if site["type"] != "sample":
            continue
        if site["is_observed"]:
            _refuse_missing(name, site["value"])
            continue
        _refuse_latent(name, site["fn"])
        shape, dtype = jnp.shape(site["value"]), jnp.result_type(site["value"])
        template[name] = jax.ShapeDtypeStruct(shape, dtype)
        lower[name], upper[name], simplex[name] = _support(name, site["fn"].support)
    if not template:
        raise ValueError("the model has no latent sites: there is nothing to draw.")

    def logdensity_fn(position: Position) -> Array:
        return jnp.asarray(log_density(model, args, kwargs, position)[0])

    return Posterior(logdensity_fn, template, lower, upper, simplex)


def _sites(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Site]:
    """The sites of the model, for a batch of random keys: what depends on the values of latent
    sites is a tracer, everything else an array or a number.
    """
    from numpyro.handlers import seed, substitute, trace
    from numpyro.infer import init_to_uniform

    found: dict[str, Site] = {}

    def run(key: PRNGKeyArray) -> None:
        # Not from the prior, which may be improper.
        started = substitute(seed(model, key), substitute_fn=init_to_uniform)
        found.update(trace(started).get_trace(*args, **kwargs))

    jax.vmap(run)(jax.random.split(jax.random.key(0), 2))
    return found


def _varies(value: Any) -> bool:
    return isinstance(value, Tracer)


def _refuse_without_density(name: str, site: Site) -> None:
    """Raise for sites that make the density random, or not that of a posterior."""
    if site["type"] in ("param", "mutable"):
        raise ValueError(
            f"site {name!r} is a {site['type']}, which has no prior: make it a numpyro.sample, or "
            "a fixed value."
        )
    if site["type"] == "plate" and _varies(site["value"]):
        raise ValueError(
            f"site {name!r} is a plate with a random subsample, which makes the density random: "
            "give the model all data."
        )


def _refuse_missing(name: str, value: Any) -> None:
    """Raise for observations that are NaN."""
    if _varies(value) or not jnp.issubdtype(jnp.result_type(value), jnp.inexact):
        return
    missing = np.isnan(np.asarray(value))
    if missing.any():
        raise ValueError(
            f"{missing.sum()} of {missing.size} observations of site {name!r} are NaN: leave them "
            "out of the data."
        )


def _refuse_latent(name: str, distribution: Any) -> None:
    """Raise for latent sites that are not continuous, or have no density of their own."""
    import numpyro.distributions as dist

    if distribution.support.is_discrete:
        raise ValueError(
            f"site {name!r} is discrete and not observed: if it is data, pass its observations; "
            "else sum it out, as numpyro.distributions.MixtureSameFamily does."
        )
    while distribution is not None:
        if isinstance(distribution, dist.Delta):
            raise ValueError(f"site {name!r} is a Delta: make it a numpyro.deterministic.")
        mask = getattr(distribution, "_mask", True)
        if _varies(mask) or not np.all(np.asarray(mask)):
            raise ValueError(
                f"site {name!r} is latent and masked, so that entries of it have no density: leave "
                "obs_mask out and sample the missing entries alone, or observe the others alone."
            )
        distribution = getattr(distribution, "base_dist", None)


def _support(name: str, support: Any) -> tuple[np.ndarray, np.ndarray, bool]:
    """Lower bound, upper bound, and whether it is a simplex."""
    from numpyro.distributions import constraints

    if isinstance(support, constraints.independent):
        support = support.base_constraint
    bounded_below = (constraints.greater_than, constraints.greater_than_eq, constraints.interval)
    bounded_above = (constraints.less_than, constraints.less_than_eq, constraints.interval)
    simplex = isinstance(support, type(constraints.simplex))
    known = (*bounded_below, *bounded_above, type(constraints.real))
    if not simplex and not isinstance(support, known):
        raise ValueError(
            f"site {name!r} has support {support!r}: only reals, intervals and the simplex can be "
            "taken over. Sample such numbers and transform them in the model, with the log "
            "determinant as a numpyro.factor."
        )
    lower = support.lower_bound if isinstance(support, bounded_below) else -math.inf
    upper = support.upper_bound if isinstance(support, bounded_above) else math.inf
    if _varies(lower) or _varies(upper):
        raise ValueError(
            f"the support of site {name!r} depends on other latent sites: sample a number with "
            "fixed bounds, as from Uniform(0, 1), and scale it in the model."
        )
    return np.asarray(lower), np.asarray(upper), simplex
