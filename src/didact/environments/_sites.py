"""Another value of one site of an object."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray


def with_another_value(
    key: PRNGKeyArray, x: Int[Array, " sites"], num_values: Int[Array, " sites"]
) -> Int[Array, " sites"]:
    """Numbers of which one is another than it was: each site as likely, and each other number
    below its `num_values`; where there is none, the same ones.
    """
    site_key, value_key = jax.random.split(key)
    site = jax.random.randint(site_key, (), 0, x.shape[0])
    value, count = x[site], num_values[site]
    drawn = jax.random.randint(value_key, (), 0, jnp.maximum(count - 1, 1), value.dtype)
    return x.at[site].set(jnp.where(count > 1, drawn + (drawn >= value), value))
