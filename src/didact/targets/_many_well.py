"""Many double wells."""

import functools
import math
import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from .._types import SamplableTarget
from ._continuous import require_point

_WELL = math.sqrt(3)
"""Where the symmetric part 6 x² - x⁴ of the double well is highest."""


class ManyWell(SamplableTarget):
    r"""dim/2 independent pairs, each a double well beside a Gaussian.

    $$\log R(x) = \sum_{\text{pairs}} \tfrac12 x_1 + 6 x_1^2 - x_1^4 - \tfrac12 x_2^2$$

    (Noé et al., 2019; Midgley et al., 2023.) The pairs are interleaved, x[0::2] = x1 and
    x[1::2] = x2, as in the code of Midgley et al. and of Sendera et al. (2024). log Z is dim/2
    times log 11784.50927 + ½ log 2π: 164.6956753 for dim = 32.

    **Arguments:** `dim` >= 2, even.

    A sample x is a point, float [dim]. A mode is a choice of wells: the signs of the x1.
    """

    dim: int = eqx.field(static=True)

    def __init__(self, dim: int = 32):
        self.dim = operator.index(dim)
        if self.dim < 2 or self.dim % 2:
            raise ValueError(f"ManyWell needs an even dim >= 2, got {dim}.")

    @property
    def log_z(self) -> float:
        """dim/2 (log Z_1 + ½ log 2π), in nats; Z_1 by quadrature, to 1e-12 of itself."""
        return self.dim // 2 * (math.log(_double_well_integral()) + 0.5 * math.log(2 * math.pi))

    @property
    def num_modes(self) -> int:
        """2^(dim/2)."""
        return 2 ** (self.dim // 2)

    def log_reward(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """log R(x), in nats."""
        require_point(x, self.dim)
        first, second = x[0::2], x[1::2]
        wells = first * (0.5 + first * (6 - jnp.square(first)))
        return jnp.sum(wells - 0.5 * jnp.square(second))

    def mode_index(self, x: Float[Array, " dim"]) -> Int[Array, ""]:
        """The signs of the x1 as a binary number, the first pair its highest digit, 1 for x1 > 0.
        Every x has one. From 2^31 modes on, which int32 cannot number, several share a number:
        the last 31 pairs count.
        """
        require_point(x, self.dim)
        right = (x[0::2] > 0)[-31:]
        digit = 2 ** np.arange(len(right), dtype=np.int32)[::-1]
        return jnp.sum(jnp.where(right, jnp.asarray(digit, jnp.int32), 0), dtype=jnp.int32)

    def sample(self, key: PRNGKeyArray) -> Float[Array, " dim"]:
        """x1 by rejection, x2 as a Gaussian: no approximation but that of floats."""
        first_key, second_key = jax.random.split(key)
        first = _double_well(first_key, self.dim // 2)
        second = jax.random.normal(second_key, first.shape)
        return jnp.stack([first, second], axis=1).reshape(self.dim)


def _double_well(key: PRNGKeyArray, number: int) -> Float[Array, " {number}"]:
    """Draws from the density proportional to exp(x/2 + 6 x² - x⁴).

    With x = s t, s = ±1 and t >= 0, the exponent is 9 - (t² - 3)² + s t/2. As (t + √3)² >= 3, it
    is at most 9 - 3 (t - √3)² + s t/2, which is a Gaussian in t for each s: mean √3 + s/12,
    variance 1/6, total mass proportional to exp(s √3/2). A proposal is accepted with chance 0.497.
    """

    def propose(key: PRNGKeyArray) -> tuple[Float[Array, " pairs"], Bool[Array, " pairs"]]:
        side_key, distance_key, accept_key = jax.random.split(key, 3)
        right = jax.random.bernoulli(side_key, jax.nn.sigmoid(_WELL), (number,))
        side = jnp.where(right, 1.0, -1.0)
        t = _WELL + side / 12 + jax.random.normal(distance_key, (number,)) / math.sqrt(6)
        log_ratio = jnp.square(t - _WELL) * (3 - jnp.square(t + _WELL))
        accepted = -jax.random.exponential(accept_key, (number,)) < log_ratio
        return side * t, accepted & (t >= 0)

    def again(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        key, value, done = carry
        key, propose_key = jax.random.split(key)
        proposed, accepted = propose(propose_key)
        return key, jnp.where(done, value, proposed), done | accepted

    start = (key, jnp.zeros(number), jnp.zeros(number, bool))
    return jax.lax.while_loop(lambda carry: ~jnp.all(carry[2]), again, start)[1]


@functools.cache
def _double_well_integral() -> float:
    """Integral of exp(x/2 + 6 x² - x⁴): 11784.509..."""
    # The trapezoidal rule converges faster than any power of the step for such a function;
    # beyond 5 it is below exp(-470).
    x = np.linspace(-5, 5, 2001)
    return float(np.sum(np.exp(x / 2 + 6 * x**2 - x**4)) * (x[1] - x[0]))
