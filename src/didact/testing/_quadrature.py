"""Integrals of densities that are known only point by point."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64

TOO_STEEP = "the density is too steep for its integrals"
LogDensity = Callable[[Array], Array]


class Below(NamedTuple):
    """The share of a density along a coordinate that lies below a point; its error, the difference
    to a rule with half of the nodes; and by how much log p is higher elsewhere on the line.
    """

    share: Float[Array, "..."]
    error: Float[Array, "..."]
    depth: Float[Array, "..."]

    @property
    def is_known(self) -> bool:
        """Whether the shares of many points are known well enough for a test of their law: they are
        not where a density rises without bound. Points that all lie far below it are no draws of
        it, known or not.
        """
        error, depth = np.mean(np.asarray(self.error)), np.median(np.asarray(self.depth))
        return bool(error < 0.01 or depth > 15)


def share_below(
    log_density: LogDensity,
    x: Float[Array, " dim"],
    coordinate: Array,
    span: Array,
    size: int,
) -> Below:
    """The share of a density along one coordinate through `x` that lies below x.

    If x has this density, normalised or not, it is uniform on [0, 1], whatever the other
    coordinates are.
    Nodes reach twice the `span` of the draws of this coordinate to either side of x: `size` even
    ones, and as many that come near to x at every scale.
    """
    near = np.geomspace(1e-6, 1, size // 2)
    even = np.linspace(0, 2, size // 2 + 1)[1:]
    side = np.unique(np.concatenate([near, even]))
    middle = len(side)
    offset = span * jnp.asarray(np.concatenate([-side[::-1], [0], side]), x.dtype)
    value = jax.vmap(lambda t: log_density(x.at[coordinate].add(t)))(offset)
    height = jnp.exp(value - jnp.max(value))

    def share(kept: np.ndarray) -> Array:
        area = _trapezoids(offset[kept], height[kept])
        return jnp.sum(area[: int(np.sum(kept < middle))]) / jnp.sum(area)

    every = np.arange(2 * middle + 1)
    fine = share(every)
    return Below(
        fine, jnp.abs(fine - share(every[middle % 2 :: 2])), jnp.max(value) - value[middle]
    )


def _trapezoids(node: Float[Array, " nodes"], height: Float[Array, " nodes"]) -> Array:
    """The areas between neighbouring nodes."""
    return 0.5 * jnp.diff(node) * (height[1:] + height[:-1])


def choose_coordinate(spread: Bool[Array, " dim"], uniform: Array) -> Array:
    """One of the coordinates that are spread, each as likely, from a uniform variate."""
    count = jnp.cumsum(spread)
    return jnp.argmax(count > uniform * count[-1])


class Mass(NamedTuple):
    """An estimate of an integral: its logarithm, its relative error, and the largest share of one
    draw, or of one piece, in it.
    """

    log_value: Float[Array, ""]
    error: Float[Array, ""]
    share: Float[Array, ""]

    @property
    def is_precise(self) -> bool:
        """Whether the error can be taken for that of a normal variate, and is small."""
        return bool(self.error < 0.05) and bool(self.share < 0.02)

    @property
    def is_judged(self) -> bool:
        """Whether it is known well enough for a verdict: precisely, or that it is no number."""
        log_value = float(self.log_value)
        return self.is_precise or math.isnan(log_value) or log_value == math.inf

    def fault(self, what: str) -> str | None:
        """Why the integral is not 1: by more than 6 standard errors (a chance of 2e-9) and 2 %."""
        log_value, error = float(self.log_value), float(self.error)
        if math.isnan(log_value):
            return f"{what} is NaN beside its draws: where nothing can be drawn it must be 0"
        if abs(log_value) < 1:
            value = math.exp(log_value)
            if abs(value - 1) <= 6 * error * value + 0.02:
                return None
            return f"{what} integrates to {value:.4g}, not to 1"
        return f"{what} integrates to e^{log_value:.4g}, not to 1"


_WIDER, _HEAVY = 1.2, 0.2


def proposals(
    random: np.random.Generator, count: int, dim: int
) -> Float64[np.ndarray, "count dim"]:
    """Draws for `mass_of`, from a density wider than the normal one: four in five of them normal,
    the others from Student's t with two degrees of freedom.
    """
    u = random.uniform(1e-9, 1 - 1e-9, (count, dim))
    heavy = (2 * u - 1) / np.sqrt(2 * u * (1 - u))
    normal = _WIDER * random.standard_normal((count, dim))
    return np.where(random.uniform(size=(count, 1)) < _HEAVY, heavy, normal)


def mass_of(
    log_density: LogDensity,
    draws: Float[Array, "draws dim"],
    spread: Bool[Array, " dim"],
    z: Float[Array, "count dim"],
) -> Mass:
    """The integral of a density over the coordinates that are `spread`, by the `proposals` z
    around the given draws of it.
    """
    mean = jnp.mean(draws, axis=0)
    std = jnp.where(spread, jnp.std(draws, axis=0), 1)
    x = jnp.where(spread, mean + std * z, mean)
    normal = -0.5 * jnp.square(z / _WIDER) - math.log(_WIDER * math.sqrt(2 * math.pi))
    heavy = -1.5 * jnp.log(2 + jnp.square(z))
    scale = jnp.log(std)
    normal, heavy = (jnp.sum(jnp.where(spread, e - scale, 0), axis=1) for e in (normal, heavy))
    proposal = jnp.logaddexp(normal + math.log1p(-_HEAVY), heavy + math.log(_HEAVY))
    log_weight = jax.vmap(log_density)(x) - proposal
    top = jnp.max(log_weight)
    weight = jnp.exp(log_weight - top)
    mean = jnp.mean(weight)
    error = jnp.std(weight) / math.sqrt(len(weight)) / mean
    return Mass(top + jnp.log(mean), error, 1 / jnp.sum(weight))


def mass_of_line(log_density: LogDensity, draws: Float[Array, "draws 1"]) -> Mass:
    """The integral of a density of one number by the trapezoid rule: between the draws, which are
    close together where there is mass, and between as many even places, which see what lies between
    hills. The error is the difference to half of these nodes. Where a density rises without bound,
    a piece of it has a large share of all.
    """
    low, high = jnp.min(draws), jnp.max(draws)
    even = jnp.linspace(2 * low - high, 2 * high - low, 2 * len(draws))
    node = jnp.sort(jnp.concatenate([draws[:, 0], even]))
    value = jax.vmap(log_density)(node[:, None])
    top = jnp.max(value)
    height = jnp.exp(value - top)
    pieces, twice = (_trapezoids(node[::every], height[::every]) for every in (1, 2))
    fine, coarse = jnp.sum(pieces), jnp.sum(twice)
    return Mass(top + jnp.log(fine), jnp.abs(fine - coarse) / fine, jnp.max(pieces) / fine)


class Cells(NamedTuple):
    """The share of each cell of a box in the mass of a density, and the logarithm of all of it."""

    share: Float[np.ndarray, " cells"]
    log_mass: float
    is_resolved: bool
    """Whether a rule of half as many points a side gives the same."""


def cells_of(
    log_density: Callable[[Array], Array],
    low: Float[np.ndarray, " dim"],
    high: Float[np.ndarray, " dim"],
    bins: int,
    parts: int,
) -> Cells:
    """Integrate a density over a box in one or two dimensions that is cut into `bins` cells a
    side, and over one three times as large, by the midpoint rule with `parts` points a cell's side.

    **Arguments:** `log_density`: of points [n, dim], together.
    """
    dim, size = len(low), bins * parts
    step = (high - low) / size
    axes = [a + (np.arange(-size, 2 * size) + 0.5) * h for a, h in zip(low, step, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, dim)
    value = np.asarray(log_density(jnp.asarray(grid, jnp.result_type(float))), np.float64)
    height = np.exp(value - value.max()).reshape([3 * size] * dim)
    whole = height.sum()
    coarse = height[(slice(0, None, 2),) * dim].sum() * 2**dim
    middle = height[(slice(size, 2 * size),) * dim].reshape([bins, parts] * dim)
    share = middle.sum(axis=tuple(range(1, 2 * dim, 2))).ravel() / whole
    log_mass = float(value.max() + np.log(whole) + np.sum(np.log(step)))
    return Cells(share, log_mass, bool(abs(coarse - whole) <= 1e-3 * whole))
