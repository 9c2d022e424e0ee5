"""Which objects a seed has asked the reward of: a bit for each."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt32

MAX_OBJECTS = 2**28  # 32 MiB


class Seen(eqx.Module):
    """A set of numbers below 32·words, and how many it holds."""

    words: UInt32[Array, " words"]
    count: Int[Array, ""]


def empty(num_objects: int) -> Seen:
    """The empty set, for numbers below `num_objects`.

    **Errors:** `ValueError` for more than `MAX_OBJECTS`.
    """
    if num_objects > MAX_OBJECTS:
        raise ValueError(
            f"{num_objects:,} objects are too many to count different ones; at most "
            f"{MAX_OBJECTS:,} are possible: use count_distinct=False."
        )
    return Seen(jnp.zeros(-(-num_objects // 32), jnp.uint32), jnp.asarray(0, jnp.int32))


def add(seen: Seen, number: Int[Array, " B"], keep: Bool[Array, " B"]) -> Seen:
    """Add those of a batch that `keep` says."""
    word, bit = number // 32, jnp.asarray(1, jnp.uint32) << (number % 32).astype(jnp.uint32)
    place = jnp.arange(number.shape[0])
    earlier = (number[:, None] == number) & (place < place[:, None]) & keep
    new = keep & ~jnp.any(earlier, axis=1) & (seen.words[word] & bit == 0)
    # Different numbers have different bits: their sum is their union.
    words = seen.words.at[jnp.where(new, word, seen.words.shape[0])].add(bit, mode="drop")
    return Seen(words, seen.count + jnp.sum(new, dtype=jnp.int32))
