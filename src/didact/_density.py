"""What is wrong with a log-density, and where its mass lies, before anything is trained on it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ._checks import require
from ._constraints import Constraint, unconstrained_logdensity

LogDensity = Callable[[Float[Array, " n"]], Array]

# What JAX raises where a function needs the value of an array that is being traced.
_UNTRACEABLE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)
_PROBE_SCALES = np.repeat([0.1, 1.0, 10.0], [21, 22, 21])
_CENTRES = 3
_DIRECTIONS = 16
_MOST_AXES = 64
_RADII = 24
# Beyond the second, bounded coordinates are rounded to their bounds.
_FARTHEST_FREE, _FARTHEST_BOUNDED = 1e8, 80.0


class DensityReport(eqx.Module):
    """What `check_density` saw of a density that it lets pass."""

    support_share: float = eqx.field(static=True)
    """Share of the points tested where the density is not zero."""
    calls: int = eqx.field(static=True)
    """Number of points at which the density was computed."""


def check_density(logdensity_fn: Any, constraint: Constraint, key: PRNGKeyArray) -> DensityReport:
    r"""Find out whether a log-density can be sampled from, as far as that can be seen.

    The function is traced. Values and gradients are computed at 64 points z = s N(0, I), s from
    0.1 to 10. Then the density is followed along straight lines from random points: along each
    coordinate (at most 64 of them) and in random directions. By Fubini's theorem, also in polar
    coordinates, an integrable density falls faster than $r^{-m}$ on almost all of them, r being
    the distance and m the number of coordinates that the direction was drawn from; so
    log p + m log r must fall in the end.

    **Arguments:** `logdensity_fn`: position -> log p(position) up to a constant, a JAX function
    of one unbatched position; `constraint`: structure and bounds of the position.

    **Errors:** `ValueError`, in one line with the remedy, if the function raises, cannot be
    traced or differentiated, or returns anything but one real number; if at the points it is
    NaN, +inf, zero everywhere or a step function, or has a gradient that is not finite where
    the value is; if it does not fall along one of the lines.
    """
    if not callable(logdensity_fn):
        raise ValueError(
            f"logdensity_fn must be a function of a position, got {type(logdensity_fn).__name__}."
        )
    _check_result(logdensity_fn, constraint)
    points_key, lines_key = jax.random.split(key)
    support_share = _check_points(logdensity_fn, constraint, points_key)
    calls = _check_tails(logdensity_fn, constraint, lines_key)
    return DensityReport(support_share, len(_PROBE_SCALES) + calls)


def _check_result(logdensity_fn: Callable[..., Any], constraint: Constraint) -> None:
    """Trace the function and look at the type of what it returns."""
    z = jax.ShapeDtypeStruct((constraint.size,), jnp.result_type(float))
    position = jax.eval_shape(constraint.to_position, z)
    shapes = jax.tree.map(lambda leaf: leaf.shape, position)
    try:
        result = jax.eval_shape(logdensity_fn, position)
    except _UNTRACEABLE as error:
        raise ValueError(
            f"logdensity_fn cannot be traced by JAX ({_text(error)}): write it with jax.numpy, "
            "jax.scipy and jax.lax.cond; or wrap code of other libraries in jax.pure_callback, "
            "with its gradient by jax.custom_jvp."
        ) from error
    except Exception as error:
        raise ValueError(
            f"logdensity_fn raised {_text(error)}, for a position of shape {shapes}: if it takes "
            "another one, give its dim or template; else run it on one position to find the fault."
        ) from error
    if not isinstance(result, jax.ShapeDtypeStruct):
        kind = "nothing" if result is None else f"a {type(result).__name__}"
        raise ValueError(
            f"logdensity_fn must return one number, got {kind}: return the log-density alone."
        )
    if result.shape != ():
        raise ValueError(
            f"logdensity_fn must return one number, got an array of shape {result.shape}, for a "
            f"position of shape {shapes}: add its terms with jnp.sum, and write it for one "
            "position, not for a batch."
        )
    if not jnp.issubdtype(result.dtype, jnp.floating):
        raise ValueError(
            f"logdensity_fn must return a real number, got dtype {result.dtype}: compute the log-"
            "density in floating point (0.0, not 0), its real part if it is complex."
        )


def _check_points(
    logdensity_fn: Callable[..., Any], constraint: Constraint, key: PRNGKeyArray
) -> float:
    """Check values and gradients at random points; the share of them with p > 0."""
    normal = jax.random.normal(key, (len(_PROBE_SCALES), constraint.size))
    z = jnp.asarray(_PROBE_SCALES, normal.dtype)[:, None] * normal

    def own(z: Array) -> Array:
        return jnp.asarray(logdensity_fn(constraint.to_position(z))).astype(z.dtype)

    try:
        evaluated = jax.jit(jax.vmap(jax.value_and_grad(own)))(z)
        value, gradient = jax.device_get(evaluated)
    except Exception as error:
        raise ValueError(
            f"logdensity_fn cannot be differentiated and batched by JAX ({_text(error)}): give "
            "what it calls a jax.custom_jvp rule, and a jax.pure_callback its vmap_method."
        ) from error

    def at(where: np.ndarray) -> str:
        """The first of the points, near ones first, as a position."""
        return _place(constraint, z[int(np.argmax(where))])

    wrong = np.isnan(value) | np.isposinf(value)
    if wrong.any():
        raise ValueError(
            f"logdensity_fn is {value[wrong][0]} at {wrong.sum()} of {len(value)} points tested, "
            f"as at {at(wrong)}: if the parameters have limits, give bounds=(lower, upper); else "
            "mend logarithms, roots and quotients there."
        )
    finite = np.isfinite(value)
    if not finite.any():
        raise ValueError(
            f"logdensity_fn is -inf at all {len(value)} points tested, as at {at(~finite)}: say "
            "where its mass lies by bounds=(lower, upper)."
        )
    wrong = finite & ~np.isfinite(gradient).all(axis=1)
    if wrong.any():
        raise ValueError(
            f"the gradient of logdensity_fn is not finite at {wrong.sum()} of {len(value)} points "
            f"tested, as at {at(wrong)}, though the value is: inside jnp.where, give the branch "
            "that is not taken harmless arguments, too."
        )
    # A few levels may be meant; more of them come from rounding.
    if len(np.unique(value[finite])) > 3 and not gradient[finite].any():
        raise ValueError(
            "logdensity_fn changes in steps, with gradient 0 everywhere: take rounding, integer "
            "types and jax.lax.stop_gradient out of it."
        )
    return float(finite.mean())


def _check_tails(
    logdensity_fn: Callable[..., Any], constraint: Constraint, key: PRNGKeyArray
) -> int:
    """Follow the density along lines; the number of calls."""
    start, direction, dimension, radius = _lines(constraint, key)
    points = start[:, None] + radius[..., None] * direction[:, None]
    density = unconstrained_logdensity(logdensity_fn, constraint)
    values = np.asarray(jax.jit(jax.vmap(jax.vmap(density)))(jnp.asarray(points)))
    heights = values + dimension[:, None] * np.log(radius)
    for line, height in enumerate(heights):
        # Values that overflowed say nothing; those before them do.
        known = int(np.argmax(np.append(np.isnan(height) | np.isposinf(height), True)))
        if _falls(height[:known]):
            continue
        ends = [known // 2, known - 1]
        (axes,) = np.nonzero(direction[line])
        raise ValueError(
            "logdensity_fn does not seem to be integrable: it does not fall, but goes from "
            + " to ".join(
                f"{values[line, i]:.4g} at {_place(constraint, points[line, i], axes)}"
                for i in ends
            )
            + ("" if constraint.is_free()[axes].all() else " (with the Jacobian of its bounds)")
            + ": give bounds=(lower, upper), or add a prior."
        )
    return values.size


def _lines(
    constraint: Constraint, key: PRNGKeyArray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Starts [L, n], directions [L, n], dimensions m [L] and radii [L, R] of the lines.

    Coordinates that stand for bounded ones are not followed as far, too near for log r to be
    told from the slow fall of a proper density: for them m = 0, a weaker demand.
    """
    n, free = constraint.size, constraint.is_free()
    rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))
    axes = rng.permutation(n)[:_MOST_AXES]
    unit = np.eye(n)[axes]
    directions, dimensions = [unit, -unit], [free[axes], free[axes]]
    for group in (free, ~free):
        if group.sum() > 1:
            random = rng.normal(size=(_DIRECTIONS, n)) * group
            directions.append(random / np.abs(random).max(axis=1, keepdims=True))
            dimensions.append(np.full(_DIRECTIONS, group.sum() * group[free].any()))
    direction = np.tile(np.concatenate(directions), (_CENTRES, 1))
    dimension = np.tile(np.concatenate(dimensions), _CENTRES)
    start = np.repeat(rng.normal(size=(_CENTRES, n)), len(direction) // _CENTRES, axis=0)
    farthest = np.where(dimension > 0, _FARTHEST_FREE, _FARTHEST_BOUNDED)
    radius = np.geomspace(10, farthest, _RADII, axis=1)
    dtype = jnp.result_type(float)
    return start.astype(dtype), direction.astype(dtype), dimension, radius.astype(dtype)


def _falls(height: np.ndarray) -> bool:
    """Whether log p + m log r falls in the end, along one line."""
    quarter = len(height) // 4
    if quarter == 0:
        return True  # nothing is known
    # The largest of several, because the density may oscillate.
    last, before = height[-quarter:].max(), height[-3 * quarter : -quarter].max()
    if np.isneginf(last) or last < height[0] - 1000:  # as good as zero, though it be floored
        return True
    rounding = 1e-3 + 4 * np.finfo(height.dtype).eps * abs(last)
    return bool(last < before - rounding)


def _place(constraint: Constraint, z: Array | np.ndarray, axes: np.ndarray | None = None) -> str:
    """A position in few characters; the one entry that moves along an axis, if it is one."""
    leaves = jax.tree.leaves(constraint.to_position(jnp.asarray(z)))
    if axes is not None and len(axes) == 1:
        name = constraint.coordinate_names()[axes[0]]
        flat = np.concatenate([np.ravel(leaf) for leaf in leaves])
        return f"{name} = {flat[constraint.names().index(name)]:.4g}"
    with np.printoptions(precision=3, threshold=6, edgeitems=2):
        shown = [" ".join(str(np.asarray(leaf)).split()) for leaf in leaves]
    names = [leaf.name for leaf in constraint.leaves]
    return ", ".join(f"{name} = {text}" for name, text in zip(names, shown, strict=True))


def _text(error: Exception) -> str:
    """Type and first line of an exception."""
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first[:200].rstrip('.')}"


