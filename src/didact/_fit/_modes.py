"""Modes of a density, found by climbing from draws, from Markov chains and from far away.

What is compared: where the sampler's draws lie, by their weights, and where short chains from
overdispersed points and climbs from afar end. A hill that only these find is what the sampler
misses.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Float64, Int, PRNGKeyArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from .._types import Target
from ._standardised import LOWEST, Standardised, in_batches, log_rewards

CLIMB = 300
"""Evaluations of a climb."""
_DECADES = 4
_BETWEEN = (0.25, 0.5, 0.75)
_DIP = 0.5
_SAME = 1e-3
"""Summits nearer than this, in units of the density's scale, are one."""
_DEPTH = 30.0
"""Ends of climbs so far below the highest, and a nat more for each dimension, are none."""
_HIGH = 10.0
_STEP = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Modes:
    """The hills of a density.

    `centre` [K, n] in the sampler's coordinates and `log_density` there; `share` [K] of the
    draws' weight, `share_drawn` [K] of the draws themselves; `by_chains` [K]: whether a Markov
    chain ended there; `log_mass` [K]: the hill's mass by Laplace's approximation, in nats relative
    to log Z (NaN where the summit is flat).
    """

    centre: Float64[np.ndarray, "K n"]
    log_density: Float64[np.ndarray, " K"]
    share: Float64[np.ndarray, " K"]
    share_drawn: Float64[np.ndarray, " K"]
    by_chains: Bool[np.ndarray, " K"]
    log_mass: Float64[np.ndarray, " K"]

    def missed(self, least: float) -> Int[np.ndarray, " missed"]:
        """Hills with a share of the mass above `least`, by Laplace's approximation, of which the
        draws have less than a fifth; and high ones of unknown mass, found by chains alone.
        """
        unknown = np.isnan(self.log_mass)
        mass = np.exp(np.minimum(np.where(unknown, -np.inf, self.log_mass), 0.0))
        known = (mass > least) & (self.share < 0.2 * mass)
        high = self.log_density > self.log_density.max() - _HIGH
        return np.flatnonzero(known | (unknown & high & self.by_chains & (self.share < 1e-3)))


def find_modes(
    target: Target,
    draws: Float[np.ndarray, "draws n"],
    share: Float64[np.ndarray, " draws"],
    chains: Float[np.ndarray, "chains n"],
    log_z: float,
    *,
    far: Float[np.ndarray, "far n"] | None = None,
    climbers: int = 128,
) -> tuple[Modes, int]:
    """Climb from draws, picked by their `share` of the weight, from the ends of chains and from
    those of climbs from afar.

    Where a climb from afar ends and no chain did, the summit counts by its mass alone: in a curved
    valley it may have stopped on the way.

    Two summits belong to one hill if the density along the line between them dips by less than
    half a nat; a chain of such pairs joins a ridge.

    **Returns:** the modes by falling share, and the number of evaluations of log R.
    """
    # Evenly spaced in the sum of the weights: each draw as often as it should be.
    spaced = (np.arange(climbers) + 0.5) / climbers
    picked = np.minimum(np.searchsorted(np.cumsum(share / share.sum()), spaced), len(draws) - 1)
    far = chains[:0] if far is None else far
    start = np.concatenate([draws[picked], chains, far]).astype(draws.dtype)
    summit = in_batches(_climb, target, start)
    height = log_rewards(target, summit)
    # A climb that ended far below the others came to a plateau, not to a summit; there, as where
    # the density is 0, everything would seem to be joined.
    top = float(np.max(height, where=np.isfinite(height), initial=-np.inf))
    good = np.isfinite(height) & (height > max(LOWEST, top - _DEPTH - draws.shape[1]))
    if not good.any():
        raise FloatingPointError("No climb ended where the density is finite and above 0.")
    summit, height = summit[good], height[good]
    place = np.arange(len(start))
    from_chain = ((place >= climbers) & (place < climbers + len(chains)))[good]
    hill, pairs = _hills(target, summit, height)
    count = int(hill.max()) + 1
    peak = np.asarray([_highest(height, hill == k) for k in range(count)])
    centre = summit[peak]
    owner = hill[_nearest(draws, summit)]
    drawn = np.bincount(owner, minlength=count) / len(draws)
    weighed = np.bincount(owner, share, minlength=count)
    log_mass = _laplace(target, centre, height[peak]) - log_z
    order = np.argsort(-weighed, kind="stable")
    modes = Modes(
        centre=centre[order].astype(np.float64),
        log_density=height[peak][order],
        share=weighed[order],
        share_drawn=drawn[order],
        by_chains=np.bincount(hill, from_chain, minlength=count)[order] > 0,
        log_mass=log_mass[order],
    )
    calls = len(start) * (CLIMB + 1) + pairs * len(_BETWEEN) + count * (2 * start.shape[1])
    return modes, calls


def _highest(height: Float64[np.ndarray, " points"], among: Bool[np.ndarray, " points"]) -> int:
    return int(np.flatnonzero(among)[np.argmax(height[among])])


