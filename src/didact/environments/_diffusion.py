"""Diffusion: walks in R^dim by Gaussian steps, from a fixed source to an object at time 1."""

import abc
import functools
import itertools
import math
import operator
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64, Int

from .._checks import require
from .._kernels import Gaussian
from .._types import Environment

_BACKWARD_RANGE = 0.1


class Process(eqx.Module):
    r"""A Gaussian reference process, by which objects are noised.

    $$s_0 = 0, \qquad s_{i+1} = a_i s_i + \sqrt{q_i}\,\xi_i, \qquad \xi_i \sim N(0, I)$$
    """

    sigma: eqx.AbstractVar[float]
    """Scale of the process: the standard deviation of s_T for the processes here."""

    @abc.abstractmethod
    def coefficients(
        self, times: Float64[np.ndarray, " nodes"]
    ) -> tuple[Float64[np.ndarray, " steps"], Float64[np.ndarray, " steps"]]:
        """a_i and q_i > 0 of each step between the `times`, which lead from 0 to 1."""


class Brownian(Process):
    r"""Brownian motion from 0: $a = 1$, $q = \sigma^2\,dt$.

    **Arguments:** `sigma` > 0: standard deviation at time 1 (the paper: 1, and √5 on 25GMM).
    """

    sigma: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        require("sigma", self.sigma, above=0)

    def coefficients(
        self, times: Float64[np.ndarray, " nodes"]
    ) -> tuple[Float64[np.ndarray, " steps"], Float64[np.ndarray, " steps"]]:
        """a_i and q_i."""
        dt = np.diff(times)
        return np.ones_like(dt), self.sigma**2 * dt


class VariancePreserving(Process):
    r"""The stationary Ornstein–Uhlenbeck process: the first edge draws from N(0, σ² I), and the
    others keep that law.

    $$a_i = e^{-\frac12\int\beta}, \qquad q_i = \sigma^2 (1 - a_i^2)$$

    with β falling linearly from `beta_max` at time 0 to `beta_min` at time 1 (Song et al., 2021,
    in the direction of generation).

    **Arguments:** `sigma` > 0: the standard deviation at every time; 0 < `beta_min` <= `beta_max`.
    """

    sigma: float = eqx.field(static=True, default=1.0)
    beta_min: float = eqx.field(static=True, default=0.1)
    beta_max: float = eqx.field(static=True, default=20.0)

    def __check_init__(self):
        require("sigma", self.sigma, above=0)
        require("beta_min", self.beta_min, above=0)
        require("beta_max", self.beta_max, at_least=self.beta_min)

    def coefficients(
        self, times: Float64[np.ndarray, " nodes"]
    ) -> tuple[Float64[np.ndarray, " steps"], Float64[np.ndarray, " steps"]]:
        """a_i and q_i: the first step is the draw, the others share the time."""
        # The draw takes the first interval, so that there is one step for each of them.
        rest = (times[-1] - times[1]) or 1.0  # a single step leaves none
        t = (times[1:] - times[1]) / rest
        integral = self.beta_max * t - 0.5 * (self.beta_max - self.beta_min) * t**2
        decay = np.exp(-0.5 * np.diff(integral))
        variance = self.sigma**2 * -np.expm1(-np.diff(integral))
        return np.append(1.0, decay), np.append(self.sigma**2, variance)


class DiffusionState(eqx.Module):
    """A position, and the number of steps that led there."""

    position: Float[Array, " dim"]
    index: Int[Array, ""]


class DiffusionFeatures(eqx.Module):
    """What a network sees: the position, the same in units of the last state's standard deviation
    under the reference process, and the number of steps.
    """

    position: Float[Array, " dim"]
    scaled: Float[Array, " dim"]
    index: Int[Array, ""]