class Survey(eqx.Module):
    """Where the mass of an unconstrained density lies, as `find_scale` found it."""

    location: Float[Array, " n"]
    scale: Float[Array, " n"]
    """z = location + scale u puts the bulk of the mass at |u| of 1 to 3."""
    population: Float[Array, "m n"]
    """Points from all modes found: nearly draws within each, the lesser modes over-represented."""
    log_density: Float[Array, " m"]
    log_z: Float[Array, ""]
    """Rough estimate of log of the integral of the density; too low where mass was not found."""
    converged: Bool[Array, ""]
    """Whether the search reached the density itself, and not only a flattened form of it."""
    calls: Int[Array, ""]
    """Number of points at which the density, or its gradient too, was computed."""


def find_scale(
    logdensity_fn: LogDensity, dim: int, key: PRNGKeyArray, *, particles: int = 256
) -> Survey:
    r"""Find location and scale of each coordinate of a density on R^n, and all modes in reach.

    1. *Climb.* From 48 points at distances of 1e-3 to 1e3 the density is climbed by steps whose
       size is adapted to each coordinate apart (Rprop), and at the ends the width of each
       coordinate measured: the distance at which log p has fallen by 1/2.
    2. *Anneal.* A sequential Monte Carlo sampler goes from a reference q to p along
       $q^{1-\beta} p^{\beta}$. q is a mixture of broad and narrow normals at the origin, of equal
       mass for equal ratios of scale, and of normals at the ends of the climbs. So a density of
       any scale and the modes that were climbed are covered from the start, while an end that is
       sharp and high but of little mass (the neck of a funnel) loses its points to the rest.
       The kernels are MALA steps, preconditioned by the gradients' second moments, and redraws of
       some of the coordinates from q. Points are resampled by a power of their weights, so that
       modes are not lost by chance.

    Location and scale are those of the quantiles at 5 % and 95 % of a normal; but no smaller than
    puts those at 1 % and 99 % at |u| = 4. In float32 a scale much below 1e-6 of its location
    cannot be resolved: shift the parameter.

    **Arguments:** `logdensity_fn`: z [n] -> log p(z), which may be -inf; `dim`: n; `particles`:
    size of the population. Memory grows as particles · n, for n <= 256 also as n².

    **Errors:** `ValueError` for dim < 1 or particles < 16, or if p = 0 wherever it was computed.

    References: Riedmiller and Braun (1993), "A direct adaptive method for faster backpropagation
    learning"; Del Moral, Doucet and Jasra (2006), "Sequential Monte Carlo samplers"; Titsias
    (2023), "Optimal preconditioning and Fisher adaptive Langevin sampling".
    """
    require("dim", dim, at_least=1)
    require("particles", particles, at_least=16)
    survey = _search(logdensity_fn, dim, key, particles)
    if not np.isfinite(survey.log_density).all():
        raise ValueError(
            "no point was found where the density is more than zero: say where its mass lies by "
            "bounds=(lower, upper), or shift and scale the parameters."
        )
    return survey


