"""The replay buffer against a plain Python model, and the law of its draws."""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from didact import replay
from didact.replay import RankDraw, ReplayConfig, SplitDraw, TemperedDraw, UniformDraw

from .._statistics import fits, rejects

X_LIKE = jax.ShapeDtypeStruct((2,), jnp.int32)


class Model:
    """What a buffer is: a dictionary in order of age, oldest first, and its keys in order of rank,
    where equal priorities stay as they came. Keys are objects or, where these are not compared,
    numbers.
    """

    def __init__(self, capacity: int, *, unique: bool = True):
        self.capacity, self.unique = capacity, unique
        self.held: dict[Any, tuple[Any, float, float]] = {}  # x, log R, priority
        self.ranked: list[Any] = []
        self.added = 0

    def add(self, x, log_reward, priority, keep, renew_age) -> None:
        for item, r, p, kept in zip(x, log_reward, priority, keep, strict=True):
            if not kept:
                continue
            self.added += 1
            key = item if self.unique else self.added
            if key in self.held:
                self.ranked.remove(key)
                if renew_age:
                    self.held.pop(key)
            elif not renew_age:
                continue
            ahead = sum(self.held[other][2] >= p for other in self.ranked)
            self.ranked.insert(ahead, key)
            self.held[key] = (item, r, p)
            if len(self.held) > self.capacity:
                oldest = next(iter(self.held))
                self.held.pop(oldest)
                self.ranked.remove(oldest)


@functools.cache
def compiled_add(renew_age: bool):
    return jax.jit(functools.partial(replay.add, renew_age=renew_age))


def check(buffer: replay.Replay, model: Model) -> None:
    """The buffer holds what the model holds, in its order of age and of rank."""
    size = int(buffer.size)
    assert size == len(model.held) <= model.capacity
    x, log_reward, priority, rank, age = (
        np.asarray(leaf)
        for leaf in (buffer.x, buffer.log_reward, buffer.priority, buffer.rank, buffer.age)
    )
    assert sorted(age[:size]) == list(range(size))
    assert sorted(rank[:size]) == list(range(size))
    assert np.all(rank[size:] == model.capacity)
    assert np.all(age[size:] == model.capacity)
    contents = [(tuple(x[s]), log_reward[s], priority[s]) for s in range(size)]
    assert [contents[s] for s in np.argsort(age[:size])] == list(model.held.values())
    by_rank = np.argsort(rank[:size])
    assert [contents[s] for s in by_rank] == [model.held[key] for key in model.ranked]
    assert np.all(priority[by_rank][1:] <= priority[by_rank][:-1])


def batches(size: int):
    """Batches of few distinct objects and priorities, so that all kinds of ties happen."""
    item = st.tuples(st.integers(0, 2), st.integers(0, 3))
    return st.tuples(
        st.lists(item, min_size=size, max_size=size),
        st.lists(st.integers(-2, 3), min_size=size, max_size=size),
        st.lists(st.booleans() | st.just(True), min_size=size, max_size=size),
        st.booleans() | st.just(True),
    )


@pytest.mark.parametrize("unique", [True, False], ids=["unique", "any"])
@pytest.mark.parametrize(("capacity", "batch"), [(5, 3), (4, 4), (1, 1)], ids=str)
def test_any_sequence_of_additions_does_what_the_model_does(capacity, batch, unique):
    """Objects unique, the oldest out first, renewal, refreshing, duplicates in a batch, masks; or
    all objects taken as different.
    """

    @given(st.lists(batches(batch), max_size=10))
    def run(operations):
        buffer = replay.empty(X_LIKE, capacity, unique=unique)
        model = Model(capacity, unique=unique)
        for number, (x, priority, keep, renew_age) in enumerate(operations):
            renewing = renew_age or not unique
            log_reward = [float(10 * number + i) for i in range(batch)]
            model.add(x, log_reward, [float(p) for p in priority], keep, renewing)
            buffer = compiled_add(renewing)(
                buffer,
                jnp.asarray(x, jnp.int32),
                jnp.asarray(log_reward),
                jnp.asarray(priority, jnp.float32),
                jnp.asarray(keep),
            )
            check(buffer, model)

    run()


