"""Modes of a density, found by climbing from draws and from Markov chains.

What is compared: where the sampler's draws lie, by their weights, and where short chains from
overdispersed points end. A hill that only the chains find is what the sampler misses.
"""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Float64, Int
from scipy.sparse.csgraph import connected_components

from .._types import Target
from ._standardised import log_rewards

_CLIMB = 300
_BETWEEN = (0.25, 0.5, 0.75)
_DIP = 0.5


@dataclasses.dataclass(frozen=True)
class Modes:
    """The hills of a density.

    `centre` [K, n] in the sampler's coordinates and `log_density` there; `share` [K] of the
    draws' weight, `share_drawn` [K] of the draws themselves; `by_chains` [K]: whether a Markov
    chain ended there; `log_mass` [K]: the hill's mass by Laplace's approximation, in nats
    relative to log Z (NaN where the summit is flat).
    """

    centre: Float64[np.ndarray, "K n"]
    log_density: Float64[np.ndarray, " K"]
    share: Float64[np.ndarray, " K"]
    share_drawn: Float64[np.ndarray, " K"]
    by_chains: Bool[np.ndarray, " K"]
    log_mass: Float64[np.ndarray, " K"]

    def missed(self, least: float) -> Int[np.ndarray, " missed"]:
        """Hills with a share of the mass above `least`, by Laplace's approximation, of which the
        draws have less than a fifth.
        """
        mass = np.exp(np.minimum(np.nan_to_num(self.log_mass, nan=-np.inf), 0.0))
        return np.flatnonzero((mass > least) & (self.share < 0.2 * mass))


def find_modes(
    target: Target,
    draws: Float[np.ndarray, "draws n"],
    share: Float64[np.ndarray, " draws"],
    chains: Float[np.ndarray, "chains n"],
    log_z: float,
    *,
    climbers: int = 128,
) -> tuple[Modes, int]:
    """Climb from draws, picked by their `share` of the weight, and from the ends of chains.

    Two summits belong to one hill if the density along the line between them dips by less than
    half a nat; a chain of such pairs joins a ridge.

    **Returns:** the modes by falling share, and the number of evaluations of log R.
    """
    rng = np.random.default_rng(0)
    picked = rng.choice(len(draws), climbers, p=share / share.sum())
    start = np.concatenate([draws[picked], chains]).astype(draws.dtype)
    summit = np.asarray(_climb(target, jnp.asarray(start)))
    height = np.asarray(log_rewards(target, jnp.asarray(summit)), np.float64)
    good = np.isfinite(height)
    summit, height = summit[good], height[good]
    from_chain = (np.arange(len(start)) >= climbers)[good]
    hill, pairs = _hills(target, summit, height)
    count = int(hill.max()) + 1
    top = np.asarray([_highest(height, hill == k) for k in range(count)])
    centre = summit[top]
    owner = hill[_nearest(draws, summit)]
    drawn = np.bincount(owner, minlength=count) / len(draws)
    weighed = np.bincount(owner, share, minlength=count)
    log_mass = _laplace(target, centre, height[top]) - log_z
    order = np.argsort(-weighed, kind="stable")
    modes = Modes(
        centre=centre[order].astype(np.float64),
        log_density=height[top][order],
        share=weighed[order],
        share_drawn=drawn[order],
        by_chains=np.bincount(hill, from_chain, minlength=count)[order] > 0,
        log_mass=log_mass[order],
    )
    calls = len(start) * (_CLIMB + 1) + pairs * len(_BETWEEN) + count * (2 * start.shape[1])
    return modes, calls


def _highest(height: Float64[np.ndarray, " points"], among: Bool[np.ndarray, " points"]) -> int:
    return int(np.flatnonzero(among)[np.argmax(height[among])])


def _nearest(
    x: Float[np.ndarray, "draws n"], summit: Float[np.ndarray, "points n"]
) -> Int[np.ndarray, " draws"]:
    from scipy.spatial import KDTree

    return np.asarray(KDTree(summit).query(x)[1])


def _hills(
    target: Target, summit: Float[np.ndarray, "points n"], height: Float64[np.ndarray, " points"]
) -> tuple[Int[np.ndarray, " points"], int]:
    """The number of each point's hill, and how many pairs were compared."""
    first, second = np.triu_indices(len(summit), 1)
    lower = np.minimum(height[first], height[second])
    joined = np.ones(len(first), bool)
    for t in _BETWEEN:
        between = (1 - t) * summit[first] + t * summit[second]
        value = np.asarray(log_rewards(target, jnp.asarray(between)), np.float64)
        joined &= value > lower - _DIP
    size = len(summit)
    graph = np.zeros((size, size), bool)
    graph[first[joined], second[joined]] = True
    return connected_components(graph, directed=False)[1], len(first)


@eqx.filter_jit
def _climb(target: Target, x: Float[Array, "B n"]) -> Float[Array, "B n"]:
    """Adam's ascent with a falling rate, from each point."""
    optimiser = optax.adam(optax.cosine_decay_schedule(0.1, _CLIMB))
    gradient = jax.grad(target.log_reward)

    def one(x):
        def body(_, carry):
            x, best, state = carry
            slope = jnp.nan_to_num(gradient(x), posinf=0.0, neginf=0.0)
            step, state = optimiser.update(-slope, state)
            x = x + step
            value = target.log_reward(x)
            better = value > best[1]
            best = (jnp.where(better, x, best[0]), jnp.where(better, value, best[1]))
            return x, best, state

        start = (x, (x, target.log_reward(x)), optimiser.init(x))
        return lax.fori_loop(0, _CLIMB, body, start)[1][0]

    return jax.vmap(one)(x)


def _laplace(
    target: Target, centre: Float[np.ndarray, "K n"], height: Float64[np.ndarray, " K"]
) -> Float64[np.ndarray, " K"]:
    """log of the integral of the Gaussian that fits each summit; NaN where none does."""
    hessian = np.asarray(_hessians(target, jnp.asarray(centre)), np.float64)
    n = centre.shape[1]
    result = np.full(len(centre), math.nan)
    for k, matrix in enumerate(hessian):
        if np.all(np.isfinite(matrix)):
            curvature = -np.linalg.eigvalsh((matrix + matrix.T) / 2)
            if curvature.min() > 1e-3:
                result[k] = height[k] + 0.5 * (
                    n * math.log(2 * math.pi) - float(np.log(curvature).sum())
                )
    return result


@eqx.filter_jit
def _hessians(target: Target, x: Float[Array, "K n"]) -> Float[Array, "K n n"]:
    return jax.lax.map(jax.hessian(target.log_reward), x)