_CLIMBERS = 48
_CLIMB_STEPS = 150
_WIDTH_STEPS = 9
_DECADES = np.arange(-3, 3.6, 0.5)
_DRAWS = 16
"""Draws from the reference for each particle, of which the first are selected."""
_MOVES = 8
"""Steps of the kernels at each temperature, half of them redraws."""
_ROUND = 64
"""Steps at beta = 1 after which it is asked whether location and scale still change."""
_MOST_ROUNDS = 8
_MOST_STEPS = 2000
_SOFTNESS = 0.3
"""Points are resampled by this power of their weights: 1 is the usual, 0 never."""
_HOPELESS = 10.0
_FULL_MATRIX = 256


@eqx.filter_jit
def _search(logdensity_fn: LogDensity, dim: int, key: PRNGKeyArray, particles: int) -> Survey:
    # The default generator takes seconds to compile.
    seed = jax.random.bits(key, (4,), jnp.uint32)
    climb_key, anneal_key = jax.random.split(jax.random.wrap_key_data(seed, impl="rbg"))
    reference = _climb(logdensity_fn, dim, climb_key)
    state = _anneal(logdensity_fn, reference, anneal_key, particles)
    z, value = _without_hopeless(state.points.z, state.points.value, state.log_weight)
    location, scale = _spread(z)
    calls = _CLIMBERS * (_CLIMB_STEPS + 1 + 2 * _WIDTH_STEPS * dim) + _DRAWS * particles
    return Survey(
        location=location,
        scale=scale,
        population=z,
        log_density=value,
        log_z=_log_mean_exp(state.log_weight),
        converged=state.beta == 1,
        calls=calls + particles * state.step,
    )


