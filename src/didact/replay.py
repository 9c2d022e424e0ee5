r"""The replay buffer: objects, the newest kept, drawn by their priority.

Two permutations carry all the order there is: `rank` (0 = highest priority) and `age`
(0 = oldest). A batch of B changes them by B steps, so that adding one to a buffer of N and
drawing one take a few passes over N and a sort of B, never a sort of N. Where even these cost too
much, batches wait for each other (`Waiting`) and are merged by the passes of one.
"""

import abc
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import digamma
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from ._checks import require
from ._config import require_types
from ._types import Sample


class Waiting(eqx.Module):
    """Objects that are to be added with the next merge, in the order they came: `M` at most."""

    x: Sample  # leaves [M, ...]
    log_reward: Float[Array, " M"]
    priority: Float[Array, " M"]
    keep: Bool[Array, " M"]
    renew_age: Bool[Array, " M"]
    count: Int[Array, ""]
    slot: Int[Array, " N"]
    """Of each rank: what a draw would have to work out anew."""


class Replay(eqx.Module):
    """The contents of a replay buffer, `N` its capacity."""

    x: Sample  # leaves [N, ...]
    fingerprint: UInt32[Array, "N 2"] | None  # None: equal objects are not looked for
    log_reward: Float[Array, " N"]
    priority: Float[Array, " N"]
    rank: Int[Array, " N"]
    age: Int[Array, " N"]
    size: Int[Array, ""]
    waiting: Waiting | None = None  # None: each batch is added at once


class Draw(eqx.Module):
    """A rule by which objects are drawn, with replacement."""

    @abc.abstractmethod
    def slots(self, replay: Replay, uniform: Float[Array, " B"]) -> Int[Array, " B"]:
        """The slots that independent variates, uniform on [0, 1), stand for. Any, while the
        buffer is empty.
        """


class UniformDraw(Draw):
    """Each object as likely as any other."""

    def slots(self, replay: Replay, uniform: Float[Array, " B"]) -> Int[Array, " B"]:
        """The slots that uniform variates stand for."""
        return jnp.clip(_below(uniform, replay.size), 0)


class RankDraw(Draw):
    r"""The object of rank r with probability proportional to 1/(k·N + r), N the present size.

    **Arguments:** `offset`: k > 0.
    """

    offset: Float[Array, ""] | float = 0.01

    def __check_init__(self):
        require("offset", self.offset, above=0)
        require_types(self)

    def slots(self, replay: Replay, uniform: Float[Array, " B"]) -> Int[Array, " B"]:
        """The slots that uniform variates stand for."""
        return _by_rank(replay)[_rank_from_uniform(uniform, replay.size, self.offset)]


class SplitDraw(Draw):
    """A fixed share of each batch from the objects of highest priority, the others from the rest,
    either part uniformly.

    Of N objects the ⌈top·N⌉ first by rank are the highest; of a batch of B, round(share·B) come
    from them. Where they are all there is, the others come from them too. Source: Shen et al.,
    "Towards understanding and improving GFlowNet training" (2023).

    **Arguments:** `share` in [0, 1]; `top` in (0, 1].
    """

    share: Float[Array, ""] | float = 0.5
    top: Float[Array, ""] | float = 0.1

    def __check_init__(self):
        require("share", self.share, at_least=0, at_most=1)
        require("top", self.top, above=0)
        require("top", self.top, at_most=1)
        require_types(self)

    def slots(self, replay: Replay, uniform: Float[Array, " B"]) -> Int[Array, " B"]:
        """The slots that uniform variates stand for."""
        high = jnp.ceil(self.top * replay.size).astype(jnp.int32)
        low = replay.size - high
        first = jnp.where(low > 0, high, 0)
        low = jnp.where(low > 0, low, high)
        is_high = jnp.arange(uniform.shape[0]) < jnp.round(self.share * uniform.shape[0])
        rank = jnp.where(is_high, _below(uniform, high), first + _below(uniform, low))
        return _by_rank(replay)[rank]


