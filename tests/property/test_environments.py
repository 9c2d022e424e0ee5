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


def _is_small(env) -> bool:
    return env.num_internal + env.num_terminal_states <= MOST_STATES


grids = st.builds(Hypergrid, st.integers(1, 4), st.integers(2, 12))
strings = st.one_of(
    st.builds(kind, st.integers(1, 5), st.integers(1, 6))
    for kind in (PrependAppend, Autoregressive)
)
enumerable = st.one_of(grids, strings).filter(_is_small)


@st.composite
def diffusions(draw, most_steps: int = 6):
    """Of any dimension, number of steps, process and times."""
    steps = draw(st.integers(1, most_steps))
    gaps = draw(st.lists(st.floats(0.05, 1.0), min_size=steps, max_size=steps))
    inner = (np.cumsum(gaps) / np.sum(gaps)).tolist()[:-1]
    sigma = draw(st.floats(0.3, 4.0))
    process = draw(st.sampled_from([Brownian(sigma), VariancePreserving(sigma, 0.1, 5.0)]))
    times = draw(st.sampled_from([None, (0.0, *inner, 1.0)]))
    learned = draw(st.sampled_from([None, 1.5]))
    drift = draw(st.sampled_from(["time", "noise"]))
    return Diffusion(draw(st.integers(1, 4)), steps, process, times, learned, drift)


@settings(max_examples=3)
@given(enumerable)
def test_enumerable_environments_of_random_sizes(env):
    assert check_environment(env).extent.startswith("all ")


@pytest.mark.slow
@settings(max_examples=40)
@given(enumerable)
def test_enumerable_environments_of_many_sizes(env):
    check_environment(env)


@pytest.mark.slow
@settings(max_examples=20)
@given(diffusions())
def test_diffusions_of_many_shapes(env):
    check_environment(env)


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
