"""Regression losses: what an objective does with its residual."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import require
from .._types import Regression


class Squared(Regression):
    r"""$\rho(\delta) = c\,\delta^2$, with `scale` c = 1 the loss of Malkin et al. (2022).

    **Arguments:** `scale`: c > 0; `cap`: the loss is at most this, with no gradient where it would
    be more (None: it has no bound).
    """

    scale: float = 1.0
    cap: float | None = None

    def __check_init__(self):
        require("scale", self.scale, above=0)
        require("cap", self.cap, above=0)

    def __call__(self, residual: Float[Array, " *shape"]) -> Float[Array, " *shape"]:
        """Loss of each residual, in nats²."""
        loss = self.scale * jnp.square(residual)
        return loss if self.cap is None else jnp.minimum(loss, self.cap)


class Huber(Regression):
    r"""Quadratic near 0, linear beyond `width`: $\rho = \delta^2$ for $|\delta| \le w$, else
    $w(2|\delta| - w)$. It agrees with `Squared` inside, so learning rates carry over.
    """

    width: float = 1.0

    def __check_init__(self):
        require("width", self.width, above=0)

    def __call__(self, residual: Float[Array, " *shape"]) -> Float[Array, " *shape"]:
        """Loss of each residual."""
        size = jnp.abs(residual)
        inside = jnp.minimum(size, self.width)
        return inside * (2 * size - inside)


class ShiftedCosh(Regression):
    r"""$\rho(\delta) = e^{\delta} + e^{-\delta} - 2$ (Hu et al., "Beyond squared error",
    ICLR 2025), continued linearly where $|\delta| > $ `limit`.
    """

    limit: float = 10.0

    def __check_init__(self):
        require("limit", self.limit, above=0)

    def __call__(self, residual: Float[Array, " *shape"]) -> Float[Array, " *shape"]:
        """Loss of each residual."""
        # 4 sinh²(δ/2) is the same function without the cancellation at 0.
        size = jnp.abs(residual)
        inside = jnp.minimum(size, self.limit)
        return 4 * jnp.square(jnp.sinh(inside / 2)) + 2 * jnp.sinh(inside) * (size - inside)


class Linex(Regression):
    r"""$\rho(\delta) = (e^{a\delta} - a\delta - 1)/a^2$ (Hu et al., ICLR 2025), continued
    linearly where $a\delta > $ `limit`.

    a > 0 punishes under-sampling (δ > 0) more than over-sampling; near 0 it is δ²/2.
    """

    a: float = 1.0
    limit: float = 10.0

    def __check_init__(self):
        require("limit", self.limit, above=0)
        if isinstance(self.a, float | int) and self.a == 0:
            raise ValueError("Linex needs a != 0; use Squared() for its limit at a = 0.")

    def __call__(self, residual: Float[Array, " *shape"]) -> Float[Array, " *shape"]:
        """Loss of each residual."""
        t = self.a * residual
        inside = jnp.minimum(t, self.limit)
        growth = jnp.expm1(inside)
        # Near 0 the difference cancels, its series does not: to 1e-8, relative, below 1e-2.
        series = jnp.square(t) * (0.5 + t * (1 / 6 + t * (1 / 24 + t / 120)))
        curved = jnp.where(jnp.abs(t) < 1e-2, series, growth - inside)
        return (curved + growth * (t - inside)) / jnp.square(self.a)
