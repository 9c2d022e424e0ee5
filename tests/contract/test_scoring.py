"""Scores are the kernels' log-probabilities of the edges, however the rows are packed."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact._sampler import layout, sample_backward, sample_forward, score
from didact.environments import Hypergrid, published_backward_kernel

from .._tabular import edge_scores, graph, network_sampler

ENV = Hypergrid(2, 5)
BATCH = 6
SAMPLERS = {
    "fixed-pb": {},
    "fixed-pb-flow": {"flow_head": True},
    "learned-pb": {"backward_head": True},
    "learned-pb-flow": {"backward_head": True, "flow_head": True},
    "published-pb": {"backward_scoring": published_backward_kernel},
}
every_sampler = pytest.mark.parametrize("heads", SAMPLERS.values(), ids=SAMPLERS)
every_direction = pytest.mark.parametrize("direction", ["forward", "backward"])

some_samplers = pytest.mark.parametrize(
    "heads", [{}, SAMPLERS["learned-pb-flow"]], ids=["fixed-pb", "learned-pb-flow"]
)

compiled_score, compiled_layout = eqx.filter_jit(score), eqx.filter_jit(layout)


def sampler_of(heads):
    return network_sampler(ENV, jax.random.key(5), **heads)


@functools.cache
def trajectories(direction):
    sampler, key = sampler_of({}), jax.random.key(6)
    if direction == "forward":
        return sample_forward(sampler, key, BATCH)
    x = jnp.asarray([[0, 0], [4, 0], [0, 4], [4, 3], [3, 3], [2, 1]], jnp.int32)
    return sample_backward(sampler, key, x)


def inputs(direction):
    trajectory = trajectories(direction)
    return trajectory, jnp.linspace(-2, 1, BATCH), jnp.ones(BATCH)


@every_sampler
@every_direction
def test_scores_are_those_of_the_kernels_edge_by_edge(heads, direction):
    sampler, law = sampler_of(heads), graph(ENV)
    trajectory, log_reward, weight = inputs(direction)
    scored = compiled_score(sampler, trajectory, log_reward, weight)
    table_pf, table_pb = edge_scores(sampler, law)
    mask = np.asarray(trajectory.mask)
    flat = jax.tree.map(lambda leaf: leaf[:, :-1].reshape(-1, *leaf.shape[2:]), trajectory.states)
    number = law.numbers(flat).reshape(mask.shape)
    action = np.asarray(trajectory.actions)
    np.testing.assert_allclose(scored.log_pf[mask], table_pf[number[mask], action[mask]], atol=1e-5)
    np.testing.assert_allclose(scored.log_pb[mask], table_pb[number[mask], action[mask]], atol=1e-5)
    assert np.all(np.asarray(scored.log_pf)[~mask] == 0)
    assert np.all(np.asarray(scored.log_pb)[~mask] == 0)
    np.testing.assert_array_equal(scored.mask, mask)
    np.testing.assert_array_equal(scored.log_reward, log_reward)
    assert scored.log_z == sampler.log_z
    if scored.log_flow is None:
        assert not heads.get("flow_head")
        return
    for b in range(BATCH):
        for t in np.flatnonzero(mask[b]):
            state = jax.tree.map(lambda leaf, b=b, t=t: leaf[b, t], trajectory.states)
            np.testing.assert_allclose(scored.log_flow[b, t], sampler.log_flow(state), atol=1e-5)
        assert scored.log_flow[b, -1] == log_reward[b]
        assert scored.log_flow[b, np.flatnonzero(mask[b])[-1] + 1] == log_reward[b]


@some_samplers
@every_direction
def test_any_sufficient_number_of_rows_gives_the_same_scores(heads, direction):
    sampler = sampler_of(heads)
    trajectory, log_reward, weight = inputs(direction)
    place = compiled_layout(sampler, trajectory)
    need, most = place.count.item(), BATCH * (ENV.num_steps + 1)
    assert need < most
    whole = compiled_score(sampler, trajectory, log_reward, weight)
    for rows in (need, (need + most) // 2):
        packed = compiled_score(sampler, trajectory, log_reward, weight, place, rows)
        assert jax.tree.structure(packed) == jax.tree.structure(whole)
        for a, b in zip(jax.tree.leaves(packed), jax.tree.leaves(whole), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


@every_direction
def test_one_row_too_few_loses_an_edge(direction):
    """So that the test above can fail: the count of rows is not an over-estimate."""
    sampler = sampler_of({})
    trajectory, log_reward, weight = inputs(direction)
    place = compiled_layout(sampler, trajectory)
    whole = compiled_score(sampler, trajectory, log_reward, weight)
    cut = compiled_score(sampler, trajectory, log_reward, weight, place, place.count.item() - 1)
    assert not np.allclose(whole.log_pf, cut.log_pf, atol=1e-6)


@some_samplers
@every_direction
def test_the_network_sees_each_state_of_a_batch_once_at_most(heads, direction):
    """Rows are distinct states, none is padding, and every real edge finds its state."""
    sampler, law = sampler_of(heads), graph(ENV)
    trajectory, _, _ = inputs(direction)
    place = compiled_layout(sampler, trajectory)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), trajectory.states)
    number = law.numbers(flat)
    mask = np.asarray(trajectory.mask)
    wanted = np.pad(mask, ((0, 0), (0, 1)))
    if heads.get("backward_head"):
        wanted |= np.pad(mask, ((0, 0), (1, 0)))
    rows = number[np.asarray(place.node)[: place.count.item()]]
    np.testing.assert_array_equal(np.unique(rows), np.unique(number[wanted.ravel()]))
    # The hash table may miss a few twins, never most of them.
    assert len(np.unique(rows)) <= len(rows) < wanted.sum()
    slot = np.asarray(place.slot)[wanted]
    assert np.all(slot < place.count.item())
    np.testing.assert_array_equal(rows[slot], number.reshape(wanted.shape)[wanted])


def test_published_scoring_changes_scores_of_p_b_only_and_only_at_the_border():
    trajectory, log_reward, weight = inputs("backward")
    right = compiled_score(sampler_of({}), trajectory, log_reward, weight)
    theirs = compiled_score(sampler_of(SAMPLERS["published-pb"]), trajectory, log_reward, weight)
    np.testing.assert_allclose(theirs.log_pf, right.log_pf, atol=1e-6)
    difference = np.asarray(theirs.log_pb.sum(axis=1) - right.log_pb.sum(axis=1))
    # Of the six objects only (4, 3) is on the border with two coordinates above 0.
    np.testing.assert_allclose(difference, [0, 0, 0, -np.log(2), 0, 0], atol=1e-6)


def test_backward_trajectories_do_not_depend_on_published_scoring(key):
    x = jnp.tile(jnp.asarray([[4, 3]], jnp.int32), (64, 1))
    usual = sample_backward(sampler_of({}), key, x)
    published = sample_backward(sampler_of(SAMPLERS["published-pb"]), key, x)
    assert eqx.tree_equal(usual, published)


@some_samplers
def test_gradients_reach_every_parameter(heads):
    """log Z aside: it enters no score, only the objective."""
    trajectory, log_reward, weight = inputs("backward")
    params, rest = eqx.partition(sampler_of(heads), eqx.is_inexact_array)

    @eqx.filter_jit
    @jax.grad
    def gradient(params):
        scored = score(eqx.combine(params, rest), trajectory, log_reward, weight)
        flow = 0 if scored.log_flow is None else jnp.sum(scored.log_flow[:, :-1] ** 2)
        return jnp.sum(scored.log_pf) + jnp.sum(scored.log_pb**2) + flow

    for leaf in jax.tree.leaves(gradient(params).policy):
        assert np.all(np.isfinite(leaf))
        assert np.any(np.asarray(leaf) != 0)
    last = gradient(params).policy.layers[-1]
    reached = np.any(np.asarray(last.weight) != 0, axis=0) & (np.asarray(last.bias) != 0)
    expected = np.ones_like(reached)
    if heads.get("backward_head"):  # a stop is its state's only parent: nothing to learn
        expected[2 * ENV.num_actions - 1] = False
    np.testing.assert_array_equal(reached, expected)