class _Mixture(eqx.Module):
    """A mixture of normals with equal weights and diagonal covariances."""

    mean: Float[Array, "k n"]
    std: Float[Array, "k n"]

    def from_noise(
        self, normal: Float[Array, "m n"], uniform: Float[Array, ""]
    ) -> Float[Array, "m n"]:
        """Draws, spread evenly over the components, so that none is missed."""
        first = (uniform * len(self.mean)).astype(int)
        which = (first + jnp.arange(len(normal))) % len(self.mean)
        return self.mean[which] + self.std[which] * normal

    def log_prob(
        self, z: Float[Array, " n"], coordinates: Bool[Array, " n"] | bool = True
    ) -> Float[Array, ""]:
        """Log-density of all coordinates of z, or of some of them."""
        parts = jax.scipy.stats.norm.logpdf(z, self.mean, self.std)
        return _log_mean_exp(jnp.sum(parts, axis=1, where=coordinates))


class _Points(eqx.Module):
    """Points, with logs and gradients of density and reference."""

    z: Float[Array, "m n"]
    value: Float[Array, " m"]
    gradient: Float[Array, "m n"]
    reference: Float[Array, " m"]
    reference_gradient: Float[Array, "m n"]


class _State(eqx.Module):
    """What the annealing carries."""

    points: _Points
    log_weight: Float[Array, " m"]
    beta: Float[Array, ""]
    step_size: Float[Array, ""]
    step: Int[Array, ""]
    at_one: Int[Array, ""]
    """Steps at beta = 1."""
    location: Float[Array, " n"]
    scale: Float[Array, " n"]
    settled: Bool[Array, ""]
    """Whether these two, taken every `_ROUND` steps, have ceased to change."""
    key: PRNGKeyArray


