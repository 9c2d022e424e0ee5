"""States of a training, compared."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def assert_same_bits(one: Any, other: Any) -> None:
    """Trees of the same structure, whose arrays are the same to the bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    leaves = zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True)
    for (path, a), b in leaves:
        assert bits(a) == bits(b), jax.tree_util.keystr(path)


def bits(leaf: Any) -> tuple[Any, ...]:
    """All that an array is."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return leaf.shape, leaf.dtype, np.asarray(leaf).tobytes()
