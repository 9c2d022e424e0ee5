"""Environments of random sizes obey their laws; ways forth and back meet at every size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from didact.environments import (
    Autoregressive,
    Brownian,
    Diffusion,
    DiffusionState,
    Hypergrid,
    PrependAppend,
    VariancePreserving,
)
from didact.testing import check_environment

MOST_STATES = 400


def _num_states(kind, size) -> int:
    if kind is Hypergrid:
        dim, side = size
        return 2 * (side - 1) ** dim + dim * (side - 1) ** (dim - 1)
    symbols, length = size
    return sum(symbols**n for n in range(length + 1))


# What is drawn are numbers: the checker of types, which looks at what is made of them, draws too.
grids = st.tuples(st.just(Hypergrid), st.tuples(st.integers(1, 4), st.integers(2, 12)))
strings = st.tuples(
    st.sampled_from([PrependAppend, Autoregressive]),
    st.tuples(st.integers(1, 5), st.integers(1, 6)),
)
enumerable = st.one_of(grids, strings).filter(lambda drawn: _num_states(*drawn) <= MOST_STATES)
diffusions = st.fixed_dictionaries(
    {
        "dim": st.integers(1, 4),
        "gaps": st.lists(st.floats(0.05, 1.0), min_size=1, max_size=6),
        "sigma": st.floats(0.3, 4.0),
        "brownian": st.booleans(),
        "even": st.booleans(),
        "log_variance_range": st.sampled_from([None, 1.5]),
        "drift": st.sampled_from(["time", "noise"]),
    }
)
"""Of any dimension, number of steps, process and times."""


def make_diffusion(dim, gaps, sigma, brownian, even, log_variance_range, drift) -> Diffusion:
    inner = (np.cumsum(gaps) / np.sum(gaps)).tolist()[:-1]
    process = Brownian(sigma) if brownian else VariancePreserving(sigma, 0.1, 5.0)
    times = None if even else (0.0, *inner, 1.0)
    return Diffusion(dim, len(gaps), process, times, log_variance_range, drift)


@settings(max_examples=2)
@given(enumerable)
def test_enumerable_environments_of_random_sizes(drawn):
    kind, size = drawn
    assert check_environment(kind(*size)).extent == f"all {_num_states(kind, size)} states"


@pytest.mark.slow
@settings(max_examples=40)
@given(enumerable)
def test_enumerable_environments_of_many_sizes(drawn):
    kind, size = drawn
    check_environment(kind(*size))


@pytest.mark.slow
@settings(max_examples=20)
@given(diffusions)
def test_diffusions_of_many_shapes(drawn):
    check_environment(make_diffusion(**drawn))


@jax.jit
def _there_and_back(position, action):
    env = Diffusion(position.shape[-1], 3)

    def one(position, action):
        before = DiffusionState(position, jnp.asarray(1, jnp.int32))
        return env.backward_step(env.step(before, action), action).position

    return jax.vmap(one)(position, action)


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=4, max_size=4),
    st.integers(-12, 0),
)
def test_increments_of_any_size_are_taken_away_to_2_ulp(pairs, power):
    """Whatever the sizes of the position and the edge are."""
    position, action = np.float32(pairs).T[:, :, None] * np.float32([[[1.0]], [[10.0**power]]])
    again = np.asarray(_there_and_back(jnp.asarray(position), jnp.asarray(action)))
    largest = np.maximum(np.maximum(np.abs(position), np.abs(action)), np.abs(position + action))
    assert np.all(np.abs(again - position) <= 2 * np.spacing(largest))


@st.composite
def words(draw):
    """A string, and the sides from which it loses its symbols."""
    num_symbols, length = draw(st.sampled_from([(2, 5), (4, 8)]))
    symbols = draw(st.lists(st.integers(0, num_symbols - 1), min_size=length, max_size=length))
    sides = draw(st.lists(st.booleans(), min_size=length, max_size=length))
    return num_symbols, symbols, sides


@settings(max_examples=40)
@given(words())
def test_a_string_is_taken_apart_and_put_together_again(word):
    """By edges of PrependAppend that P_B allows, in whatever order; each is allowed by P_F."""
    num_symbols, symbols, sides = word
    env = PrependAppend(num_symbols, len(symbols))
    states, allowed, length = _apart_and_together(env, np.int32(symbols), np.asarray(sides))
    assert np.all(allowed)
    assert length == 0
    np.testing.assert_array_equal(states.symbols, symbols)
    assert states.length == len(symbols)


def _apart_and_together(env, symbols, sides):
    return jax.jit(_walk, static_argnums=0)(env, symbols, sides)


def _walk(env, symbols, sides):
    def back(state, front):
        mask = env.backward_mask(state)
        # From the side that was drawn, where that is an edge.
        of_side = mask & ((jnp.arange(env.num_actions) < env.num_symbols) == front)
        action = jnp.argmax(jnp.where(jnp.any(of_side), of_side, mask)).astype(jnp.int32)
        return env.backward_step(state, action), action

    def forth(state, action):
        return env.step(state, action), env.forward_mask(state)[action]

    start, actions = jax.lax.scan(back, env.terminal_state(symbols), sides)
    end, allowed = jax.lax.scan(forth, start, actions[::-1])
    return end, allowed, start.length
