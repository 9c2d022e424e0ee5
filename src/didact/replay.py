r"""The replay buffer: distinct objects, the newest kept, drawn by the rank of a priority.

Two permutations carry all the order there is: `rank` (0 = highest priority) and `age`
(0 = oldest). Both are updated by counting, so adding a batch and drawing one cost a few
passes over the buffer and never a sort.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import digamma
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from ._checks import require
from ._config import require_types
from ._types import Sample

Priority = Literal["none", "reward", "teacher", "loss"]


class ReplayConfig(eqx.Module):
    r"""Configuration of a replay buffer.

    **Arguments:** `capacity`: distinct objects kept; `priority`: "none" draws uniformly,
    "reward" (PRT) by log R, "teacher" (PER) by the Teacher's log-reward, "loss" by
    (1 + `asymmetry`·1[δ > 0])·δ²; `rank_offset` k: the object of rank r is drawn with weight
    1/(k·N + r), N the present size (None draws uniformly); `refresh`: whether replayed objects
    get their new priority (their age stays).
    """

    capacity: int = eqx.field(static=True)
    priority: Priority = eqx.field(static=True, default="reward")
    rank_offset: float | None = 0.01
    refresh: bool = eqx.field(static=True, default=False)
    asymmetry: float = 0.0

    def __check_init__(self):
        require("capacity", self.capacity, at_least=1)
        require("capacity", self.capacity, at_most=2**31 - 1)
        if self.priority not in ("none", "reward", "teacher", "loss"):
            raise ValueError(
                f"priority must be 'none', 'reward', 'teacher' or 'loss', got {self.priority!r}."
            )
        require("rank_offset", self.rank_offset, above=0)
        require("asymmetry", self.asymmetry, at_least=0)
        require_types(self)

    @property
    def draw_offset(self) -> Float[Array, ""] | float | None:
        """What `sample` takes: `rank_offset`, None where no priority ranks the objects."""
        return None if self.priority == "none" else self.rank_offset


class Replay(eqx.Module):
    """The contents of a replay buffer, `N` its capacity."""

    x: Sample  # leaves [N, ...]
    fingerprint: UInt32[Array, "N 2"]
    log_reward: Float[Array, " N"]
    priority: Float[Array, " N"]
    rank: Int[Array, " N"]
    age: Int[Array, " N"]
    size: Int[Array, ""]


def empty(x_like: Sample, capacity: int) -> Replay:
    """A buffer without contents, for objects with the shapes and dtypes of `x_like`."""
    return Replay(
        x=jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape), leaf.dtype), x_like),
        fingerprint=jnp.zeros((capacity, 2), jnp.uint32),
        log_reward=jnp.zeros(capacity),
        priority=jnp.full(capacity, -jnp.inf),
        rank=jnp.full(capacity, capacity, jnp.int32),
        age=jnp.full(capacity, capacity, jnp.int32),
        size=jnp.asarray(0, jnp.int32),
    )


def add(
    replay: Replay,
    x: Sample,
    log_reward: Float[Array, " B"],
    priority: Float[Array, " B"],
    keep: Bool[Array, " B"] | None = None,
    *,
    renew_age: bool = True,
) -> Replay:
    """Add a batch of objects, of which there may be no more than the capacity.

    Of equal objects the last is kept. One that the buffer holds gets its new priority and,
    with `renew_age`, becomes the newest. Where room is missing the oldest leave. With
    `renew_age=False` nothing is added: only what the buffer holds is updated.
    """
    capacity = replay.rank.shape[0]
    if priority.shape[0] > capacity:
        raise ValueError(
            f"A batch of {priority.shape[0]} objects does not fit a buffer of {capacity}."
        )
    codes = jax.vmap(fingerprint)(x)
    order = jnp.arange(priority.shape[0])
    same = jnp.all(codes[:, None] == codes[None, :], axis=-1)
    keep = jnp.ones_like(order, bool) if keep is None else keep
    keep = keep & ~jnp.any(same & keep[None, :] & (order[None, :] > order[:, None]), axis=1)

    occupied = jnp.arange(capacity) < replay.size
    match = (
        (codes[:, None, 0] == replay.fingerprint[:, 0])
        & (codes[:, None, 1] == replay.fingerprint[:, 1])
        & occupied
    )
    held = jnp.any(match, axis=1) & keep
    held_slot = jnp.where(held, jnp.argmax(match, axis=1), capacity)
    if not renew_age:
        keep = held
    fresh = keep & ~held

    # Age: renewed objects leave their place, then the oldest make room for the new.
    taken_age = jnp.where(held, replay.age.at[held_slot].get(mode="fill", fill_value=0), capacity)
    age = replay.age
    if renew_age:
        earlier = jnp.sum(taken_age[:, None] < age, axis=0)
        age = jnp.where(occupied, age - earlier, capacity)
        age = age.at[held_slot].set(capacity, mode="drop")
    fresh_order = jnp.cumsum(fresh) - 1
    room = capacity - replay.size
    evict_age = jnp.where(fresh, fresh_order - room, -1)
    evict_slot = jnp.argmax(age == evict_age[:, None], axis=1)
    slot = jnp.where(fresh_order < room, replay.size + fresh_order, evict_slot)
    slot = jnp.where(held, held_slot, jnp.where(fresh, slot, capacity))
    evicted = fresh & (evict_age >= 0)
    size = jnp.minimum(replay.size + jnp.sum(fresh), capacity)
    if renew_age:
        kept = jnp.sum(keep)
        age = jnp.where(age < capacity, age - jnp.sum(evicted), age)
        age = age.at[slot].set(size - kept + jnp.cumsum(keep) - 1, mode="drop")

    # Rank: count who leaves and who arrives ahead. Equal priorities keep their order.
    leaving = jnp.where(
        held | evicted, replay.rank.at[slot].get(mode="fill", fill_value=0), capacity
    )
    stays = occupied.at[slot].set(False, mode="drop")
    ahead = priority[:, None] > replay.priority
    arrivals = jnp.sum(ahead & keep[:, None], axis=0)
    rank = replay.rank - jnp.sum(leaving[:, None] < replay.rank, axis=0) + arrivals
    before_me = (priority[None, :] > priority[:, None]) | (
        (priority[None, :] == priority[:, None]) & (order[None, :] < order[:, None])
    )
    own_rank = jnp.sum(stays & ~ahead, axis=1) + jnp.sum(before_me & keep[None, :], axis=1)
    rank = jnp.where(stays, rank, capacity).at[slot].set(own_rank, mode="drop")

    def write(old, new):
        return old.at[slot].set(new, mode="drop")

    return Replay(
        x=jax.tree.map(write, replay.x, x),
        fingerprint=write(replay.fingerprint, codes),
        log_reward=write(replay.log_reward, log_reward),
        priority=write(replay.priority, priority),
        rank=rank.astype(jnp.int32),
        age=age.astype(jnp.int32),
        size=size.astype(jnp.int32),
    )


def sample(
    replay: Replay,
    key: PRNGKeyArray,
    batch_size: int,
    *,
    rank_offset: Float[Array, ""] | float | None,
) -> tuple[Sample, Float[Array, " B"], Bool[Array, " B"]]:
    r"""Draw objects with replacement.

    The object of rank r is drawn with probability proportional to 1/(k·N + r), N the
    present size and k = `rank_offset`; uniformly where that is None.

    **Returns:** x, log R, and whether the draw is real (False while the buffer is empty).
    """
    uniform = jax.random.uniform(key, (batch_size,))
    if rank_offset is None:
        slot = jnp.minimum((uniform * replay.size).astype(jnp.int32), replay.size - 1)
    else:
        rank = _rank_from_uniform(uniform, replay.size, rank_offset)
        slot = jnp.argmax(replay.rank == rank[:, None], axis=1)
    real = jnp.broadcast_to(replay.size > 0, (batch_size,))
    return jax.tree.map(lambda leaf: leaf[slot], replay.x), replay.log_reward[slot], real


def _rank_from_uniform(
    uniform: Float[Array, " B"], size: Int[Array, ""], rank_offset: Float[Array, ""] | float
) -> Int[Array, " B"]:
    """Invert the cumulative distribution of ranks, which digamma gives in closed form:
    sum of 1/(a + r) over r < n is psi(a + n) - psi(a).
    """
    a = rank_offset * jnp.maximum(size, 1)
    low, high = digamma(a), digamma(a + size)
    wanted = low + uniform * (high - low)

    def halve(_, bounds):
        low_rank, high_rank = bounds  # cumulative(low) <= wanted < cumulative(high)
        middle = (low_rank + high_rank) // 2
        below = digamma(a + middle) <= wanted
        return jnp.where(below, middle, low_rank), jnp.where(below, high_rank, middle)

    start = jnp.zeros(uniform.shape, jnp.int32)
    rank, _ = jax.lax.fori_loop(0, 31, halve, (start, jnp.broadcast_to(size, uniform.shape)))
    return jnp.clip(rank, 0, jnp.maximum(size - 1, 0))


def fingerprint(x: Sample) -> UInt32[Array, " 2"]:
    """64 bits that tell objects apart: among 10^6 objects, two agree with a chance of 3e-8."""
    words = jnp.concatenate([_words(leaf) for leaf in jax.tree.leaves(x)])

    def mix(seed: int) -> UInt32[Array, ""]:
        state = jnp.asarray(seed, jnp.uint32)
        for word in words:
            state = _avalanche(state ^ word) + jnp.asarray(0x9E3779B9, jnp.uint32)
        return _avalanche(state)

    return jnp.stack([mix(0x243F6A88), mix(0x85A308D3)])


def _words(leaf: Array) -> UInt32[Array, " words"]:
    leaf = jnp.ravel(leaf)
    if leaf.dtype.itemsize < 4 and jnp.issubdtype(leaf.dtype, jnp.inexact):
        leaf = leaf.astype(jnp.float32)  # keeps all their bits
    if leaf.dtype.itemsize < 4:
        return leaf.astype(jnp.uint32)
    return jnp.ravel(jax.lax.bitcast_convert_type(leaf, jnp.uint32))


def _avalanche(word: UInt32[Array, ""]) -> UInt32[Array, ""]:
    """The 32-bit finaliser of MurmurHash3: each input bit flips each output bit half the time."""
    word = (word ^ (word >> 16)) * jnp.asarray(0x85EBCA6B, jnp.uint32)
    word = (word ^ (word >> 13)) * jnp.asarray(0xC2B2AE35, jnp.uint32)
    return word ^ (word >> 16)


__all__ = ["Replay", "ReplayConfig", "add", "empty", "fingerprint", "sample"]
