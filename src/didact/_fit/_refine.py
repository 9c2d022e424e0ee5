"""`refine`: Markov chains from the draws of a fit, which leave the density exactly as it is."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float64, Int, PRNGKeyArray, PyTree

from .._checks import require
from .._constraints import Constraint, Position, unconstrained_logdensity
from ..metrics.weights import normalised


@dataclasses.dataclass(frozen=True)
class Refined:
    """Markov chains that started at the draws of a fit.

    - `samples`: a pytree of positions with leading axes [chains, steps], all of equal weight;
    - `acceptance` [chains]: the mean probability of acceptance;
    - `r_hat` [n]: rank-normalised split R-hat of each unconstrained coordinate, in the order of
      `Constraint.coordinate_names`. Chains that cannot cross between hills keep them well above 1:
      the shares of the hills are then those of the draws' weights, not the chains' own;
    - `step_size` of the kernel, `divergences` of NUTS, `calls`: evaluations of the gradient.
    """

    samples: PyTree
    acceptance: Float64[np.ndarray, " chains"]
    r_hat: Float64[np.ndarray, " n"]
    step_size: float
    divergences: int
    calls: int


def refine(
    logdensity_fn: Callable[[Position], Array],
    constraint: Constraint,
    location: Float[Array, " n"],
    scale: Float[Array, " n"],
    samples: PyTree,
    log_weights: Float64[np.ndarray, " draws"],
    key: PRNGKeyArray,
    *,
    num_steps: int,
    num_warmup: int,
    num_chains: int,
    kernel: str,
) -> Refined:
    r"""Run chains from draws picked by their weights.

    The chains move in coordinates w, z = location + scale ⊙ L w, in which the weighted draws have
    about unit covariance: with the covariance C of the draws in the standardised coordinates and
    their effective number m,

    $$L L^\top = \frac{m C + n I}{m + n}.$$

    One step size for all chains is found by dual averaging in the warm-up, and fixed after it.

    **Arguments:** those of `Fit.refine`, and the parts of the fit.

    References: Hoffman and Gelman (2014), "The No-U-Turn Sampler"; Vehtari et al. (2021),
    "Rank-normalization, folding, and localization: an improved R-hat".
    """
    try:
        from blackjax.diagnostics import rhat
    except ImportError as error:
        raise ImportError("refine needs BlackJAX: pip install 'didact[blackjax]'.") from error
    require("num_steps", num_steps, at_least=4)
    require("num_warmup", num_warmup, at_least=1)
    require("num_chains", num_chains, at_least=2)
    if kernel not in ("nuts", "mala"):
        raise ValueError(f'kernel must be "nuts" or "mala", got {kernel!r}.')
    u = _standardised(constraint, location, scale, samples)
    weight = normalised(log_weights)
    root = _root(np.asarray(u, np.float64), weight)
    start_key, run_key = jax.random.split(key)
    start = u[jax.random.choice(start_key, len(u), (num_chains,), p=jnp.asarray(weight))]
    density = _Density(logdensity_fn, constraint, location, scale, jnp.asarray(root, u.dtype))
    step_size, w, moves, calls = _run(density, start, run_key, num_warmup, num_steps, kernel)
    z, samples = _unwhitened(density, w)
    return Refined(
        samples=samples,
        acceptance=np.asarray(moves.acceptance, np.float64).mean(axis=1),
        r_hat=np.asarray(rhat(z), np.float64).reshape(-1),
        step_size=float(step_size),
        divergences=int(moves.divergent.sum()),
        calls=num_chains + int(np.asarray(calls, np.int64).sum()),
    )


class _Density(eqx.Module):
    """The density in the coordinates w of the chains."""

    logdensity_fn: Callable[[Position], Array]
    constraint: Constraint
    location: Float[Array, " n"]
    scale: Float[Array, " n"]
    root: Float[Array, "n n"]

    def unconstrained(self, w: Float[Array, " n"]) -> Float[Array, " n"]:
        """z."""
        return self.location + self.scale * (self.root @ w)

    def __call__(self, w: Float[Array, " n"]) -> Float[Array, ""]:
        """log p of w, up to a constant."""
        pulled_back = unconstrained_logdensity(self.logdensity_fn, self.constraint)
        return pulled_back(self.unconstrained(w))


class _Move(NamedTuple):
    """What a kernel tells of one step: a number each, before it is batched."""

    acceptance: Array
    divergent: Array
    calls: Array


class _Scheme(NamedTuple):
    """A kernel of BlackJAX, and how its step size is found."""

    init: Callable[[Float[Array, " n"]], Any]
    step: Callable[[PRNGKeyArray, Any, Float[Array, ""]], tuple[Any, _Move]]
    first: float
    target: float


def _scheme(kernel: str, density: _Density, dim: int) -> _Scheme:
    import blackjax

    if kernel == "mala":
        mala = blackjax.mala.build_kernel()

        def langevin(key, state, step_size):
            state, info = mala(key, state, density, step_size)
            none, one = jnp.zeros((), bool), jnp.ones((), int)
            return state, _Move(info.acceptance_rate, none, one)

        # The best step size for a Gaussian falls as n^(-1/3), that of trajectories as n^(-1/4).
        first = 0.5 * dim ** (-1 / 3)
        return _Scheme(lambda w: blackjax.mala.init(w, density), langevin, first, 0.574)

    nuts, mass = blackjax.nuts.build_kernel(), jnp.ones(dim)

    def trajectory(key, state, step_size):
        state, info = nuts(key, state, density, step_size, mass)
        return state, _Move(info.acceptance_rate, info.is_divergent, info.num_integration_steps)

    first = 0.5 * dim ** (-1 / 4)
    return _Scheme(lambda w: blackjax.nuts.init(w, density), trajectory, first, 0.8)


@eqx.filter_jit
def _run(
    density: _Density,
    start: Float[Array, "chains n"],
    key: PRNGKeyArray,
    num_warmup: int,
    num_steps: int,
    kernel: str,
) -> tuple[Float[Array, ""], Float[Array, "chains steps n"], _Move, Int[Array, " all"]]:
    """Step size, chains, what happened [chains, steps], and the calls of all steps, those of the
    warm-up included.
    """
    from blackjax.adaptation.step_size import dual_averaging_adaptation

    chains, dim = start.shape
    scheme = _scheme(kernel, density, dim)
    begin, update, final = dual_averaging_adaptation(scheme.target)

    # One loop for both phases, because the kernel takes long to compile.
    def step(carry, now):
        states, tuning = carry
        key, warming = now
        step_size = jnp.where(warming, jnp.exp(tuning.log_step_size), final(tuning))
        keys = jax.random.split(key, chains)
        states, move = jax.vmap(scheme.step, (0, 0, None))(keys, states, step_size)
        # NaN where the density was 0 or not finite all along a trajectory.
        tuned = update(tuning, jnp.mean(jnp.nan_to_num(move.acceptance)))
        tuning = jax.tree.map(lambda new, old: jnp.where(warming, new, old), tuned, tuning)
        return (states, tuning), (states.position, move)

    solve = jax.scipy.linalg.solve_triangular
    w = jax.vmap(lambda u: solve(density.root, u, lower=True))(start)
    carry = jax.vmap(scheme.init)(w), begin(jnp.asarray(scheme.first, w.dtype))
    steps = num_warmup + num_steps
    now = jax.random.split(key, steps), jnp.arange(steps) < num_warmup
    (_, tuning), recorded = lax.scan(step, carry, now)
    calls = jnp.sum(recorded[1].calls, axis=1)
    w, moves = jax.tree.map(lambda leaf: jnp.swapaxes(leaf[num_warmup:], 0, 1), recorded)
    return final(tuning), w, moves, calls


@eqx.filter_jit
def _standardised(constraint: Constraint, location, scale, samples: PyTree) -> Array:
    return jax.vmap(lambda x: (constraint.from_position(x) - location) / scale)(samples)


@eqx.filter_jit
def _unwhitened(
    density: _Density, w: Float[Array, "chains steps n"]
) -> tuple[Float[Array, "chains steps n"], PyTree]:
    """Unconstrained coordinates, and positions."""
    z = jax.vmap(jax.vmap(density.unconstrained))(w)
    return z, jax.vmap(jax.vmap(density.constraint.to_position))(z)


def _root(
    u: Float64[np.ndarray, "draws n"], weight: Float64[np.ndarray, " draws"]
) -> Float64[np.ndarray, "n n"]:
    """L: lower triangular, and near to the identity if few of the draws are effective."""
    effective, dim = 1 / np.sum(weight**2), u.shape[1]
    centred = u - weight @ u
    covariance = (weight[:, None] * centred).T @ centred
    return np.linalg.cholesky((effective * covariance + dim * np.eye(dim)) / (effective + dim))