@pytest.mark.parametrize("unique", [True, False], ids=["unique", "any"])
def test_large_batches_do_what_the_model_does(unique):
    """Beyond one word of bits, with priorities of both zeros and infinities, filled several times
    over.
    """
    capacity, batch, random = 150, 70, np.random.default_rng(0)
    buffer, model = replay.empty(X_LIKE, capacity, unique=unique), Model(capacity, unique=unique)
    some = np.asarray([-np.inf, np.inf, 0.0, -0.0, 1.0], np.float32)
    for number in range(12):
        x = random.integers(0, 16, (batch, 2))
        log_reward = random.normal(size=batch).astype(np.float32)
        priority = random.choice(some, batch) if number % 2 else log_reward
        keep, renew_age = random.random(batch) < 0.8, not unique or number % 4 != 3
        model.add(map(tuple, x.tolist()), log_reward, priority, keep, renew_age)
        buffer = compiled_add(renew_age)(
            buffer, jnp.asarray(x, jnp.int32), *map(jnp.asarray, (log_reward, priority, keep))
        )
        check(buffer, model)
    assert len(model.held) == capacity


@functools.cache
def compiled_wait(renew_age: bool):
    return jax.jit(functools.partial(replay.wait, renew_age=renew_age))


compiled_merge = jax.jit(replay.merge)


@pytest.mark.parametrize("unique", [True, False], ids=["unique", "any"])
@pytest.mark.parametrize(("capacity", "batch", "most"), [(9, 3, 3), (6, 3, 2)], ids=str)
def test_batches_that_waited_are_merged_as_if_added_one_by_one(capacity, batch, most, unique):
    """Whatever they are: objects renewed by one and refreshed by another, that come and leave again
    while they wait, or are refreshed once they have left.
    """

    @given(st.lists(st.lists(batches(batch), min_size=1, max_size=most), max_size=6))
    def run(rounds):
        buffer = replay.empty(X_LIKE, capacity, unique=unique, room_to_wait=most * batch)
        model = Model(capacity, unique=unique)
        number = 0
        for operations in rounds:
            before = buffer
            for x, priority, keep, renew_age in operations:
                renewing = renew_age or not unique
                log_reward = [float(10 * number + i) for i in range(batch)]
                number += 1
                model.add(x, log_reward, [float(p) for p in priority], keep, renewing)
                waiting = compiled_wait(renewing)(
                    buffer.waiting,
                    jnp.asarray(x, jnp.int32),
                    jnp.asarray(log_reward),
                    jnp.asarray(priority, jnp.float32),
                    jnp.asarray(keep),
                )
                buffer = dataclasses.replace(buffer, waiting=waiting)
            assert buffer.rank is before.rank  # nothing that waits is in the buffer yet
            buffer = compiled_merge(buffer)
            check(buffer, model)
            size = int(buffer.size)
            by_rank = np.asarray(buffer.waiting.slot)[:size]
            np.testing.assert_array_equal(np.asarray(buffer.rank)[by_rank], np.arange(size))

    run()


def test_long_waits_are_merged_as_if_added_one_by_one():
    """Four batches of 60, beyond one word of bits, filled several times over."""
    capacity, batch, random = 300, 60, np.random.default_rng(0)
    buffer = replay.empty(X_LIKE, capacity, room_to_wait=4 * batch)
    model = Model(capacity)
    for number in range(24):
        x = random.integers(0, 22, (batch, 2))
        values = random.normal(size=(2, batch)).astype(np.float32)
        keep, renew_age = random.random(batch) < 0.8, number % 3 != 2
        model.add(map(tuple, x.tolist()), *values, keep, renew_age)
        waiting = compiled_wait(renew_age)(
            buffer.waiting, jnp.asarray(x, jnp.int32), *map(jnp.asarray, (*values, keep))
        )
        buffer = dataclasses.replace(buffer, waiting=waiting)
        if number % 4 == 3:
            buffer = compiled_merge(buffer)
            check(buffer, model)
    assert len(model.held) == capacity


