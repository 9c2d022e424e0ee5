"""A target made from a function of the user's."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._types import Sample, Target


class FromFunction(Target):
    """Your own log-reward, as a target.

    **Arguments:** `log_reward_fn`: x -> log R(x), a JAX function of one unbatched object
    (for a hypergrid an int32 vector [dim]); `log_z`: log of the sum of R, if you know it.

    ```python
    target = didact.targets.FromFunction(lambda x: -0.5 * jnp.sum((x - 8.0) ** 2))
    ```

    The configuration of a run cannot hold a function: a run of such a target is rebuilt
    by giving the target again.
    """

    log_reward_fn: Callable[[Sample], Array] = eqx.field(static=True)
    log_z: float | None = eqx.field(static=True, default=None)

    @property
    def num_modes(self) -> None:
        """Unknown."""
        return None

    def log_reward(self, x: Sample) -> Float[Array, ""]:
        """log R(x), in nats."""
        value = jnp.asarray(self.log_reward_fn(x))
        if value.shape != ():
            raise ValueError(
                f"log_reward_fn must return one number for one x, got shape {value.shape}."
            )
        return value.astype(jnp.result_type(float))

    def mode_index(self, x: Sample) -> Int[Array, ""]:
        """-1: no modes are defined."""
        return jnp.asarray(-1, jnp.int32)
