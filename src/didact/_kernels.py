"""Distributions over the edges at one state."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ._types import SCORE_FLOOR, Kernel


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
