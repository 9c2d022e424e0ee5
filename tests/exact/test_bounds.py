"""Exact ELBO, EUBO and rank correlation, against a sum over every trajectory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from didact.environments import Hypergrid, PrependAppend
from didact.metrics import exact
from didact.targets import FromFunction

from .._tabular import graph, network_sampler, score_all

ENVIRONMENTS = {"grid": Hypergrid(2, 5), "strings": PrependAppend(3, 3)}
TARGET = FromFunction(lambda x: jnp.sum(jnp.sin(3.0 * x)) - 0.5 * x[0])


@pytest.mark.parametrize("env", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_bounds_are_means_over_all_trajectories(env):
    law = graph(env)
    sampler = network_sampler(env, jax.random.key(7))
    truth = exact.truth(env, TARGET)
    log_reward = truth.log_p + truth.log_z
    scored = score_all(sampler, law, log_reward)
    log_pf = np.asarray(scored.log_pf, np.float64).sum(axis=1)
    log_pb = np.asarray(scored.log_pb, np.float64).sum(axis=1)
    end = law.terminal_numbers(law.trajectories())
    log_weight = log_reward[end] + log_pb - log_pf

    table = exact.policy_table(sampler)
    lower = exact.elbo(env, TARGET, table, exact.reach(env, table))
    upper = exact.eubo(env, TARGET, table)
    assert lower == pytest.approx(np.sum(np.exp(log_pf) * log_weight), abs=1e-5)
    assert upper == pytest.approx(np.sum(np.exp(truth.log_p[end] + log_pb) * log_weight), abs=1e-5)
    assert lower < truth.log_z < upper


@pytest.mark.parametrize("env", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_bounds_of_the_perfect_sampler_meet_at_log_z(env):
    _, log_pf = exact.exact_flows(env, TARGET)
    log_z = exact.truth(env, TARGET).log_z
    table = jnp.asarray(np.maximum(log_pf, -1e9))
    assert exact.eubo(env, TARGET, table) == pytest.approx(log_z, abs=1e-5)
    assert exact.elbo(env, TARGET, table, exact.reach(env, table)) == pytest.approx(log_z, abs=1e-5)


def test_rank_correlation_is_spearmans():
    env = PrependAppend(3, 3)
    truth = exact.truth(env, FromFunction(lambda x: jnp.floor(jnp.sum(x) / 2.0)))  # with ties
    law = np.random.default_rng(0).dirichlet(np.ones(27)) + 0.02 * np.exp(truth.log_p)
    found = exact.spearman(law, truth)
    assert found == pytest.approx(stats.spearmanr(law, truth.log_p).statistic, abs=1e-12)
    assert 0 < abs(found) < 1
    assert exact.spearman(np.exp(truth.log_p), truth) == pytest.approx(1)
    assert np.isnan(exact.spearman(np.full(27, 1 / 27), truth))