class TemperedDraw(Draw):
    r"""An object of priority l with probability p ∝ exp(τ·l): τ is the largest in [0, 1] for which
    the effective sample size of the buffer, (Σp)²/Σp², is at least `target_ess` of its objects.

    With the priority log R + log P_B − log P_F and τ = 1 this resamples the buffer by importance;
    a smaller τ keeps a few large weights from taking all the draws. Equal priorities are drawn
    uniformly, and at τ = 0, which always reaches the target, so are all objects, those of priority
    −∞ as well. Source: Choi et al., "Reinforced sequential Monte Carlo for amortised sampling"
    (2025), importance-weighted experience replay.

    **Arguments:** `target_ess` in (0, 1].
    """

    target_ess: Float[Array, ""] | float

    def __check_init__(self):
        require("target_ess", self.target_ess, above=0)
        require("target_ess", self.target_ess, at_most=1)
        require_types(self)

    def slots(self, replay: Replay, uniform: Float[Array, " B"]) -> Int[Array, " B"]:
        """The slots that uniform variates stand for."""
        slot = _by_rank(replay)
        present = jnp.arange(slot.shape[0]) < replay.size
        weight = _tempered(replay.priority[slot], present, self.target_ess)
        # From the largest weight down, the smallest lose no digits and all that are 0 come last.
        cumulative = jnp.cumsum(weight)
        rank = jnp.searchsorted(cumulative, uniform * cumulative[-1], side="right")
        return slot[jnp.clip(rank, 0, jnp.maximum(jnp.sum(weight > 0) - 1, 0))]


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
    rank, _ = lax.fori_loop(0, 31, halve, (start, jnp.broadcast_to(size, uniform.shape)))
    return jnp.clip(rank, 0, jnp.maximum(size - 1, 0))


def _tempered(
    log_weight: Float[Array, " N"],
    present: Bool[Array, " N"],
    target_ess: Float[Array, ""] | float,
) -> Float[Array, " N"]:
    """Weights exp(τ·(l − max l)) for l in falling order, with the τ of `TemperedDraw`."""
    top = log_weight[0]
    largest = log_weight == top  # infinite ones too
    possible = present & (largest | (log_weight > -jnp.inf))
    lowest = jnp.finfo(log_weight.dtype).min
    below = jnp.where(largest, 0, jnp.maximum(log_weight - top, lowest))
    wanted = target_ess * jnp.sum(present)

    def weights(tau: Float[Array, ""]) -> Float[Array, " N"]:
        return jnp.where(possible, jnp.exp(tau * below), 0)

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) // 2
        weight = weights(number(middle))
        reached = jnp.square(jnp.sum(weight)) >= wanted * jnp.sum(jnp.square(weight))
        return jnp.where(reached, middle, low), jnp.where(reached, high, middle)

    # The bits of positive float32 numbers are ordered as they are, so that halving ranges of bits
    # finds τ to its last digit, however large the priorities.
    def number(bits: Int[Array, ""]) -> Float[Array, ""]:
        return lax.bitcast_convert_type(bits, jnp.float32)

    one = lax.bitcast_convert_type(jnp.asarray(1, jnp.float32), jnp.int32)
    bits, _ = lax.fori_loop(0, 30, halve, (jnp.zeros_like(one), one + 1))
    return jnp.where(bits == 0, present.astype(log_weight.dtype), weights(number(bits)))


def _below(uniform: Float[Array, " B"], size: Int[Array, ""]) -> Int[Array, " B"]:
    """A number below `size` for each uniform variate."""
    return jnp.minimum((uniform * size).astype(jnp.int32), size - 1)


def _by_rank(replay: Replay) -> Int[Array, " N"]:
    """The slot of each rank, 0 beyond the last: the inverse of `Replay.rank`."""
    return _inverse(replay.rank) if replay.waiting is None else replay.waiting.slot


def _inverse(rank: Int[Array, " N"]) -> Int[Array, " N"]:
    slot = jnp.arange(rank.shape[0], dtype=jnp.int32)
    return jnp.zeros_like(slot).at[rank].set(slot, mode="drop")


Priority = Literal["none", "reward", "teacher", "teacher-reward", "loss", "weight"]


