"""Importance weights of backward trajectories are unbiased for the terminal law.

For every object x the mean of P_F(τ)/P_B(τ|x) over τ ~ P_B(τ|x) is P_T(x): by enumeration on
small grids, by simulation on a larger one (`tests/statistical`).
"""

import jax
import numpy as np
import pytest

from didact.environments import Hypergrid, published_backward_kernel

from .._tabular import edge_scores, graph, network_sampler, score_all

SIZES = [(1, 2), (1, 7), (2, 5), (4, 3)]


def by_object(ends, values, count):
    return np.bincount(ends, values, minlength=count)


@pytest.mark.parametrize("learned", [False, True], ids=["fixed-pb", "learned-pb"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_weights_of_all_backward_trajectories(size, learned):
    env = Hypergrid(*size)
    law = graph(env)
    sampler = network_sampler(env, jax.random.key(7), backward_head=learned)
    scored = score_all(sampler, law, np.zeros(env.num_terminal_states), pad_front=True)
    ends = law.terminal_numbers(law.trajectories(pad_front=True))
    log_pf = np.asarray(scored.log_pf, np.float64).sum(axis=1)
    log_pb = np.asarray(scored.log_pb, np.float64).sum(axis=1)

    total_pb = by_object(ends, np.exp(log_pb), env.num_terminal_states)
    np.testing.assert_allclose(total_pb, 1, atol=2e-6)
    mean_weight = by_object(ends, np.exp(log_pb) * np.exp(log_pf - log_pb), len(total_pb))
    terminal_law = law.terminal_law(edge_scores(sampler, law)[0])
    np.testing.assert_allclose(mean_weight, terminal_law, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(mean_weight.sum(), 1, atol=2e-6)
    # The network is far enough from uniform for this to mean something.
    assert env.num_terminal_states < 3 or terminal_law.max() > 2 * terminal_law.min()


@pytest.mark.parametrize("size", [(2, 5), (4, 3)], ids=str)
def test_the_published_scores_of_p_b_do_not_sum_to_one(size):
    """Which is what moves their fixed point: at border cells they sum to 1/#non-zero."""
    env = Hypergrid(*size)
    law = graph(env)
    sampler = network_sampler(env, jax.random.key(7), backward_scoring=published_backward_kernel)
    scored = score_all(sampler, law, np.zeros(env.num_terminal_states))
    ends = law.terminal_numbers(law.trajectories())
    log_pb = np.asarray(scored.log_pb, np.float64).sum(axis=1)
    total = by_object(ends, np.exp(log_pb), env.num_terminal_states)
    cells = np.asarray(law.objects)
    border = np.any(cells == env.side - 1, axis=1)
    expected = np.where(border, 1 / np.maximum(np.sum(cells > 0, axis=1), 1), 1)
    np.testing.assert_allclose(total, expected, atol=2e-6)
    assert total.min() < 0.6
