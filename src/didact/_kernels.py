"""Distributions over the edges at one state."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ._types import SCORE_FLOOR, Kernel, PathwiseKernel


class Categorical(Kernel):
    r"""A categorical distribution over allowed actions.

    $$P(a) \propto \exp(\ell_a)\,1[a \text{ allowed}]$$

    **Arguments:** `logits` [A], in nats, of any size; `mask` [A], True = allowed. With no
    action allowed (a terminal state) every value is finite and means nothing: the
    trajectory's mask must leave it out.
    """

    logits: Float[Array, " A"]
    mask: Bool[Array, " A"]

    def __init__(self, logits: Float[Array, " A"], mask: Bool[Array, " A"]):
        # The largest allowed logit becomes 0, and none lies below a masked one.
        top = jnp.max(logits, where=mask, initial=jnp.finfo(logits.dtype).min)
        logits = jnp.maximum(logits - jax.lax.stop_gradient(top), SCORE_FLOOR / 2)
        self.logits = jnp.where(mask, logits, SCORE_FLOOR)
        self.mask = mask

    def noise(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> Float[Array, " *shape"]:
        """Uniform variates in [0, 1): one number an edge, whatever the number of actions."""
        return jax.random.uniform(key, shape, self.logits.dtype)

    def from_noise(self, noise: Float[Array, ""]) -> Int[Array, ""]:
        """Inverse of the cumulative distribution: the first allowed action beyond the noise.

        A masked action is never chosen, in whatever order the device adds up.
        The uniform's grid of 2^-23 (float32) bounds the error of each probability.
        """
        cumulative = jnp.cumsum(jnp.exp(self.logits))
        # noise < 1 keeps the product strictly below the total, so one action lies beyond it.
        total = jnp.max(cumulative, where=self.mask, initial=0)
        beyond = self.mask & (cumulative > noise * total)
        last = self.mask.shape[0] - 1
        return jnp.min(jnp.arange(last + 1), where=beyond, initial=last).astype(jnp.int32)

    def log_prob(self, action: Int[Array, ""]) -> Float[Array, ""]:
        """log P(action); about -1e9 for a masked one."""
        return jax.nn.log_softmax(self.logits)[action]

    def explore(self, amount: Float[Array, ""] | float) -> "Categorical":
        r"""$(1-\epsilon) P + \epsilon\,\mathrm{uniform}$ over the allowed actions."""
        allowed = jnp.maximum(jnp.sum(self.mask), 1)
        mixed = (1 - amount) * jax.nn.softmax(self.logits) + amount * self.mask / allowed
        return Categorical(jnp.log(jnp.maximum(mixed, jnp.finfo(mixed.dtype).tiny)), self.mask)

    def temper(self, temperature: Float[Array, ""] | float) -> "Categorical":
        """Divide the logits by the temperature."""
        return Categorical(self.logits / temperature, self.mask)


class Gaussian(PathwiseKernel):
    r"""A Gaussian with independent coordinates.

    $$a \sim N(\mu, \operatorname{diag}(\sigma^2))$$

    **Arguments:** `mean`, `std` [dim], `std` >= 0. A coordinate with `std` 0 is a point mass at
    its mean: edges there are taken to lie on it and have log-probability 0.
    """

    mean: Float[Array, " dim"]
    std: Float[Array, " dim"]

    def noise(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> Float[Array, "*shape dim"]:
        """Standard normal variates."""
        return jax.random.normal(key, (*shape, *self.mean.shape), self.mean.dtype)

    def from_noise(self, noise: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """mean + std · noise."""
        return self.mean + self.std * noise

    def to_noise(self, action: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """(action - mean) / std; 0 for a point mass."""
        point, std = self._safe()
        return jnp.where(point, 0, (action - self.mean) / std)

    def log_prob(self, action: Float[Array, " dim"]) -> Float[Array, ""]:
        """Log-density in nats, with respect to the counting measure for a point mass."""
        point, std = self._safe()
        z = (action - self.mean) / std
        each = -0.5 * jnp.square(z) - jnp.log(std) - 0.5 * math.log(2 * math.pi)
        return jnp.sum(jnp.where(point, 0, each))

    def explore(self, amount: Float[Array, ""] | float) -> "Gaussian":
        r"""Add variance, so that the share `amount` of all of it is exploration:
        $\sigma^2 / (1 - \epsilon)$. A share above 0.99 counts as 0.99.
        """
        return Gaussian(self.mean, self.std / jnp.sqrt(1 - jnp.minimum(amount, 0.99)))

    def temper(self, temperature: Float[Array, ""] | float) -> "Gaussian":
        r"""$\sigma^2$ times the temperature."""
        return Gaussian(self.mean, self.std * jnp.sqrt(temperature))

    def _safe(self) -> tuple[Bool[Array, " dim"], Float[Array, " dim"]]:
        """Where the point masses are, and std with 1 in their place."""
        point = self.std == 0
        return point, jnp.where(point, 1, self.std)