class ReplayConfig(eqx.Module):
    r"""Configuration of a replay buffer.

    **Arguments:** `capacity`: objects kept; `priority`: "none" draws uniformly, "reward" (PRT) by
    log R, "teacher" (PER) by the Teacher's log-reward, "teacher-reward" by that plus log R, "loss"
    by (1 + `asymmetry`·1[δ > 0])·δ², "weight" by the importance weight log R + log P_B − log P_F of
    the trajectory; `rank_offset` k: the object of rank r is drawn with weight 1/(k·N + r), N the
    present size (None draws uniformly); `refresh`: whether replayed objects get their new priority
    (their age stays); `unique`: whether an object is held once, however often it is added (False
    where no two are equal, as with continuous ones: they are not compared then); `target_ess` or
    `split`: draw by `TemperedDraw` or by `SplitDraw` in place of ranks; `keep_student`: whether the
    Student's own batches are kept, beside all others; `merge_every`: steps whose batches wait to be
    added together, which costs little more than adding one of them. What waits is not drawn yet; it
    waits no longer than an eighth of the steps so far. Pays from some thousand batches on.

    Source: by reward, Shen et al. (2023); by loss, Schaul et al., "Prioritized experience replay",
    ICLR 2016, and in the form with the Teacher's reward Kim et al. (2025); by importance weight,
    Choi et al., "Reinforced sequential Monte Carlo for amortised sampling" (2025); draws by rank,
    Tripp et al., "Sample-efficient optimization in the latent space of deep generative models via
    weighted retraining", NeurIPS 2020.
    """

    capacity: int = eqx.field(static=True)
    priority: Priority = eqx.field(static=True, default="reward")
    rank_offset: float | None = 0.01
    refresh: bool = eqx.field(static=True, default=False)
    asymmetry: float = 0.0
    unique: bool = eqx.field(static=True, default=True)
    target_ess: float | None = None
    split: SplitDraw | None = None
    keep_student: bool = eqx.field(static=True, default=True)
    merge_every: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        require("capacity", self.capacity, at_least=1)
        require("capacity", self.capacity, at_most=2**31 - 1)
        require("merge_every", self.merge_every, at_least=1)
        if self.priority not in get_args(Priority):
            raise ValueError(
                f"priority must be one of {', '.join(map(repr, get_args(Priority)))}, "
                f"got {self.priority!r}."
            )
        require("rank_offset", self.rank_offset, above=0)
        require("asymmetry", self.asymmetry, at_least=0)
        require("target_ess", self.target_ess, above=0)
        require("target_ess", self.target_ess, at_most=1)
        require_types(self)
        if self.target_ess is not None and self.split is not None:
            raise ValueError("target_ess and split are two rules for one draw: give one of them.")
        if self.priority == "none" and (self.target_ess is not None or self.split is not None):
            raise ValueError(
                "target_ess and split draw by priority: give a priority other than 'none'."
            )
        if self.refresh and not self.unique:
            raise ValueError("refresh finds objects again by comparing them: it needs unique=True.")

    def merges_at(self, step: Int[Array, ""]) -> Bool[Array, ""]:
        """Whether what waits is merged at the end of a step, by its number from 0."""
        done = step + 1
        return done % jnp.clip(done // 8, 1, self.merge_every) == 0

    @property
    def draw(self) -> Draw:
        """The rule by which objects are drawn."""
        if self.target_ess is not None:
            return TemperedDraw(self.target_ess)
        if self.split is not None:
            return self.split
        if self.priority == "none" or self.rank_offset is None:
            return UniformDraw()
        return RankDraw(self.rank_offset)


def empty(x_like: Sample, capacity: int, *, unique: bool = True, room_to_wait: int = 0) -> Replay:
    """A buffer without contents, for objects with the shapes and dtypes of `x_like`.

    **Arguments:** `unique`: whether `add` looks for objects that the buffer holds; `room_to_wait`:
    how many objects may wait for a merge (0: the buffer is for `add` alone).

    **Errors:** `ValueError` for more room than capacity.
    """
    if room_to_wait > capacity:
        raise ValueError(
            f"{room_to_wait} objects that wait to be merged do not fit a buffer of {capacity}."
        )
    return Replay(
        x=_zeros(x_like, capacity),
        fingerprint=jnp.zeros((capacity, 2), jnp.uint32) if unique else None,
        log_reward=jnp.zeros(capacity),
        # Of a strong type, as what a checkpoint holds: else its reader would compile again.
        priority=jnp.full(capacity, -jnp.inf, jnp.result_type(float)),
        rank=jnp.full(capacity, capacity, jnp.int32),
        age=jnp.full(capacity, capacity, jnp.int32),
        size=jnp.asarray(0, jnp.int32),
        waiting=None if room_to_wait == 0 else _nobody(x_like, room_to_wait, capacity),
    )


def _nobody(x_like: Sample, room: int, capacity: int) -> Waiting:
    return Waiting(
        x=_zeros(x_like, room),
        log_reward=jnp.zeros(room),
        priority=jnp.zeros(room),
        keep=jnp.zeros(room, bool),
        renew_age=jnp.zeros(room, bool),
        count=jnp.asarray(0, jnp.int32),
        slot=jnp.zeros(capacity, jnp.int32),
    )


def _zeros(like: Sample, count: int) -> Sample:
    return jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), like)