def _evaluate(
    function: LogDensity, z: Float[Array, "m n"]
) -> tuple[Float[Array, " m"], Float[Array, "m n"]]:
    """Values and gradients; -inf and 0 where they are no numbers."""
    value, gradient = jax.vmap(jax.value_and_grad(function))(z)
    known = jnp.isfinite(value)
    # What is not finite must not reach the gradients: the points do not get there.
    gradient = jnp.where(known[:, None] & jnp.isfinite(gradient), gradient, 0)
    return jnp.where(known, value, -jnp.inf), gradient


def _climb(logdensity_fn: LogDensity, dim: int, key: PRNGKeyArray) -> _Mixture:
    """The reference of the annealing: broad normals, and normals at the ends of climbs."""
    distances = jnp.asarray(10.0**_DECADES, jnp.result_type(float))
    start = jnp.resize(distances, (_CLIMBERS, 1))
    z = start * jax.random.normal(key, (_CLIMBERS, dim))

    def step(carry: tuple[Array, ...], _: None) -> tuple[tuple[Array, ...], None]:
        z, size, slope, best, best_value = carry
        value, gradient = _evaluate(logdensity_fn, z)
        better = value > best_value
        best = jnp.where(better[:, None], z, best)
        best_value = jnp.where(better, value, best_value)
        agree = jnp.sign(gradient) * slope
        size = size * jnp.where(agree > 0, 1.4, jnp.where(agree < 0, 0.5, 1.0))
        ahead = z + size * jnp.sign(gradient)
        # Where there is no density, back towards the best point, or the origin.
        back = best + 0.5 * (z - best)
        z = jnp.where(jnp.isfinite(value)[:, None], ahead, back)
        return (z, size, jnp.sign(gradient), best, best_value), None

    nowhere = jnp.full(_CLIMBERS, -jnp.inf, z.dtype)
    carry = (z, 0.1 * jnp.broadcast_to(start, z.shape), jnp.zeros_like(z), 0 * z, nowhere)
    (*_, ends, _), _ = jax.lax.scan(step, carry, length=_CLIMB_STEPS)
    widths = jax.lax.map(lambda end: _widths(logdensity_fn, end), ends)
    broad = distances[:, None] * jnp.ones(dim, z.dtype)
    spread = jnp.sqrt(jnp.var(ends, axis=0) + jnp.mean(widths**2, axis=0))
    between = jnp.resize(jnp.asarray([0.5, 1.0, 2.0, 4.0], z.dtype), (16, 1)) * spread
    centre = jnp.broadcast_to(jnp.mean(ends, axis=0), between.shape)
    return _Mixture(
        jnp.concatenate([jnp.zeros_like(broad), centre, ends]),
        jnp.concatenate([broad, between, 1.5 * widths]),
    )


