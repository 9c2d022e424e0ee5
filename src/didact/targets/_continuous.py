"""What the targets on R^dim share."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64


def require_point(x: Float[Array, "..."], dim: int) -> None:
    """`ValueError` unless x is one point of R^dim: broadcasting would hide a wrong shape."""
    if jnp.shape(x) != (dim,):
        raise ValueError(f"x must have shape ({dim},), got {jnp.shape(x)}.")


def require_positive(name: str, value: float) -> None:
    """`ValueError` unless a number is > 0 and finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be > 0 and finite, got {value}.")


def constant(table: Float64[np.ndarray, "*shape"]) -> Float[Array, "*shape"]:
    """A table made on the host, in the precision that the program computes in."""
    return jnp.asarray(table, jnp.result_type(float))


def read_only(table: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """The same table, which everyone is given and nobody may change."""
    table.setflags(write=False)
    return table