def add(
    replay: Replay,
    x: Sample,
    log_reward: Float[Array, " B"],
    priority: Float[Array, " B"],
    keep: Bool[Array, " B"] | None = None,
    *,
    renew_age: bool | Bool[Array, " B"] = True,
) -> Replay:
    """Add a batch of objects, of which there may be no more than the capacity.

    Of equal objects the last is kept. One that the buffer holds gets its new priority and,
    with `renew_age`, becomes the newest. Where room is missing the oldest leave. With
    `renew_age=False` nothing is added: only what the buffer holds is updated. Where the buffer
    was made with `unique=False`, all objects count as different.

    **Arguments:** `priority`: not NaN; `keep`: False leaves an object out (None keeps all);
    `renew_age`: of all, or of each.

    **Errors:** `ValueError` for a batch larger than the capacity, or for `renew_age=False` where
    objects are not compared.
    """
    capacity, batch = replay.rank.shape[0], priority.shape[0]
    if batch > capacity:
        raise ValueError(f"A batch of {batch} objects does not fit a buffer of {capacity}.")
    if replay.fingerprint is None and renew_age is not True:
        raise ValueError("renew_age=False finds objects by comparing them: it needs unique=True.")
    keep = jnp.ones(batch, bool) if keep is None else keep
    renew = jnp.broadcast_to(jnp.asarray(renew_age), (batch,))
    if replay.fingerprint is None:
        codes, held_slot = None, jnp.full(batch, capacity, jnp.int32)
        touched = jnp.where(keep, jnp.arange(batch, dtype=jnp.int32), -1)
    else:
        codes = jax.vmap(fingerprint)(x)
        keep, touched, held_slot = _match(codes, keep, renew, replay.fingerprint, replay.size)
    if renew_age is False:
        slot, age, size = held_slot, replay.age, replay.size
    else:
        slot, age, size = _admit(replay, keep, touched, held_slot)

    rank = _rank(replay, priority, slot)
    # Written once it has a rank: else the compiler, not seeing that old priorities are needed no
    # more, would copy them all.
    slot = jnp.where(rank.at[slot].get(mode="fill", fill_value=capacity) < capacity, slot, capacity)
    old = (replay.x, replay.fingerprint, replay.log_reward, replay.priority)
    new = (x, codes, log_reward, priority)
    written = jax.tree.map(lambda leaf, part: leaf.at[slot].set(part, mode="drop"), old, new)
    waiting = replay.waiting and replace(replay.waiting, slot=_inverse(rank))
    return Replay(*written, rank=rank, age=age, size=size, waiting=waiting)


def wait(
    waiting: Waiting,
    x: Sample,
    log_reward: Float[Array, " B"],
    priority: Float[Array, " B"],
    keep: Bool[Array, " B"],
    *,
    renew_age: bool = True,
) -> Waiting:
    """Let a batch wait for the next `merge`, which does for it what `add` would.

    **Arguments:** as of `add`. There must be room for the batch: where there is none it is written
    over what waits.
    """
    place = waiting.count
    old = (waiting.x, waiting.log_reward, waiting.priority, waiting.keep, waiting.renew_age)
    new = (x, log_reward, priority, keep, jnp.full_like(keep, renew_age))
    written = jax.tree.map(
        lambda leaf, part: lax.dynamic_update_slice_in_dim(leaf, part, place, 0), old, new
    )
    return Waiting(*written, count=place + keep.shape[0], slot=waiting.slot)


def merge(replay: Replay) -> Replay:
    """Add all that waits: but for the slots the buffer is that of adding batch by batch.

    **Errors:** `ValueError` where the buffer was made without room to wait.
    """
    waiting = replay.waiting
    if waiting is None:
        raise ValueError("Nothing can wait for this buffer: make it with room_to_wait.")
    keep = waiting.keep & (jnp.arange(waiting.keep.shape[0]) < waiting.count)
    renew_age: bool | Array = waiting.renew_age
    if replay.fingerprint is None:  # what is not to be renewed is not looked for, and not added
        keep, renew_age = keep & renew_age, True
    parts = (waiting.x, waiting.log_reward, waiting.priority, keep)
    merged = add(replay, *parts, renew_age=renew_age)
    return eqx.tree_at(lambda r: r.waiting.count, merged, jnp.zeros_like(waiting.count))