def _nearest(
    x: Float[np.ndarray, "draws n"], summit: Float[np.ndarray, "points n"]
) -> Int[np.ndarray, " draws"]:
    return np.asarray(KDTree(summit).query(x)[1])


def _hills(
    target: Target, summit: Float[np.ndarray, "points n"], height: Float64[np.ndarray, " points"]
) -> tuple[Int[np.ndarray, " points"], int]:
    """The number of each point's hill, and how many pairs were compared."""
    # Most climbs end at the same few points: one stands for all of a place.
    pairs = KDTree(summit).query_pairs(_SAME, output_type="ndarray")
    place = _components(len(summit), pairs[:, 0], pairs[:, 1])
    count = int(place.max()) + 1
    stand = np.asarray([_highest(height, place == k) for k in range(count)])
    first, second = np.triu_indices(count, 1)
    a, b = summit[stand[first]], summit[stand[second]]
    lower = np.minimum(height[stand[first]], height[stand[second]])
    joined = np.ones(len(first), bool)
    for t in _BETWEEN if len(first) else ():
        joined &= log_rewards(target, (1 - t) * a + t * b) > lower - _DIP
    return _components(count, first[joined], second[joined])[place], len(first)


def _components(
    size: int, first: Int[np.ndarray, " pairs"], second: Int[np.ndarray, " pairs"]
) -> Int[np.ndarray, " points"]:
    graph = np.zeros((size, size), bool)
    graph[first, second] = True
    return connected_components(graph, directed=False)[1]


def from_afar(
    target: Standardised, key: PRNGKeyArray, count: int, least: float
) -> Float[np.ndarray, "count n"]:
    """Where climbs end that begin at all distances from `least` to 10,000 times that, as many in
    each decade, each with steps in proportion to its distance.

    A mode far away is the nearest one from half of the places that are further away still: these
    climbs come to modes that no chain of ordinary steps reaches.
    """
    direction_key, distance_key = jax.random.split(key)
    direction = jax.random.normal(direction_key, (count, target.dim))
    direction = direction / jnp.linalg.norm(direction, axis=1, keepdims=True)
    distance = least * 10 ** jax.random.uniform(distance_key, (count, 1), maxval=_DECADES)
    return np.asarray(_climb_from_afar(target, distance * direction))


@eqx.filter_jit
def _climb(target: Target, x: Float[Array, "B n"]) -> Float[Array, "B n"]:
    """Adam's ascent with a falling rate, from each point."""
    rate = optax.cosine_decay_schedule(0.1, CLIMB)
    return jax.vmap(lambda x: _ascend(target, x, optax.scale_by_adam(), rate))(x)


@eqx.filter_jit
def _climb_from_afar(target: Target, x: Float[Array, "B n"]) -> Float[Array, "B n"]:
    """Along the gradient, whatever its size, by steps that fall from a tenth of the distance."""

    def one(x: Float[Array, " n"]) -> Float[Array, " n"]:
        first, last = 0.1 * jnp.linalg.norm(x), 1e-2
        direction = optax.normalize_by_update_norm(eps=float(jnp.finfo(x.dtype).tiny))
        return _ascend(target, x, direction, lambda i: first * (last / first) ** (i / CLIMB))

    return jax.vmap(one)(x)


def _ascend(
    target: Target,
    x: Float[Array, " n"],
    direction: optax.GradientTransformation,
    rate: Callable[[Array], Any],
) -> Float[Array, " n"]:
    """The highest place on the way of so many steps."""
    both = jax.value_and_grad(target.log_reward)

    def body(i, carry):
        x, best, state = carry
        value, slope = both(x)
        better = value > best[1]
        best = (jnp.where(better, x, best[0]), jnp.where(better, value, best[1]))
        step, state = direction.update(jnp.nan_to_num(slope, posinf=0.0, neginf=0.0), state)
        return x + rate(i) * step, best, state

    start = (x, (x, jnp.asarray(-jnp.inf, x.dtype)), direction.init(x))
    return lax.fori_loop(0, CLIMB, body, start)[1][0]


def _laplace(
    target: Target, centre: Float[np.ndarray, "K n"], height: Float64[np.ndarray, " K"]
) -> Float64[np.ndarray, " K"]:
    """log of the integral of the Gaussian that fits each summit; NaN where none does."""
    hessian = _hessians(target, centre)
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


def _hessians(target: Target, x: Float[np.ndarray, "K n"]) -> Float64[np.ndarray, "K n n"]:
    """By central differences of the gradient: a density that knows its gradient alone will do."""
    count, n = x.shape
    steps = _STEP * np.concatenate([np.eye(n), -np.eye(n)]).astype(x.dtype)
    points = (x[:, None] + steps).reshape(-1, n)
    slope = in_batches(_gradients, target, points).astype(np.float64).reshape(count, 2, n, n)
    return (slope[:, 0] - slope[:, 1]) / (2 * _STEP)


@eqx.filter_jit
def _gradients(target: Target, x: Float[Array, "B n"]) -> Float[Array, "B n"]:
    return jax.vmap(jax.grad(target.log_reward))(x)
