"""What GAFN's trajectory balance is balanced by: flows that edges add to, by dynamic programming.

With an intrinsic reward r on each edge, flows obey F(s) = Σ over children s' of F(s') P_B(s|s') +
r, the last edge of a way adding r to the reward instead (Pan et al., 2023).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact.environments import Hypergrid
from didact.objectives import GAFN, TB

from .._tabular import edge_scores, graph, optimal_sampler, score_all, table_sampler

ENV, SCALE = Hypergrid(3, 3), 0.3


def rewards() -> np.ndarray:
    return np.random.default_rng(0).uniform(-3, 2, ENV.num_terminal_states)


def how_new() -> np.ndarray:
    """A novelty of each state, by its number."""
    size = ENV.num_internal + ENV.num_terminal_states
    return np.random.default_rng(1).uniform(0, 3, size)


def augmented_sampler(novelty: np.ndarray):
    """The sampler whose flows hold the intrinsic rewards."""
    law, log_reward = graph(ENV), rewards()
    blank = table_sampler(law, np.zeros((law.num_internal, ENV.forward_size)), 0.0)
    log_pb = edge_scores(blank, law)[1]
    flow = np.concatenate([np.full(law.num_internal, np.nan), np.exp(log_reward)])
    log_pf = np.full((law.num_internal, ENV.forward_size), -1e9)
    for i in law.order[::-1]:
        edges = law.child[i] >= 0
        child = law.child[i, edges]
        backward, added = np.exp(log_pb[i, edges]), SCALE * novelty[child]
        ends = child >= law.num_internal
        share = np.where(ends, backward * (flow[child] + added), backward * flow[child] + added)
        flow[i] = share.sum()
        log_pf[i, edges] = np.log(share / flow[i])
    log_z = float(np.log(flow[law.order[0]]))
    return table_sampler(law, log_pf, log_z, log_flow=np.log(flow))


def scored(sampler, novelty: np.ndarray, *, pad_front: bool = False):
    """All trajectories of the environment, with the novelty of what each edge leads to."""
    law = graph(ENV)
    trajectory = law.trajectories(pad_front=pad_front)
    batch = score_all(sampler, law, rewards(), pad_front=pad_front)
    following = jax.tree.map(
        lambda leaf: leaf[:, 1:].reshape(-1, *leaf.shape[2:]), trajectory.states
    )
    numbers = law.numbers(following).reshape(trajectory.mask.shape)
    values = jnp.asarray(novelty[numbers], jnp.float32)
    return eqx.tree_at(lambda s: s.novelty, batch, values, is_leaf=lambda leaf: leaf is None)


@pytest.mark.parametrize("pad_front", [False, True])
def test_flows_with_intrinsic_rewards_leave_no_loss_on_any_trajectory(pad_front):
    batch = scored(augmented_sampler(how_new()), how_new(), pad_front=pad_front)
    assert len(batch.log_reward) == sum(1 for _ in graph(ENV).paths())
    np.testing.assert_allclose(GAFN(scale=SCALE)(batch).loss, 0, atol=1e-8)
    # And they are not those of trajectory balance, nor of intrinsic rewards of another size.
    assert np.mean(TB()(batch).loss) > 0.1
    assert np.mean(GAFN(scale=2 * SCALE)(batch).loss) > 1e-2


def test_where_nothing_is_new_it_is_trajectory_balance():
    """So that the target is reached once all is known: the loss there falls with the novelty."""
    sampler = optimal_sampler(graph(ENV), rewards())
    losses = [
        float(np.mean(GAFN(scale=SCALE)(scored(sampler, share * how_new())).loss))
        for share in (1.0, 1e-2, 1e-4, 0.0)
    ]
    assert losses[0] > 0.1
    assert losses[1] < losses[0] / 50
    assert losses[2] < losses[1] / 50
    np.testing.assert_allclose(losses[3], 0, atol=1e-9)


def test_the_residual_that_is_reported_is_without_intrinsic_rewards():
    """For a Teacher and a buffer: what the Student misses of the target itself."""
    batch = scored(augmented_sampler(how_new()), how_new())
    found, plain = GAFN(scale=SCALE)(batch), TB()(batch)
    np.testing.assert_array_equal(found.residual, plain.residual)
    np.testing.assert_array_equal(found.log_weight, plain.log_weight)


def test_it_says_what_it_needs():
    batch = eqx.tree_at(lambda s: s.log_flow, scored(augmented_sampler(how_new()), how_new()), None)
    with pytest.raises(ValueError, match="flow_head=True"):
        GAFN()(batch)
    with pytest.raises(ValueError, match="scale must be > 0"):
        GAFN(scale=0.0)