def _match(
    codes: UInt32[Array, "B 2"],
    keep: Bool[Array, " B"],
    renew: Bool[Array, " B"],
    held: UInt32[Array, "N 2"],
    size: Int[Array, ""],
) -> tuple[Bool[Array, " B"], Int[Array, " B"], Int[Array, " B"]]:
    """Which of a batch to keep, of equal objects the last; the place in the batch at which each of
    them last became the newest (−1: never); and the slot that holds it (N: none).

    The batch is sorted, and each slot looks itself up there: N·log B steps.
    """
    batch, capacity = codes.shape[0], held.shape[0]
    order = jnp.arange(batch, dtype=jnp.int32)
    # Equal objects come side by side, and of those to be kept the last comes first.
    high, low, _, index = lax.sort(
        (codes[:, 0], codes[:, 1], jnp.where(keep, -order, batch), order), num_keys=3
    )
    is_first = jnp.append(True, (high[1:] != high[:-1]) | (low[1:] != low[:-1]))
    kept = is_first & keep[index]
    group = jnp.cumsum(is_first) - 1
    renewed = jnp.where((keep & renew)[index], index, -1)
    touched = jnp.full(batch, -1, jnp.int32).at[group].max(renewed)[group]

    # A binary search by hand, since a key has two words; the table is filled up to 2^steps - 1.
    steps = batch.bit_length()
    largest = ~jnp.zeros(2**steps - 1 - batch, jnp.uint32)
    table = jnp.append(high, largest), jnp.append(low, largest)

    def halve(step: Int[Array, ""], place: UInt32[Array, " N"]) -> UInt32[Array, " N"]:
        further = place + (2 ** (steps - 1) >> step).astype(jnp.uint32)
        a, b = (word[further - 1] for word in table)
        below = (a < held[:, 0]) | ((a == held[:, 0]) & (b < held[:, 1]))
        return jnp.where(below, further, place)

    place = lax.fori_loop(0, steps, halve, jnp.zeros(capacity, jnp.uint32))
    place = jnp.minimum(place, batch - 1)
    slot = jnp.arange(capacity, dtype=jnp.int32)
    equal = (high[place] == held[:, 0]) & (low[place] == held[:, 1])
    member = jnp.where(equal & kept[place] & (slot < size), index[place], batch)
    held_slot = jnp.full(batch, capacity, jnp.int32).at[member].set(slot, mode="drop")
    keep = jnp.zeros(batch, bool).at[index].set(kept)
    return keep, jnp.zeros(batch, jnp.int32).at[index].set(touched), held_slot


def _admit(
    replay: Replay,
    keep: Bool[Array, " B"],
    touched: Int[Array, " B"],
    held_slot: Int[Array, " B"],
) -> tuple[Int[Array, " B"], Int[Array, " N"], Int[Array, ""]]:
    """The slot of each object of a batch (N: none), all ages and the size with them in it.

    Renewed objects leave their place, then the oldest make room for the new.
    """
    capacity, batch = replay.age.shape[0], keep.shape[0]
    held, renewed = held_slot < capacity, keep & (touched >= 0)
    fresh = renewed & ~held
    age = replay.age
    if replay.fingerprint is not None:
        renewed_slot = jnp.where(renewed, held_slot, capacity)
        taken = age.at[renewed_slot].get(mode="fill", fill_value=capacity)
        age = age + _staircase(taken + 1, -jnp.ones_like(taken), capacity)(age)
        age = jnp.where(jnp.arange(capacity) < replay.size, age, capacity)
        age = age.at[renewed_slot].set(capacity, mode="drop")
    by_age = (
        jnp.zeros(batch, jnp.int32).at[age].set(jnp.arange(capacity, dtype=jnp.int32), mode="drop")
    )
    order = jnp.cumsum(fresh, dtype=jnp.int32) - 1
    room = capacity - replay.size
    new_slot = jnp.where(order < room, replay.size + order, by_age[jnp.maximum(order - room, 0)])
    arrived = jnp.sum(fresh, dtype=jnp.int32)
    evicted = jnp.maximum(arrived - room, 0)
    # What is not renewed may have to leave as soon as it is updated.
    stays = age.at[held_slot].get(mode="fill", fill_value=-1) >= evicted
    slot = jnp.where(fresh, new_slot, jnp.where(keep & stays, held_slot, capacity))
    size = jnp.minimum(replay.size + arrived, capacity)
    newest = jnp.zeros(batch, jnp.int32).at[jnp.where(renewed, touched, batch)].set(1, mode="drop")
    newest = size - jnp.sum(newest) - 1 + jnp.cumsum(newest)[touched]
    age = jnp.where(age < capacity, age - evicted, age)
    age = age.at[jnp.where(renewed, slot, capacity)].set(newest, mode="drop")
    return slot, age, size