@pytest.mark.parametrize("every", [1, 2, 3, 7, 8, 12, 64])
def test_nothing_waits_longer_than_it_may(every):
    """Not for more than so many steps, nor for more than an eighth of those so far."""
    steps = jnp.arange(40 * every)
    merged = np.flatnonzero(jax.vmap(ReplayConfig(4, merge_every=every).merges_at)(steps))
    waits = np.diff(merged)
    assert merged[0] == 0
    assert np.all(waits <= np.clip((merged[1:] + 1) // 8, 1, every))
    assert np.all(waits[merged[1:] >= 9 * every] == every)


def test_no_more_may_wait_than_fit_the_buffer():
    with pytest.raises(ValueError, match="12 objects that wait to be merged do not fit"):
        replay.empty(X_LIKE, 10, room_to_wait=12)


def test_objects_that_are_not_compared_cannot_be_refreshed():
    values = jnp.zeros(1)
    with pytest.raises(ValueError, match="needs unique=True"):
        replay.add(
            replay.empty(X_LIKE, 5, unique=False),
            jnp.zeros((1, 2), jnp.int32),
            values,
            values,
            renew_age=False,
        )


def test_everything_is_kept_by_default():
    x = jnp.asarray([[0, 1], [2, 3]], jnp.int32)
    buffer = compiled_add(True)(replay.empty(X_LIKE, 3), x, jnp.zeros(2), jnp.asarray([1.0, 2.0]))
    assert int(buffer.size) == 2
    np.testing.assert_array_equal(buffer.rank, [1, 0, 3])


def test_buffers_of_several_seeds_are_a_vmap():
    key = jax.random.key(0)
    buffers = [replay.empty(X_LIKE, 5) for _ in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *buffers)
    add_all, keep = jax.jit(jax.vmap(replay.add)), jnp.ones((3, 3), bool)
    for step in range(5):
        k1, k2 = jax.random.split(jax.random.fold_in(key, step))
        x = jax.random.randint(k1, (3, 3, 2), 0, 3)
        priority = jax.random.normal(k2, (3, 3))
        stacked = add_all(stacked, x, priority, priority, keep)
        buffers = [
            compiled_add(True)(b, x[i], priority[i], priority[i], keep[i])
            for i, b in enumerate(buffers)
        ]
    for i, alone in enumerate(buffers):
        for a, b in zip(jax.tree.leaves(stacked), jax.tree.leaves(alone), strict=True):
            np.testing.assert_array_equal(a[i], b)


def test_objects_may_be_any_pytree_of_numbers():
    """Floats, small integers and flags: told apart by all their parts."""
    like = {
        "a": jax.ShapeDtypeStruct((2,), jnp.float32),
        "b": jax.ShapeDtypeStruct((), jnp.int8),
        "c": jax.ShapeDtypeStruct((1,), jnp.bool_),
    }
    x = {
        "a": jnp.asarray([[0, 1], [0, 1], [0, 1], [1, 0], [0, 1]], jnp.float32),
        "b": jnp.asarray([1, 2, 1, 1, 1], jnp.int8),
        "c": jnp.asarray([[False], [False], [True], [False], [False]]),
    }
    values = jnp.arange(5.0)
    buffer = compiled_add(True)(replay.empty(like, 8), x, values, values)
    assert int(buffer.size) == 4  # the last equals the first
    assert sorted(np.asarray(buffer.log_reward)[:4]) == [1, 2, 3, 4]


def test_fingerprints_tell_all_cells_of_a_large_grid_apart():
    cells = np.stack(np.meshgrid(*[np.arange(32)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    marks = np.asarray(jax.jit(jax.vmap(replay.fingerprint))(jnp.asarray(cells[::5], jnp.int32)))
    assert len(np.unique(marks, axis=0)) == len(marks)
    # Each half alone spreads evenly over 64 buckets.
    for half in marks.T:
        assert fits(np.bincount(half % 64, minlength=64), np.full(64, 1 / 64))
        assert fits(np.bincount(half >> 26, minlength=64), np.full(64, 1 / 64))


# ---- draws -----------------------------------------------------------------------------------

DRAWS = 60_000


def filled(size: int, capacity: int = 40) -> replay.Replay:
    """A buffer of `size` objects (i, 0), of which a higher i has a higher priority."""
    buffer = replay.empty(X_LIKE, capacity)
    for i in np.random.default_rng(0).permutation(size):
        value = jnp.asarray([float(i)])
        buffer = compiled_add(True)(buffer, jnp.asarray([[i, 0]], jnp.int32), value, value)
    return buffer


def filled_by_waiting(size: int, capacity: int = 40) -> replay.Replay:
    """The same by merges of four; then four of yet higher priority wait, not to be drawn."""
    buffer = replay.empty(X_LIKE, capacity, room_to_wait=4)
    numbers = np.append(np.random.default_rng(0).permutation(size), np.arange(size, size + 4))
    for part in np.split(numbers, range(4, len(numbers), 4)):
        x = jnp.stack([jnp.asarray(part, jnp.int32), jnp.zeros(len(part), jnp.int32)], 1)
        value = jnp.asarray(part, jnp.float32)
        waiting = replay.wait(buffer.waiting, x, value, value, jnp.ones(len(part), bool))
        buffer = dataclasses.replace(buffer, waiting=waiting)
        if part[-1] < size:
            buffer = compiled_merge(buffer)
    return buffer


def rank_law(size: int, offset: float | None) -> np.ndarray:
    """Probability of rank r, ∝ 1/(k·N + r)."""
    weight = np.ones(size) if offset is None else 1 / (offset * size + np.arange(size))
    return weight / weight.sum()


@eqx.filter_jit
def draw(buffer: replay.Replay, key, rule):
    return replay.sample(buffer, key, DRAWS, rule)


def by_rank(offset: float | None) -> replay.Draw:
    return UniformDraw() if offset is None else RankDraw(jnp.asarray(offset))


def rank_counts(buffer: replay.Replay, key, rule) -> np.ndarray:
    x, log_reward, real = draw(buffer, key, rule)
    assert np.all(real)
    np.testing.assert_array_equal(x[:, 0], log_reward)  # what is drawn belongs together
    size = int(buffer.size)
    return np.bincount(size - 1 - np.asarray(x[:, 0]), minlength=size)


@pytest.mark.parametrize("offset", [0.01, 0.5, None])
@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_draws_follow_the_law_of_ranks(size, offset, key):
    assert fits(rank_counts(filled(size), key, by_rank(offset)), rank_law(size, offset))


@pytest.mark.parametrize(
    ("rule", "law"),
    [
        (UniformDraw(), lambda: rank_law(40, None)),
        (RankDraw(jnp.asarray(0.01)), lambda: rank_law(40, 0.01)),
        (SplitDraw(jnp.asarray(0.5), jnp.asarray(0.1)), lambda: split_law(40, 0.5, 0.1)),
        (
            TemperedDraw(jnp.asarray(0.5)),
            lambda: tempered_law(np.arange(40.0), 0.5)[::-1],
        ),
    ],
    ids=["uniform", "rank", "split", "tempered"],
)
def test_draws_between_merges_follow_the_law_of_what_is_merged(rule, law, key):
    buffer = filled_by_waiting(40)
    assert int(buffer.waiting.count) == 4
    assert fits(rank_counts(buffer, key, rule), law())


def test_draws_know_what_is_added_at_once_to_a_buffer_with_room(key):
    x = jnp.asarray([[i, 0] for i in range(4)], jnp.int32)
    value = jnp.arange(4.0)
    buffer = replay.add(replay.empty(X_LIKE, 40, room_to_wait=4), x, value, value)
    assert fits(rank_counts(buffer, key, RankDraw(jnp.asarray(0.01))), rank_law(4, 0.01))


def test_nothing_is_merged_where_nothing_can_wait():
    with pytest.raises(ValueError, match="make it with room_to_wait"):
        replay.merge(replay.empty(X_LIKE, 5))


def test_the_check_of_draws_fails_for_a_wrong_sampler(key):
    """Wrong sampler: k = 0.012 in place of 0.01."""
    assert rejects(rank_counts(filled(40), key, by_rank(0.012)), rank_law(40, 0.01))


def test_draws_of_a_large_buffer_follow_the_law_of_ranks(key):
    """At the largest capacity of the paper's presets, in 50 groups of ranks: float32 resolves
    them.
    """
    size = 104_268
    draw = jax.jit(replay._rank_from_uniform)
    uniform = jax.random.uniform(key, (400_000,))
    rank = np.asarray(draw(uniform, jnp.asarray(size), 0.01))
    assert rank.min() >= 0
    assert rank.max() < size
    edges = np.unique(np.geomspace(1, size, 50).astype(int))
    law = np.add.reduceat(rank_law(size, 0.01), np.append(0, edges[:-1]))
    counts = np.histogram(rank, np.concatenate([[0], edges]))[0]
    assert fits(counts, law)


def test_the_smallest_and_largest_uniform_give_the_first_and_last_rank():
    last = np.nextafter(np.float32(1), np.float32(0))
    for size in (1, 2, 50, 104_268):
        ranks = replay._rank_from_uniform(jnp.asarray([0.0, last]), jnp.asarray(size), 0.01)
        assert ranks[0] == 0
        assert size - 1 - size // 500 <= ranks[1] <= size - 1


def split_law(size: int, share: float, top: float) -> np.ndarray:
    high = np.ceil(top * size)
    is_high = np.arange(size) < high
    return np.where(is_high, share / high, (1 - share) / (size - high))


@pytest.mark.parametrize(("share", "top"), [(0.5, 0.1), (0.25, 0.33)])
def test_split_draws_follow_their_law(share, top, key):
    rule = SplitDraw(jnp.asarray(share), jnp.asarray(top))
    counts = rank_counts(filled(40), key, rule)
    high = int(np.ceil(top * 40))
    assert counts[:high].sum() == round(share * DRAWS)  # exactly, in every batch
    assert fits(counts, split_law(40, share, top))
    assert rejects(counts, split_law(40, share + 0.02, top))
    assert rejects(counts, split_law(40, share, top + 0.05))


def test_split_draws_take_what_there_is(key):
    """Of one object it alone, and all of them where all are the highest."""
    rule = SplitDraw(jnp.asarray(0.5), jnp.asarray(0.1))
    assert rank_counts(filled(1), key, rule) == [DRAWS]
    everything = SplitDraw(jnp.asarray(0.5), jnp.asarray(1.0))
    assert fits(rank_counts(filled(7), key, everything), rank_law(7, None))


def tempered_law(priority: np.ndarray, target_ess: float) -> np.ndarray:
    """exp(τ·priority) in float64, τ by Brent's method."""

    def weight(tau: float) -> np.ndarray:
        return np.exp(tau * (priority - priority.max()))

    def surplus(tau: float) -> float:
        return weight(tau).sum() ** 2 / np.square(weight(tau)).sum() - target_ess * len(priority)

    tau: Any = 1.0 if surplus(1.0) >= 0 else brentq(surplus, 0, 1, xtol=1e-14)
    return weight(tau) / weight(tau).sum()


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e6])
@pytest.mark.parametrize("target_ess", [0.3, 0.9])
def test_tempered_draws_follow_their_law(target_ess, scale, key):
    """Priorities 0 … 39 times `scale`: tempered, not tempered, and far beyond float32's exp."""
    buffer = filled(40)
    buffer = eqx.tree_at(lambda b: b.priority, buffer, scale * buffer.priority)
    counts = rank_counts(buffer, key, TemperedDraw(jnp.asarray(target_ess)))
    rank_priority = scale * np.arange(39.0, -1, -1)
    assert fits(counts, tempered_law(rank_priority, target_ess))
    if scale != 1e-3:
        assert rejects(counts, tempered_law(rank_priority, target_ess - 0.05))


@pytest.mark.parametrize(
    ("priority", "law"),
    [
        ([2.0] * 4, [0.25] * 4),  # equal: at any target
        ([0.0, 0.0, 0.0, -np.inf], [1 / 3, 1 / 3, 1 / 3, 0]),
        ([0.0, -np.inf, -np.inf, -np.inf], [0.25] * 4),  # no τ > 0 reaches the target
        ([-np.inf] * 4, [0.25] * 4),
        ([np.inf, np.inf, np.inf, 0.0], [1 / 3, 1 / 3, 1 / 3, 0]),
        ([-1e30], [1.0]),
    ],
    ids=str,
)
def test_tempered_draws_of_extreme_priorities(priority, law, key):
    size = len(priority)
    buffer = filled(size)
    falling = jnp.asarray(priority, jnp.float32)
    buffer = eqx.tree_at(
        lambda b: b.priority, buffer, buffer.priority.at[:size].set(falling[buffer.rank[:size]])
    )
    counts = rank_counts(buffer, key, TemperedDraw(jnp.asarray(0.7)))
    assert np.all(counts[np.asarray(law) == 0] == 0)
    assert fits(counts, law)


@functools.partial(jax.jit, static_argnums=2)
def tempered_weights(log_weight, target_ess, size):
    present = jnp.arange(log_weight.shape[0]) < size
    return replay._tempered(log_weight, present, target_ess)


def test_tempering_is_as_weak_as_the_target_allows():
    """In a large buffer, half full: the effective sample size is met, and nowhere exceeded."""
    capacity, size = 4000, 2000
    falling = jnp.sort(30 * jax.random.normal(jax.random.key(3), (capacity,)), descending=True)
    for target_ess in (0.01, 0.5, 1.0):
        weight = np.asarray(tempered_weights(falling, target_ess, size), np.float64)
        assert np.all(weight[size:] == 0)
        ess = weight.sum() ** 2 / np.square(weight).sum()
        np.testing.assert_allclose(ess, target_ess * size, rtol=1e-4)


RULES = [UniformDraw(), RankDraw(), SplitDraw(), TemperedDraw(0.5)]
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)


@every_rule
def test_an_empty_buffer_says_that_its_draws_are_not_real(rule, key):
    x, log_reward, real = replay.sample(replay.empty(X_LIKE, 5), key, 3, rule)
    assert not np.any(real)
    assert np.all(np.isfinite(log_reward))
    assert x.shape == (3, 2)


def draw_by_all(buffer: replay.Replay, key):
    return [replay.sample(buffer, key, 6, rule) for rule in RULES]


def test_draws_of_several_seeds_are_a_vmap(key):
    buffers = [filled(size, 9) for size in (9, 4, 1)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *buffers)
    keys = jax.random.split(key, 3)
    together = jax.jit(jax.vmap(draw_by_all))(stacked, keys)
    one = jax.jit(draw_by_all)
    for i, buffer in enumerate(buffers):
        alone = one(buffer, keys[i])
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_array_equal(a[i], b)


# ---- configuration ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"capacity": 0}, "capacity must be >= 1"),
        ({"capacity": 4, "rank_offset": 0.0}, "rank_offset must be > 0"),
        ({"capacity": 4, "merge_every": 0}, "merge_every must be >= 1"),
        ({"capacity": 4, "asymmetry": -1.0}, "asymmetry must be >= 0"),
        ({"capacity": 4, "target_ess": 0.0}, "target_ess must be > 0"),
        ({"capacity": 4, "target_ess": 1.1}, "target_ess must be <= 1"),
        ({"capacity": 4, "target_ess": 0.5, "split": SplitDraw()}, "give one of them"),
        ({"capacity": 4, "priority": "none", "target_ess": 0.5}, "other than 'none'"),
        ({"capacity": 4, "priority": "none", "split": SplitDraw()}, "other than 'none'"),
        ({"capacity": 4, "unique": False, "refresh": True}, "needs unique=True"),
    ],
)
def test_impossible_settings_are_refused(settings, remedy):
    with pytest.raises(ValueError, match=remedy):
        ReplayConfig(**settings)


@pytest.mark.parametrize(
    ("rule", "remedy"),
    [
        (functools.partial(RankDraw, 0.0), "offset must be > 0"),
        (functools.partial(SplitDraw, 1.5), r"share must lie in \[0, 1\]"),
        (functools.partial(SplitDraw, top=0.0), "top must be > 0"),
        (functools.partial(SplitDraw, top=1.5), "top must be <= 1"),
        (functools.partial(TemperedDraw, 0.0), "target_ess must be > 0"),
        (functools.partial(TemperedDraw, 1.5), "target_ess must be <= 1"),
    ],
)
def test_impossible_rules_are_refused(rule, remedy):
    with pytest.raises(ValueError, match=remedy):
        rule()


def test_a_configuration_names_the_rule_of_its_draws():
    assert ReplayConfig(4, "none").draw == UniformDraw()
    assert ReplayConfig(4).draw == RankDraw(0.01)
    assert ReplayConfig(4, "loss", rank_offset=None).draw == UniformDraw()
    assert ReplayConfig(4, "weight", target_ess=0.3).draw == TemperedDraw(0.3)
    assert ReplayConfig(4, "teacher", split=SplitDraw(0.4)).draw == SplitDraw(0.4, 0.1)
