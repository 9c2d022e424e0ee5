"""Exploration without a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact._experiment import Experiment
from didact.behaviours import Agents, ChainsConfig, FromUniform, OnPolicy, uniform_sampler
from didact.behaviours._chains import _propose
from didact.environments import Hypergrid, PrependAppend
from didact.metrics import evaluate_exactly
from didact.networks import UniformConfig
from didact.targets import DeceptiveGrid

from .._tabular import edge_scores, graph, network_sampler

ENV, TARGET = Hypergrid(2, 6), DeceptiveGrid(2, 6)


@pytest.mark.parametrize("env", [ENV, PrependAppend(2, 4)], ids=["grid", "strings"])
def test_every_edge_out_of_a_state_is_as_likely(env):
    """P_F sums to 1 over them, and none is preferred."""
    law = graph(env)
    log_pf, _ = edge_scores(uniform_sampler(env), law)
    for row, child in zip(log_pf, law.child, strict=True):
        chances = np.exp(row[child >= 0])
        np.testing.assert_allclose(chances, chances[0], rtol=1e-6)
        np.testing.assert_allclose(chances.sum(), 1, rtol=1e-5)


def test_no_network_is_run():
    """The programs have no product of matrices, which the Student's own rollouts have."""
    chains = ChainsConfig().begin(ENV, jax.random.key(0), 8)
    agents = Agents(TARGET, network_sampler(ENV, jax.random.key(1)), None, None)

    def program(function) -> str:
        return jax.jit(function).lower(jax.random.key(0)).as_text()

    assert "dot_general" in program(lambda key: OnPolicy()(agents, key, jnp.asarray(0), 8))
    assert "dot_general" not in program(lambda key: FromUniform()(agents, key, jnp.asarray(0), 8))
    assert "dot_general" not in program(lambda key: _propose(3, ENV, chains, key))


def test_a_student_without_a_network_is_the_uniform_policy_and_can_be_judged_like_any():
    setting = Experiment(environment=ENV, target=TARGET, network=UniformConfig(), batch_size=8)
    policy = setting.network.build(ENV, flow_head=False, backward_head=False, key=jax.random.key(0))
    assert not jax.tree.leaves(policy)
    verdict, law = evaluate_exactly(uniform_sampler(ENV), TARGET, setting.objective)
    wanted = graph(ENV).terminal_law(edge_scores(uniform_sampler(ENV), graph(ENV))[0])
    np.testing.assert_allclose(law, wanted, rtol=1e-4)
    assert 0 < verdict["tv"] < 1
