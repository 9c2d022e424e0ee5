r"""The discretisation floor: how near to log Z a diffusion sampler of T Gaussian steps can come.

However well its networks are trained, a sampler whose steps are Gaussian cannot follow the exact
time reversal of the noising process, whose steps are not: bounds on log Z keep a gap that only
more steps, another noise level or a learned variance make smaller.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float64

_REACH = 8.0  # grids end this many standard deviations beyond the bounds: a mass of 1e-15
_TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class Floor:
    """The bounds of the best Gaussian sampler, relative to log Z, in nats: elbo <= 0 <= eubo.

    Floors of independent coordinates add: `first + second`, `16 * pair`.
    """

    elbo: float
    eubo: float

    def __add__(self, other: "Floor") -> "Floor":
        return Floor(self.elbo + other.elbo, self.eubo + other.eubo)

    def __mul__(self, copies: int) -> "Floor":
        return Floor(copies * self.elbo, copies * self.eubo)

    __rmul__ = __mul__


def discretisation_floor(
    log_density: Callable[[Float64[np.ndarray, " x"]], Float64[np.ndarray, " x"]],
    decay: Float[np.ndarray, " T"],
    variance: Float[np.ndarray, " T"],
    *,
    bounds: tuple[float, float],
    learned_variance: bool = False,
    points: int = 800,
) -> Floor:
    r"""ELBO and EUBO, less log Z, of the best sampler with Gaussian steps, in one dimension.

    The reference process is $s_{i+1} = a_i s_i + \sqrt{q_i}\,\xi$ from $s_0 = 0$, with variances
    $v_0 = 0$, $v_{i+1} = a_i^2 v_i + q_i$; P_B is its exact conditional,
    $s_i \mid s_{i+1} \sim N(a_i v_i s_{i+1}/v_{i+1},\, v_i q_i/v_{i+1})$. The sampler's step from s
    is $N(m_i(s), \sigma_i^2(s))$: $m_i$ is the mean of $s_{i+1}$ given $s_i$ where paths are drawn
    backwards from the target, $\sigma_i^2$ is $q_i$ or, with `learned_variance`, the variance of
    $s_{i+1}$ given $s_i$. No Gaussian steps have a lower EUBO; the ELBO is that of the same
    sampler, and steps chosen for it could have a slightly higher one.

    Where paths are drawn from the target, their law is that of the reference process, changed by
    a function of the end alone. So both bounds are expectations of one sum,

    $$\log\frac{p(s_T)}{N(s_T; 0, v_T)} + \sum_{i<T} c_i(s_i), \qquad
    c_i(s) = \tfrac12\log\frac{\sigma_i^2}{q_i} + \tfrac12
    - \frac{\sigma_i^2 + (m_i(s) - a_i s)^2}{2 q_i},$$

    over the target's paths (EUBO - log Z) and over the sampler's (ELBO - log Z). All laws are
    kept on grids and integrated by the trapezoid rule, whose error falls exponentially for such
    smooth functions. 100 steps with 800 points take a few seconds.

    For a target that is a product of densities add the floors of its coordinates.

    **Arguments:** `log_density` of the target, up to a constant, on an array of x; `decay` [T]
    $a_i > 0$; `variance` [T] $q_i > 0$ (Brownian motion: 1 and σ²dt); `bounds` within which the
    target has all its mass; `points` of each grid.

    **Errors:** `ValueError` where the bounds cut off mass, the grids are too coarse, or the
    arguments make no process.
    """
    a, q = np.asarray(decay, np.float64), np.asarray(variance, np.float64)
    if not len(a) or not np.all(a > 0) or not np.all(q > 0):
        raise ValueError("decay and variance must be positive, and there must be a step.")
    T = len(a)
    v = np.zeros(T + 1)  # marginal variances of the reference process
    for i in range(T):
        v[i + 1] = a[i] ** 2 * v[i] + q[i]
    A = np.append(np.cumprod(a[::-1])[::-1], 1.0)  # decay, from each step to the end
    w = v[T] - A**2 * v  # variance of the end, given the state at each step
    w[T] = 0.0

    x, log_p = _target(log_density, bounds, points)
    dx = float(x[1] - x[0])
    _check_resolution(dx, v, w, A, points)
    log_ratio = log_p + 0.5 * np.log(2 * np.pi * v[T]) + x**2 / (2 * v[T])
    eubo = float(np.exp(log_p) @ log_ratio) * dx
    elbo = 0.0

    s = np.zeros(1)
    of_target, of_sampler = np.ones(1), np.ones(1)  # probabilities on the grid s
    mean, spread = s, s  # replaced by those of a step before they are used
    for i in range(T):
        if i == 0:
            end_mean, end_variance, _ = _end_given(s, x, log_p, 0.0, 1.0)
        else:
            shrink, noise = v[i] * A[i] / v[T], v[i] * w[i] / v[T]
            margin = _REACH * math.sqrt(noise)
            s = np.linspace(shrink * x[0] - margin, shrink * x[-1] + margin, points)
            end_mean, end_variance, density = _end_given(s, x, log_p, shrink, noise)
            of_target = density * dx * (s[1] - s[0])
            of_sampler = _push(of_sampler, mean, spread, s)
            _check_mass(of_target, of_sampler)
        # Given the end, s_{i+1} is on a bridge: a part `gain` of the way that is left is made up.
        gain = q[i] * A[i + 1] / w[i]
        mean = a[i] * s + gain * (end_mean - A[i] * s)
        spread = np.full_like(s, q[i])
        if learned_variance:
            spread = q[i] * w[i + 1] / w[i] + gain**2 * end_variance
        c = 0.5 * np.log(spread / q[i]) + 0.5 - (spread + (mean - a[i] * s) ** 2) / (2 * q[i])
        eubo += float(of_target @ c)
        elbo += float(of_sampler @ c)
    of_sampler = _push(of_sampler, mean, spread, x)
    _check_mass(of_sampler)
    return Floor(elbo + float(of_sampler @ log_ratio), eubo)


def _target(
    log_density: Callable[[Float64[np.ndarray, " x"]], Float64[np.ndarray, " x"]],
    bounds: tuple[float, float],
    points: int,
) -> tuple[Float64[np.ndarray, " x"], Float64[np.ndarray, " x"]]:
    """The grid of the target and its normalised log density there."""
    low, high = bounds
    if not low < high or points < 2:
        raise ValueError(f"bounds = {bounds}, points = {points}: give low < high, and points > 1.")
    x = np.linspace(low, high, points)
    log_p = np.asarray(log_density(x), np.float64)
    if not np.all(np.isfinite(log_p)):
        bad = float(x[int(np.argmin(np.isfinite(log_p)))])
        raise ValueError(f"log_density is not finite at x = {bad}: narrow the bounds.")
    log_p = log_p - log_p.max()
    log_p -= math.log(float(np.exp(log_p).sum()) * (x[1] - x[0]))
    edge = float(np.exp(max(log_p[0], log_p[-1]))) * (high - low)
    if edge > _TOLERANCE:
        raise ValueError(f"The target has mass beyond its bounds {bounds}: widen them.")
    return x, log_p


def _end_given(
    s: Float64[np.ndarray, " s"],
    x: Float64[np.ndarray, " x"],
    log_p: Float64[np.ndarray, " x"],
    shrink: float,
    noise: float,
) -> tuple[Float64[np.ndarray, " s"], Float64[np.ndarray, " s"], Float64[np.ndarray, " s"]]:
    """Mean and variance of the end x given a state s ~ N(shrink x, noise), and the density of s
    divided by the spacing of x.
    """
    joint = log_p - (s[:, None] - shrink * x) ** 2 / (2 * noise)
    top = joint.max(1)
    joint = np.exp(joint - top[:, None])
    total = joint.sum(1)
    mean = joint @ x / total
    variance = np.einsum("sx,sx->s", joint, (x - mean[:, None]) ** 2) / total
    return mean, variance, total * np.exp(top) / math.sqrt(2 * math.pi * noise)


def _push(
    probability: Float64[np.ndarray, " s"],
    mean: Float64[np.ndarray, " s"],
    spread: Float64[np.ndarray, " s"],
    to: Float64[np.ndarray, " new"],
) -> Float64[np.ndarray, " new"]:
    """Probabilities on the next grid, after steps N(mean, spread) from the points of this one."""
    kernel = np.exp(-((to[:, None] - mean) ** 2) / (2 * spread))
    return kernel @ (probability / np.sqrt(2 * np.pi * spread)) * (to[1] - to[0])


def _check_resolution(
    dx: float,
    v: Float64[np.ndarray, " states"],
    w: Float64[np.ndarray, " states"],
    A: Float64[np.ndarray, " states"],
    points: int,
) -> None:
    """The trapezoid rule is exact to 1e-9 for a Gaussian at this many points to the deviation."""
    if len(v) == 2:  # one step: no state lies between
        return
    narrowest = math.sqrt(float(np.min(v[-1] * w[1:-1] / (v[1:-1] * A[1:-1] ** 2))))
    if dx > 0.7 * narrowest:
        need = math.ceil(points * dx / (0.7 * narrowest))
        raise ValueError(f"{points} points are too few for these steps: give {need} or more.")


def _check_mass(*laws: Float64[np.ndarray, " s"]) -> None:
    for law in laws:
        if abs(float(law.sum()) - 1) > _TOLERANCE:
            raise ValueError(
                f"A law on the grid has mass {float(law.sum()):.9f}: give more points, or wider "
                "bounds where the sampler leaves them."
            )


__all__ = ["Floor", "discretisation_floor"]