def _widths(logdensity_fn: LogDensity, z: Float[Array, " n"]) -> Float[Array, " n"]:
    """Distance along each coordinate at which log p has fallen by 1/2, as a mean of both sides."""
    value = logdensity_fn(z)

    def halve(bounds: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        low, high = bounds
        middle = 0.5 * (low + high)
        offset = jnp.diag(jnp.exp(middle))
        sides = jax.vmap(logdensity_fn)(jnp.concatenate([z + offset, z - offset]))
        fallen = ~(value - jnp.mean(sides.reshape(2, -1), axis=0) < 0.5)
        return (jnp.where(fallen, low, middle), jnp.where(fallen, middle, high)), None

    # Not below what floating-point numbers at z resolve.
    least = jnp.log(1e-6 * jnp.maximum(jnp.abs(z), 1e-1))
    bounds = (least, jnp.full_like(z, np.log(1e5)))
    (low, high), _ = jax.lax.scan(halve, bounds, length=_WIDTH_STEPS)
    return jnp.exp(0.5 * (low + high))


def _anneal(
    logdensity_fn: LogDensity, reference: _Mixture, key: PRNGKeyArray, particles: int
) -> _State:
    """Points that go from the reference to the density, weighted.

    With weights w and resampling by w^s the new weights are w^(1-s): the points stand for the
    same law, and the mean of the weights still estimates the integral.
    """
    normal_key, select_key, key = jax.random.split(key, 3)
    normal = jax.random.normal(normal_key, (_DRAWS * particles, reference.mean.shape[1]))
    drawn = reference.from_noise(normal, jnp.zeros(()))
    value = jax.vmap(logdensity_fn)(drawn)
    value = jnp.where(jnp.isfinite(value), value, -jnp.inf)
    ratio = value - jax.vmap(reference.log_prob)(drawn)
    possible = jnp.minimum(particles, 0.5 * jnp.sum(jnp.isfinite(ratio)))
    beta, gain = _next_beta(jnp.zeros(()), ratio, possible)
    chosen = _resample(select_key, gain, particles)
    z, nothing = drawn[chosen], jnp.zeros((particles, drawn.shape[1]), drawn.dtype)
    state = _State(
        # Filled in by the first step.
        points=_Points(z, nothing[:, 0] - jnp.inf, nothing, nothing[:, 0], nothing),
        log_weight=jnp.full(particles, _log_mean_exp(gain)),
        beta=beta,
        step_size=jnp.ones(()),
        step=jnp.zeros((), int),
        at_one=jnp.zeros((), int),
        location=nothing[0],
        scale=nothing[0],
        settled=jnp.zeros((), bool),
        key=key,
    )

    def running(state: _State) -> Bool[Array, ""]:
        alive = jnp.any(jnp.isfinite(state.log_weight))
        return (state.step < _MOST_STEPS) & ~state.settled & alive

    def advance(state: _State) -> _State:
        temper = (state.step % _MOVES == 0) & (state.step > 0) & (state.beta < 1)
        ask = (state.at_one % _ROUND == 0) & (state.beta == 1)
        which = jnp.where(temper, 1, jnp.where(ask, 2, 0))
        state = jax.lax.switch(which, (lambda state: state, _cool, _settle), state)
        return _move(logdensity_fn, reference, state)

    return jax.lax.while_loop(running, advance, state)


def _cool(state: _State) -> _State:
    """Raise beta as far as half of the points keep their weight, and resample."""
    key, select_key = jax.random.split(state.key)
    points = state.points
    count = len(state.log_weight)
    beta, gain = _next_beta(state.beta, points.value - points.reference, count / 2)
    log_weight = state.log_weight + gain
    score = _SOFTNESS * log_weight
    chosen = _resample(select_key, score, count)
    return dataclasses.replace(
        state,
        points=jax.tree.map(lambda leaf: leaf[chosen], points),
        log_weight=(log_weight - score)[chosen] + _log_mean_exp(score),
        beta=beta,
        key=key,
    )


def _settle(state: _State) -> _State:
    """Compare location and scale of the population with what they were."""
    location, scale = _spread(state.points.z)
    moved = jnp.abs(location - state.location) / scale
    grown = jnp.abs(jnp.log(scale / state.scale))
    still = jnp.all((moved < 0.4) & (grown < 0.4)) | (state.at_one >= _MOST_ROUNDS * _ROUND)
    return dataclasses.replace(
        state, location=location, scale=scale, settled=(state.at_one > 0) & still
    )


def _move(logdensity_fn: LogDensity, reference: _Mixture, state: _State) -> _State:
    """One step of MALA, or every other time a redraw of some coordinates from the reference.

    Both leave the tempered density as it is. Redraws go from mode to mode, and to combinations
    of the coordinates of several.
    """
    points, beta, step = state.points, state.beta, state.step
    m, n = points.z.shape
    key, normal_key, uniform_key = jax.random.split(state.key, 3)
    normal = jax.random.normal(normal_key, (m, n), points.z.dtype)
    uniform = jax.random.uniform(uniform_key, (m, n + 3), points.z.dtype)
    redraw, first = step % 2 == 1, step == 0

    # Each point's step size is drawn apart: no single one suits a funnel.
    root = _root(points, beta)
    size = state.step_size * 10 ** (1.5 * uniform[:, :1] - 1)
    drift = _drift(root, size, points, beta)
    moved = points.z + drift + size * root.apply(normal)

    # Few coordinates or all of them.
    chosen = uniform[:, :n] < uniform[:, n : n + 1] ** 2
    redrawn = jnp.where(chosen, reference.from_noise(normal, uniform[0, n + 1]), points.z)

    z = jnp.where(first, points.z, jnp.where(redraw, redrawn, moved))
    value, gradient = _evaluate(logdensity_fn, z)
    ref_value, ref_gradient = _evaluate(reference.log_prob, z)
    proposed = _Points(z, value, gradient, ref_value, ref_gradient)

    gain = _tempered(beta, value, ref_value) - _tempered(beta, points.value, points.reference)
    back = points.z - z - _drift(root, size, proposed, beta)
    by_move = -0.5 * jnp.sum((root.solve(back) / size) ** 2 - normal**2, axis=1)
    log_q = jax.vmap(reference.log_prob)
    by_redraw = log_q(points.z, chosen) - log_q(z, chosen)
    log_accept = gain + jnp.where(redraw, by_redraw, by_move)
    log_accept = jnp.where(jnp.isnan(log_accept), -jnp.inf, log_accept)
    accept = first | (jnp.log(uniform[:, -1]) < log_accept)

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(accept.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    rate = jnp.mean(jnp.exp(jnp.minimum(log_accept, 0)))
    adapted = jnp.clip(state.step_size * jnp.exp(0.5 * (rate - 0.5)), 1e-3, 3.0)
    return dataclasses.replace(
        state,
        points=jax.tree.map(choose, proposed, points),
        step_size=jnp.where(first | redraw, state.step_size, adapted),
        step=step + 1,
        at_one=state.at_one + (beta == 1),
        key=key,
    )


class _Root(eqx.Module):
    """A square root of MALA's preconditioner: scales, and correlations where n allows."""

    scale: Float[Array, " n"]
    cholesky: Float[Array, "n n"] | None
    """Of the precision, in units of the scales."""

    def apply(self, x: Float[Array, "m n"]) -> Float[Array, "m n"]:
        return self.scale * self._triangular(x, transposed=True, inverse=True)

    def apply_transposed(self, x: Float[Array, "m n"]) -> Float[Array, "m n"]:
        return self._triangular(self.scale * x, transposed=False, inverse=True)

    def solve(self, x: Float[Array, "m n"]) -> Float[Array, "m n"]:
        return self._triangular(x / self.scale, transposed=True, inverse=False)

    def _triangular(self, x: Array, *, transposed: bool, inverse: bool) -> Array:
        if self.cholesky is None:
            return x
        if inverse:
            solve = jax.scipy.linalg.solve_triangular
            return solve(self.cholesky, x.T, lower=True, trans=int(transposed)).T
        return x @ self.cholesky if transposed else x @ self.cholesky.T


def _root(points: _Points, beta: Float[Array, ""]) -> _Root:
    """The inverse of the gradients' second moments, no wider than the population itself."""
    gradient = _tempered(beta, points.gradient, points.reference_gradient)
    width = jnp.std(points.z, axis=0)
    resolved = 1e-6 * jnp.max(jnp.abs(points.z), axis=0) + jnp.finfo(width.dtype).tiny
    width = jnp.maximum(width, resolved)
    # Medians, because a few points far out have gradients of another order.
    typical = jnp.median(jnp.abs(gradient), axis=0) / 0.6745
    scale = jnp.maximum(jnp.minimum(width, 1 / jnp.maximum(typical, 1e-30)), resolved)
    if width.size > _FULL_MATRIX:
        return _Root(scale, None)
    scaled = jnp.clip(scale * gradient, -3, 3)
    precision = scaled.T @ scaled / len(scaled) + jnp.diag((scale / width) ** 2 + 1e-5)
    return _Root(scale, jnp.linalg.cholesky(precision))


def _drift(root: _Root, size: Array, points: _Points, beta: Float[Array, ""]) -> Array:
    """The drift of MALA, bounded so that points far out are not thrown across."""
    gradient = _tempered(beta, points.gradient, points.reference_gradient)
    return 0.5 * size**2 * root.apply(jnp.clip(root.apply_transposed(gradient), -3, 3))


def _tempered(beta: Float[Array, ""], density: Array, reference: Array) -> Array:
    """Of log q^(1-beta) p^beta, its value or gradient."""
    return jnp.where(beta == 1, density, (1 - beta) * reference + beta * density)


def _next_beta(
    beta: Float[Array, ""], ratio: Float[Array, " m"], least: Float[Array, ""] | float
) -> tuple[Float[Array, ""], Float[Array, " m"]]:
    """The largest beta that leaves an effective sample of `least`, and the gains in log weight."""
    ratio = jnp.where(jnp.isfinite(ratio), ratio, -jnp.inf)
    centred = ratio - jnp.max(ratio)

    def enough(step: Array) -> Array:
        weight = jax.nn.softmax(step * centred)
        return 1 / jnp.sum(weight**2) >= least

    def halve(bounds: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        low, high = bounds
        middle = 0.5 * (low + high)
        good = enough(jnp.exp(middle))
        return (jnp.where(good, middle, low), jnp.where(good, high, middle)), None

    bounds = (jnp.full((), -80.0, beta.dtype), jnp.log(jnp.maximum(1 - beta, 1e-30)))
    (low, _), _ = jax.lax.scan(halve, bounds, length=30)
    whole = enough(1 - beta)
    step = jnp.where(whole, 1 - beta, jnp.exp(low))
    return jnp.where(whole, 1, beta + step), step * ratio


def _resample(
    key: PRNGKeyArray, log_weight: Float[Array, " m"], number: int
) -> Int[Array, " number"]:
    """Systematic resampling."""
    cumulative = jnp.cumsum(jax.nn.softmax(log_weight))
    at = (jnp.arange(number) + jax.random.uniform(key)) / number * cumulative[-1]
    below = jnp.sum(cumulative[None] < at[:, None], axis=1)
    return jnp.minimum(below, len(log_weight) - 1)


def _log_mean_exp(x: Float[Array, " m"]) -> Float[Array, ""]:
    return jax.nn.logsumexp(x) - np.log(len(x))


def _without_hopeless(z: Array, value: Array, log_weight: Array) -> tuple[Array, Array]:
    """The points, those of negligible weight or without density replaced by others."""
    hope = (log_weight > _log_mean_exp(log_weight) - _HOPELESS) & jnp.isfinite(value)
    order = jnp.argsort(~hope, stable=True)
    chosen = order[jnp.arange(len(order)) % jnp.maximum(jnp.sum(hope), 1)]
    return z[chosen], value[chosen]


def _spread(z: Float[Array, "m n"]) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Location and scale of a population."""
    lowest, low, high, highest = jnp.quantile(z, jnp.asarray([0.01, 0.05, 0.95, 0.99]), axis=0)
    location = 0.5 * (low + high)
    farthest = jnp.maximum(highest - location, location - lowest)
    scale = jnp.maximum((high - low) / (2 * 1.645), farthest / 4)
    return location, jnp.maximum(scale, 1e-6 * jnp.abs(location) + jnp.finfo(scale.dtype).tiny)
