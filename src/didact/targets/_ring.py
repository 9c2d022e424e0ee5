"""A ring in the plane."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import i0e
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._types import SamplableTarget
from ._continuous import require_point, require_positive


class Ring(SamplableTarget):
    r"""A circle blurred by Gaussian noise, normalised.

    $$p(x) = \frac1{2\pi}\int_0^{2\pi} N\big(x;\, r\,(\cos\theta, \sin\theta),\, \sigma^2 I\big)
    \,d\theta = \frac{1}{2\pi\sigma^2}\, e^{-(|x| - r)^2/2\sigma^2}\,
    e^{-z} I_0(z), \qquad z = \frac{r\,|x|}{\sigma^2}$$

    Unlike a Gaussian in |x|, it is smooth at the origin and has exact samples.

    **Arguments:** `radius` r > 0; `scale` σ > 0: standard deviation of the noise.

    A sample x is a point of the plane, float [2].
    """

    radius: float = eqx.field(static=True)
    scale: float = eqx.field(static=True)

    def __init__(self, radius: float = 3.0, scale: float = 0.25):
        self.radius = float(radius)
        self.scale = float(scale)
        require_positive("radius", self.radius)
        require_positive("scale", self.scale)

    @property
    def dim(self) -> int:
        """2."""
        return 2

    @property
    def log_z(self) -> float:
        """0: the density is normalised."""
        return 0.0

    @property
    def num_modes(self) -> None:
        """None: all points of the ring are alike."""
        return None

    def log_reward(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """The log-density at x, in nats."""
        require_point(x, self.dim)
        square = jnp.sum(jnp.square(x))
        at_origin = square == 0  # where the gradient of a square root does not exist, and is 0
        distance = jnp.where(at_origin, 0.0, jnp.sqrt(jnp.where(at_origin, 1.0, square)))
        radial = -0.5 * jnp.square((distance - self.radius) / self.scale)
        angular = jnp.log(i0e(distance * (self.radius / self.scale**2)))
        return radial + angular - math.log(2 * math.pi * self.scale**2)

    def mode_index(self, x: Float[Array, " dim"]) -> Int[Array, ""]:
        """-1: no modes are defined."""
        require_point(x, self.dim)
        return jnp.asarray(-1, jnp.int32)

    def sample(self, key: PRNGKeyArray) -> Float[Array, " dim"]:
        """A point of the circle, then the noise."""
        angle_key, noise_key = jax.random.split(key)
        angle = jax.random.uniform(angle_key, maxval=2 * math.pi)
        on_circle = self.radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        return on_circle + self.scale * jax.random.normal(noise_key, (2,))
