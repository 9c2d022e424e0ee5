"""What is drawn from a buffer was added to it, whatever objects are and however they are drawn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from didact import replay
from didact.replay import RankDraw, SplitDraw, TemperedDraw, UniformDraw

CAPACITY, BATCH = 6, 4
RULES = {
    "uniform": UniformDraw(),
    "rank": RankDraw(0.01),
    "split": SplitDraw(0.5, 0.3),
    "tempered": TemperedDraw(0.5),
}
OBJECTS = {
    "int32": lambda n: jnp.asarray([n, 7], jnp.int32),
    "int8": lambda n: jnp.asarray([[n], [-n]], jnp.int8),
    "bool": lambda n: jnp.asarray([n & 1, n & 2, n & 4], bool),
    "float32": lambda n: jnp.asarray(n / 3, jnp.float32),
    "tree": lambda n: {"word": jnp.asarray([n], jnp.int32), "place": jnp.asarray(0.5 * n)},
}
"""Objects by their number, below 8."""

additions = st.lists(
    st.tuples(
        st.lists(st.integers(0, 7), min_size=BATCH, max_size=BATCH),
        st.lists(st.integers(-3, 3), min_size=BATCH, max_size=BATCH),
    ),
    min_size=1,
    max_size=5,
)


@functools.cache
def _compiled(rule):
    return jax.jit(replay.add), jax.jit(
        lambda buffer, key: replay.sample(buffer, key, 32, RULES[rule])
    )


def _rows(tree) -> list[bytes]:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return [b"".join(leaf[i].tobytes() for leaf in leaves) for i in range(len(leaves[0]))]


def _check(kind: str, rule: str, operations) -> None:
    add, sample = _compiled(rule)
    make = jax.jit(jax.vmap(OBJECTS[kind]))
    buffer = replay.empty(jax.eval_shape(lambda: OBJECTS[kind](1)), CAPACITY)
    rewards: dict[bytes, float] = {}
    for number, (numbers, priority) in enumerate(operations):
        x = make(jnp.asarray(numbers, jnp.int32))
        log_reward = [10.0 * number + i for i in range(BATCH)]
        buffer = add(buffer, x, jnp.asarray(log_reward), jnp.asarray(priority, jnp.float32))
        rewards |= dict(zip(_rows(x), log_reward, strict=True))
        size = int(buffer.size)
        held = _rows(buffer.x)[:size]
        assert len(set(held)) == size == min(len(rewards), CAPACITY)
        drawn, reward, real = sample(buffer, jax.random.key(number))
        assert np.all(real)
        for row, value in zip(_rows(drawn), np.asarray(reward), strict=True):
            assert row in held
            assert rewards[row] == value


@settings(max_examples=12)
@given(additions)
def test_what_is_drawn_was_added_with_its_latest_reward(operations):
    _check("int32", "rank", operations)


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", OBJECTS)
def test_whatever_objects_are_and_however_they_are_drawn(kind, rule):
    @settings(max_examples=25)
    @given(additions)
    def run(operations):
        _check(kind, rule, operations)

    run()
