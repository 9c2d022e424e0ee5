"""Another value of one part of an object."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray


def other_value(
    key: PRNGKeyArray, value: Int[Array, ""], num_values: Int[Array, ""]
) -> Int[Array, ""]:
    """A number below `num_values` other than `value`, each as likely; where there is none, that."""
    drawn = jax.random.randint(key, (), 0, jnp.maximum(num_values - 1, 1), value.dtype)
    return jnp.where(num_values > 1, drawn + (drawn >= value), value)