def _rank(replay: Replay, priority: Float[Array, " B"], slot: Int[Array, " B"]) -> Int[Array, " N"]:
    """All ranks once the kept objects of a batch are in their slots: who leaves and who arrives
    ahead is counted. Equal priorities keep their order, old before new.
    """
    capacity = replay.rank.shape[0]
    keep = slot < capacity
    falling = jnp.full(capacity, jnp.inf, replay.priority.dtype)
    falling = falling.at[replay.rank].set(-replay.priority, mode="drop")
    order = jnp.arange(priority.shape[0], dtype=jnp.int32)
    _, wanted, index = lax.sort((~keep, -priority, order), num_keys=3)
    ahead = jnp.searchsorted(falling, wanted, side="right").astype(jnp.int32)
    ahead = jnp.where(keep[index], jnp.minimum(ahead, replay.size), capacity)
    # What a slot held leaves, whether it is renewed or evicted; one not yet in use holds nothing.
    leaving = replay.rank.at[slot].get(mode="fill", fill_value=capacity)
    own = ahead - jnp.searchsorted(jnp.sort(leaving), ahead).astype(jnp.int32) + order

    places = jnp.concatenate([ahead, leaving + 1])
    heights = jnp.concatenate([jnp.ones_like(ahead), -jnp.ones_like(leaving)])
    rank = replay.rank + _staircase(places, heights, capacity)(replay.rank)
    rank = jnp.where(jnp.arange(capacity) < replay.size, rank, capacity)
    return rank.at[slot[index]].set(own, mode="drop")


def _staircase(
    place: Int[Array, " steps"], height: Int[Array, " steps"], size: int
) -> Callable[[Int[Array, " N"]], Int[Array, " N"]]:
    """The function r ↦ sum of the heights at places ≤ r, for 0 ≤ r < `size`.

    A bit marks each place with a step; those at or below r are counted, whole words by a table
    that is short enough for the nearest cache.
    """
    # Unsigned numbers, since signed ones would be checked for being negative at each look-up.
    place, height = lax.sort((place.astype(jnp.uint32), height), num_keys=1)
    is_first = jnp.append(True, place[1:] != place[:-1])
    total = jnp.zeros(place.shape[0] + 1, jnp.int32).at[jnp.cumsum(is_first)].add(height)
    level = jnp.cumsum(total)
    words = jnp.zeros(size // 32 + 1, jnp.uint32)
    words = words.at[place >> 5].add(is_first.astype(jnp.uint32) << (place & 31), mode="drop")
    ones = lax.population_count(words)
    before = jnp.cumsum(ones, dtype=jnp.uint32) - ones

    def at(r: Int[Array, " N"]) -> Int[Array, " N"]:
        r = r.astype(jnp.uint32)
        word = r >> 5
        not_above = words[word] << (31 - (r & 31))  # bits above r fall out
        return level[before[word] + lax.population_count(not_above)]

    return at


def sample(
    replay: Replay,
    key: PRNGKeyArray,
    batch_size: int,
    draw: Draw,
) -> tuple[Sample, Float[Array, " B"], Bool[Array, " B"]]:
    r"""Draw objects with replacement.

    **Arguments:** `draw`: the rule.

    **Returns:** x, log R, and whether the draw is real (False while the buffer is empty).
    """
    slot = draw.slots(replay, jax.random.uniform(key, (batch_size,)))
    real = jnp.broadcast_to(replay.size > 0, (batch_size,))
    return jax.tree.map(lambda leaf: leaf[slot], replay.x), replay.log_reward[slot], real


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
    return jnp.ravel(lax.bitcast_convert_type(leaf, jnp.uint32))


def _avalanche(word: UInt32[Array, ""]) -> UInt32[Array, ""]:
    """The 32-bit finaliser of MurmurHash3: each input bit flips each output bit half the time."""
    word = (word ^ (word >> 16)) * jnp.asarray(0x85EBCA6B, jnp.uint32)
    word = (word ^ (word >> 13)) * jnp.asarray(0xC2B2AE35, jnp.uint32)
    return word ^ (word >> 16)


__all__ = [
    "Draw",
    "RankDraw",
    "Replay",
    "ReplayConfig",
    "SplitDraw",
    "TemperedDraw",
    "UniformDraw",
    "Waiting",
    "add",
    "empty",
    "fingerprint",
    "merge",
    "sample",
    "wait",
]
