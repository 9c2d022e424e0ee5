"""The replay buffer against a plain Python model, and the law of its draws."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from didact import replay
from didact.replay import ReplayConfig

from .._statistics import fits, rejects

X_LIKE = jax.ShapeDtypeStruct((2,), jnp.int32)


class Model:
    """What a buffer is: a dictionary in order of age, oldest first."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.held: collections.OrderedDict[tuple, tuple[float, float]] = collections.OrderedDict()

    def add(self, x, log_reward, priority, keep, renew_age) -> None:
        for item, r, p, kept in zip(x, log_reward, priority, keep, strict=True):
            if not kept:
                continue
            if not renew_age:
                if item in self.held:
                    self.held[item] = (r, p)
                continue
            self.held.pop(item, None)
            self.held[item] = (r, p)
            if len(self.held) > self.capacity:
                self.held.popitem(last=False)


@functools.cache
def compiled_add(renew_age: bool):
    return jax.jit(functools.partial(replay.add, renew_age=renew_age))


def check(buffer: replay.Replay, model: Model) -> None:
    """The buffer holds what the model holds, in its order of age, ranked by priority."""
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
    by_age = [(tuple(x[s]), (log_reward[s], priority[s])) for s in np.argsort(age[:size])]
    assert by_age == list(model.held.items())
    by_rank = priority[np.argsort(rank[:size])]
    assert np.all(np.diff(by_rank) <= 0)


def batches(size: int):
    """Batches of few distinct objects and priorities, so that all kinds of ties happen."""
    item = st.tuples(st.integers(0, 2), st.integers(0, 3))
    return st.tuples(
        st.lists(item, min_size=size, max_size=size),
        st.lists(st.integers(-2, 3), min_size=size, max_size=size),
        st.lists(st.booleans() | st.just(True), min_size=size, max_size=size),
        st.booleans() | st.just(True),
    )


@pytest.mark.parametrize(("capacity", "batch"), [(5, 3), (4, 4), (1, 1)], ids=str)
def test_any_sequence_of_additions_does_what_the_model_does(capacity, batch):
    """Objects unique, the oldest out first, renewal, refreshing, duplicates in a batch, masks."""

    @given(st.lists(batches(batch), max_size=10))
    def run(operations):
        buffer, model = replay.empty(X_LIKE, capacity), Model(capacity)
        for number, (x, priority, keep, renew_age) in enumerate(operations):
            log_reward = [float(10 * number + i) for i in range(batch)]
            model.add(x, log_reward, [float(p) for p in priority], keep, renew_age)
            buffer = compiled_add(renew_age)(
                buffer,
                jnp.asarray(x, jnp.int32),
                jnp.asarray(log_reward),
                jnp.asarray(priority, jnp.float32),
                jnp.asarray(keep),
            )
            check(buffer, model)

    run()


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


def rank_law(size: int, offset: float | None) -> np.ndarray:
    """Probability of rank r, ∝ 1/(k·N + r)."""
    weight = np.ones(size) if offset is None else 1 / (offset * size + np.arange(size))
    return weight / weight.sum()


@jax.jit
def draw(buffer: replay.Replay, key, offset):
    return replay.sample(buffer, key, DRAWS, rank_offset=offset)


def rank_counts(buffer: replay.Replay, key, offset) -> np.ndarray:
    x, log_reward, real = draw(buffer, key, offset)
    assert np.all(real)
    np.testing.assert_array_equal(x[:, 0], log_reward)  # what is drawn belongs together
    size = int(buffer.size)
    return np.bincount(size - 1 - np.asarray(x[:, 0]), minlength=size)


@pytest.mark.parametrize("offset", [0.01, 0.5, None])
@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_draws_follow_the_law_of_ranks(size, offset, key):
    assert fits(rank_counts(filled(size), key, offset), rank_law(size, offset))


def test_the_check_of_draws_fails_for_a_wrong_sampler(key):
    """Wrong sampler: k = 0.012 in place of 0.01."""
    assert rejects(rank_counts(filled(40), key, 0.012), rank_law(40, 0.01))


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


@pytest.mark.parametrize("offset", [0.01, None])
def test_an_empty_buffer_says_that_its_draws_are_not_real(offset, key):
    x, log_reward, real = replay.sample(replay.empty(X_LIKE, 5), key, 3, rank_offset=offset)
    assert not np.any(real)
    assert np.all(np.isfinite(log_reward))
    assert x.shape == (3, 2)


# ---- configuration ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"capacity": 0}, "capacity must be >= 1"),
        ({"capacity": 4, "rank_offset": 0.0}, "rank_offset must be > 0"),
        ({"capacity": 4, "asymmetry": -1.0}, "asymmetry must be >= 0"),
    ],
)
def test_impossible_settings_are_refused(settings, remedy):
    with pytest.raises(ValueError, match=remedy):
        ReplayConfig(**settings)


def test_without_priorities_draws_are_uniform():
    assert ReplayConfig(4, "none").draw_offset is None
    assert ReplayConfig(4, "reward").draw_offset == 0.01
    assert ReplayConfig(4, "reward", rank_offset=None).draw_offset is None