class Diffusion(Environment):
    r"""A walk of Gaussian steps in R^dim from the source s_0 = 0 (Zhang and Chen, 2022; Lahlou
    et al., 2023). An edge is the increment of the position, float [dim].

    With the reference process' a_i, q_i (`Brownian`: a = 1, q = σ² dt) and the network's f_θ,

    $$P_F(s_{i+1}\mid s_i) = N\big(a_i s_i + g_i f_\theta,\; q_i\big), \qquad
    P_B(s_i\mid s_{i+1}) = N\Big(\tfrac{a_i v_i}{v_{i+1}} s_{i+1},\; \tfrac{v_i q_i}{v_{i+1}}\Big)$$

    with v_0 = 0, v_{i+1} = a_i² v_i + q_i: the bridge of the reference process, drawn and scored
    without a network. The step back to the source is exact, with log P_B = 0.

    **Arguments:** `dim` >= 1; `num_steps` = T >= 1; `process`; `times`: 0 = t_0 < … < t_T = 1
    (None: evenly spaced); `drift`: "time" has g_i = q_i/σ², which for Brownian motion is the dt of
    the published samplers, "noise" has g_i = √q_i, with which f_θ is of order 1 at every step and
    is learned faster where steps are short; `log_variance_range` r: P_F's variance is
    q_i exp(r tanh(·/r)) with a learned argument for each coordinate (None: q_i); `clip`: of |f_θ|,
    with the drift "time" in units of σ (default 1e4; None: no bound), since far from all that it
    has learned on a network grows with the position, and the position with the network until
    neither is finite. With a learned P_B, its mean and variance are multiplied by 1 ± 0.1 at most
    (Sendera et al., 2024).

    A sample x is a position, float [dim].
    """

    dim: int = eqx.field(static=True)
    num_steps: int = eqx.field(static=True)
    process: Process
    times: tuple[float, ...] | None = eqx.field(static=True)
    log_variance_range: float | None = eqx.field(static=True)
    drift: Literal["time", "noise"] = eqx.field(static=True)
    clip: float | None = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        num_steps: int = 100,
        process: Process | None = None,
        times: tuple[float, ...] | None = None,
        log_variance_range: float | None = None,
        drift: Literal["time", "noise"] = "time",
        clip: float | None = 1e4,
    ):
        dim, num_steps = operator.index(dim), operator.index(num_steps)
        require("dim", dim, at_least=1)
        require("num_steps", num_steps, at_least=1)
        require("log_variance_range", log_variance_range, above=0)
        require("clip", clip, above=0)
        if drift not in ("time", "noise"):
            raise ValueError(f"drift must be 'time' or 'noise', got {drift!r}.")
        if times is not None:
            times = tuple(float(t) for t in times)
            if len(times) != num_steps + 1 or times[0] != 0 or times[-1] != 1:
                raise ValueError(
                    f"times must be {num_steps + 1} numbers from 0 to 1 for {num_steps} steps, "
                    f"got {times}."
                )
            if not all(a < b for a, b in itertools.pairwise(times)):
                raise ValueError("times must increase.")
        self.dim = dim
        self.num_steps = num_steps
        self.process = Brownian() if process is None else process
        self.times = times
        self.log_variance_range = log_variance_range
        self.drift = drift
        self.clip = clip

    @property
    def fewest_steps(self) -> int:
        """Every trajectory has as many steps."""
        return self.num_steps

    @property
    def feature_size(self) -> int:
        """Coordinates of a position."""
        return self.dim

    @property
    def forward_size(self) -> int:
        """The drift, and the logarithm of the variance where it is learned."""
        return self.dim if self.log_variance_range is None else 2 * self.dim

    @property
    def backward_size(self) -> int:
        """Corrections of P_B's mean and variance."""
        return 2 * self.dim

    def initial_state(self) -> DiffusionState:
        """The source: position 0 after 0 steps."""
        return DiffusionState(jnp.zeros(self.dim), jnp.asarray(0, jnp.int32))

    def terminal_state(self, x: Float[Array, " dim"]) -> DiffusionState:
        """At x after all steps."""
        return DiffusionState(jnp.asarray(x), jnp.asarray(self.num_steps, jnp.int32))

    def sample_of(self, state: DiffusionState) -> Float[Array, " dim"]:
        """The position."""
        return state.position

    def is_initial(self, state: DiffusionState) -> Bool[Array, ""]:
        """Whether no step has been made."""
        return state.index == 0

    def is_terminal(self, state: DiffusionState) -> Bool[Array, ""]:
        """Whether all steps have been made."""
        return state.index == self.num_steps

    def step(self, state: DiffusionState, action: Float[Array, " dim"]) -> DiffusionState:
        """Add the increment."""
        return DiffusionState(state.position + action, state.index + 1)

    def backward_step(self, state: DiffusionState, action: Float[Array, " dim"]) -> DiffusionState:
        """Take the increment away; after the first step the source is reached exactly."""
        position = jnp.where(state.index == 1, 0, state.position - action)
        return DiffusionState(position, state.index - 1)

    def features(self, state: DiffusionState) -> DiffusionFeatures:
        """Position and number of steps."""
        scale = math.sqrt(self._tables().marginal[-1])
        return DiffusionFeatures(state.position, state.position / scale, state.index)

    def log_reference(self, state: DiffusionState) -> Float[Array, ""]:
        """The log-density N(s; 0, v_i I) of the reference process; 0 at the source."""
        variance = self._constant(self._tables().marginal)[state.index]
        safe = jnp.where(state.index == 0, 1, variance)
        square = jnp.sum(jnp.square(state.position)) / safe
        log_density = -0.5 * (square + self.dim * jnp.log(2 * jnp.pi * safe))
        return jnp.where(state.index == 0, 0, log_density)

    def forward_kernel(self, state: DiffusionState, params: Float[Array, " forward"]) -> Gaussian:
        """The reference process with the drift of the network."""
        tables = self._tables()
        index = jnp.minimum(state.index, self.num_steps - 1)  # at the end any finite kernel
        decay = self._constant(tables.decay - 1)[index]
        variance = self._constant(tables.variance)[index]
        gain, unit = jnp.sqrt(variance), 1.0
        if self.drift == "time":
            unit = self.process.sigma
            gain = self._constant(tables.variance / unit**2)[index]
        drift = params[: self.dim]
        if self.clip is not None:
            drift = jnp.clip(drift, -self.clip * unit, self.clip * unit)
        mean = decay * state.position + gain * drift
        std = jnp.broadcast_to(jnp.sqrt(variance), mean.shape)
        if self.log_variance_range is not None:
            most = self.log_variance_range
            std = std * jnp.exp(0.5 * most * jnp.tanh(params[self.dim :] / most))
        return Gaussian(mean, std)

    def backward_kernel(
        self, state: DiffusionState, params: Float[Array, " backward"] | None
    ) -> Gaussian:
        """The bridge of the reference process to the source; a point mass at the first step."""
        tables = self._tables()
        index = jnp.maximum(state.index - 1, 0)
        retained = self._constant(tables.retained)[index]
        mean = (1 - retained) * state.position
        std = jnp.broadcast_to(self._constant(np.sqrt(tables.bridge))[index], mean.shape)
        if params is not None:
            correction = 1 + _BACKWARD_RANGE * jnp.tanh(params)
            mean = jnp.where(index == 0, mean, mean * correction[: self.dim])
            std = std * jnp.sqrt(correction[self.dim :])
        return Gaussian(mean, std)

    def _tables(self) -> "_Tables":
        return _tables(self.process, self.num_steps, self.times)

    def _constant(self, table: Float64[np.ndarray, " steps"]) -> Float[Array, " steps"]:
        return jnp.asarray(table, jnp.result_type(float))


class _Tables:
    """The coefficients of a reference process, in float64: P_F by `decay` a and `variance` q,
    P_B by `retained` a v / v' and `bridge` v q / v', and the variance v of every state.
    """

    def __init__(self, process: Process, times: Float64[np.ndarray, " nodes"]):
        self.decay, self.variance = process.coefficients(times)
        marginal = [0.0]
        for a, q in zip(self.decay, self.variance, strict=True):
            marginal.append(a**2 * marginal[-1] + q)
        self.marginal = np.asarray(marginal)
        before, after = self.marginal[:-1], self.marginal[1:]
        self.retained = self.decay * before / after
        self.bridge = before * self.variance / after


@functools.lru_cache(maxsize=64)
def _tables(process: Process, num_steps: int, times: tuple[float, ...] | None) -> _Tables:
    even = np.linspace(0, 1, num_steps + 1)
    return _Tables(process, even if times is None else np.asarray(times, np.float64))
