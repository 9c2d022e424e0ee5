"""Packing of lanes and rows changes nothing, whatever is packed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from didact._sampler import _layout, _where, sample_forward
from didact.environments import Autoregressive, Hypergrid, PrependAppend, Trajectory

from .._tabular import network_sampler

ENVIRONMENTS = (Hypergrid(1, 9), Hypergrid(3, 4), PrependAppend(3, 4), Autoregressive(2, 5))


@eqx.filter_jit
def _plain_rollouts(sampler, key, number: int):
    """The same trajectories edge by edge, all lanes to the horizon."""
    env = sampler.environment
    start = env.initial_state()
    noise = sampler.forward_kernel(start).noise(key, (env.num_steps, number))

    def step(state, noise):
        action = sampler.forward_kernel(state).from_noise(noise)
        after = _where(env.is_terminal(state), state, env.step(state, action))
        return after, (after, action, ~env.is_terminal(state))

    def one(noise):
        _, (states, actions, mask) = jax.lax.scan(step, start, noise)
        states = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), start, states)
        return Trajectory(states, actions, mask)

    return jax.vmap(one, in_axes=1)(noise)


def _assert_packing_changes_nothing(env, number: int, sharpness: float, seed: int) -> None:
    sampler = network_sampler(env, jax.random.key(seed), sharpness=sharpness)
    key = jax.random.key(seed + 1)
    packed = eqx.filter_jit(sample_forward)(sampler, key, number)
    plain = _plain_rollouts(sampler, key, number)
    np.testing.assert_array_equal(packed.mask, plain.mask)
    for a, b in zip(jax.tree.leaves(packed.states), jax.tree.leaves(plain.states), strict=True):
        np.testing.assert_array_equal(a, b)
    real = np.asarray(plain.mask)
    np.testing.assert_array_equal(np.asarray(packed.actions)[real], np.asarray(plain.actions)[real])


@settings(max_examples=2)
@given(st.integers(4, 21), st.sampled_from([0.5, 8.0]), st.integers(0, 99))
def test_packed_rollouts_are_those_of_a_plain_loop(number, sharpness, seed):
    _assert_packing_changes_nothing(Hypergrid(2, 6), number, sharpness, seed)


@pytest.mark.slow
@settings(max_examples=25)
@given(
    st.sampled_from(ENVIRONMENTS),
    st.integers(1, 33),
    st.sampled_from([0.5, 8.0]),
    st.integers(0, 99),
)
def test_packed_rollouts_in_every_environment(env, number, sharpness, seed):
    _assert_packing_changes_nothing(env, number, sharpness, seed)


@eqx.filter_jit
def _laid_out(trajectory, learns_backward: bool, ends: bool):
    return _layout(trajectory, learns_backward or ends)


@st.composite
def batches(draw, batch: int = 5, steps: int = 4):
    """States of few numbers, so that many are equal; each trajectory padded at either end."""
    values = st.integers(0, 3)
    states = draw(
        st.lists(values, min_size=2 * batch * (steps + 1), max_size=2 * batch * (steps + 1))
    )
    lengths = draw(st.lists(st.integers(0, steps), min_size=batch, max_size=batch))
    front = draw(st.booleans())
    place = np.arange(steps)
    mask = np.stack([place >= steps - n if front else place < n for n in lengths])
    return np.int32(states).reshape(batch, steps + 1, 2), mask


@settings(max_examples=60)
@given(batches(), st.booleans())
def test_every_state_that_is_scored_has_a_row_of_its_own_value(batch, learned):
    states, mask = batch
    trajectory = Trajectory(
        jnp.asarray(states), jnp.zeros(mask.shape, jnp.int32), jnp.asarray(mask)
    )
    place = jax.tree.map(np.asarray, _laid_out(trajectory, learned, False))
    wanted = np.pad(mask, ((0, 0), (0, 1)))
    if learned:
        wanted |= np.pad(mask, ((0, 0), (1, 0)))
    count, flat = place.count.item(), states.reshape(-1, 2)
    rows = flat[place.node[:count]]
    # Its row holds the state, no row is padding, and no two trajectories disagree about it.
    assert np.all(place.slot[wanted] < count)
    np.testing.assert_array_equal(rows[place.slot[wanted]], states[wanted])
    assert np.all(wanted.reshape(-1)[place.node[:count]])
    assert len(np.unique(states[wanted], axis=0)) <= count <= max(wanted.sum(), 0)
