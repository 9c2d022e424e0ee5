"""A checkerboard in the plane."""

import math
import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._checks import require
from .._types import SamplableTarget
from ._continuous import constant, require_point, require_positive


class Checkerboard(SamplableTarget):
    r"""Every second square of a board around the origin, with soft edges, normalised.

    x is uniform on the filled squares, plus logistic noise of scale b in each coordinate. A side
    [l, l + a] then has the density

    $$\frac1a\Big[\operatorname{s}\big(\tfrac{u-l}{b}\big) -
    \operatorname{s}\big(\tfrac{u-l-a}{b}\big)\Big] =
    \frac{1 - e^{-a/b}}{a}\,\operatorname{s}\big(\tfrac{u-l}{b}\big)
    \operatorname{s}\big(\tfrac{l+a-u}{b}\big), \qquad \operatorname{s}(v) = \frac1{1+e^{-v}}$$

    a square the product of two, and the board the mean of its filled squares. So log R is finite
    everywhere: it falls by 1 per distance b from a square, where its gradient leads back.

    The defaults are the board of the toy data of FFJORD (Grathwohl et al., 2019), whose edges are
    sharp. The square at the lower left is filled.

    **Arguments:** `squares` >= 1 along each side of the board; `side` a > 0 of a square;
    `softness` b > 0.

    A sample x is a point of the plane, float [2]. A mode is a filled square.
    """

    squares: int = eqx.field(static=True)
    side: float = eqx.field(static=True)
    softness: float = eqx.field(static=True)

    def __init__(self, squares: int = 4, side: float = 2.0, softness: float = 0.05):
        self.squares = operator.index(squares)
        self.side = float(side)
        self.softness = float(softness)
        require("squares", self.squares, at_least=1)
        require_positive("side", self.side)
        require_positive("softness", self.softness)

    @property
    def dim(self) -> int:
        """2."""
        return 2

    @property
    def log_z(self) -> float:
        """0: the density is normalised."""
        return 0.0

    @property
    def num_modes(self) -> int:
        """Number of filled squares."""
        return (self.squares**2 + 1) // 2

    def log_reward(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """The log-density at x, in nats."""
        require_point(x, self.dim)
        left = constant((np.arange(self.squares) - self.squares / 2) * self.side)
        from_left = (x[:, None] - left) / self.softness
        to_right = (left + self.side - x[:, None]) / self.softness
        log_factor = math.log(-math.expm1(-self.side / self.softness) / self.side)
        log_side = jax.nn.log_sigmoid(from_left) + jax.nn.log_sigmoid(to_right) + log_factor
        row, column = self._filled().T
        return jax.nn.logsumexp(log_side[0, row] + log_side[1, column]) - math.log(self.num_modes)

    def mode_index(self, x: Float[Array, " dim"]) -> Int[Array, ""]:
        """Number of the filled square that x lies in, column by column from the lower left; -1
        elsewhere.
        """
        require_point(x, self.dim)
        place = jnp.floor(x / self.side + self.squares / 2)
        hit = jnp.all(place == self._filled(), axis=1)
        return jnp.where(jnp.any(hit), jnp.argmax(hit), -1).astype(jnp.int32)

    def sample(self, key: PRNGKeyArray) -> Float[Array, " dim"]:
        """A filled square, a point in it, then the noise."""
        which_key, place_key, noise_key = jax.random.split(key, 3)
        filled = constant(self._filled() - self.squares / 2)
        corner = filled[jax.random.randint(which_key, (), 0, self.num_modes)]
        place = self.side * (corner + jax.random.uniform(place_key, (2,)))
        return place + self.softness * jax.random.logistic(noise_key, (2,))

    def _filled(self) -> Int[np.ndarray, "filled 2"]:
        """Places (i, j) of the filled squares, along the first and the second coordinate."""
        places = np.argwhere(np.ones((self.squares, self.squares), bool))
        return places[places.sum(axis=1) % 2 == 0]
