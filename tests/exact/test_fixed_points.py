"""Where training ends: the target, and with the published P_B another law."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact.environments import Hypergrid, published_backward_kernel
from didact.objectives import DB, TB, SubTB, VarGrad
from didact.targets import DeceptiveGrid

from .._tabular import edge_scores, graph, optimal_sampler, score_all
from .test_deceptive_grid import rewards, terminal_positions


def published_law(cells: np.ndarray, reward: np.ndarray, side: int) -> np.ndarray:
    """Mass ∝ R(x) / #non-zero coordinates at border cells, R(x) elsewhere."""
    border = np.any(cells == side - 1, axis=1)
    return reward / np.where(border, np.sum(cells > 0, axis=1), 1)


@pytest.mark.parametrize(
    ("size", "variation", "log_z"),
    [((4, 16), 0.1245, 8.2881), ((4, 32), 0.0668, 10.9568), ((2, 128), 0.0013, None)],
    ids=str,
)
def test_how_far_the_published_fixed_point_is_from_the_target(size, variation, log_z):
    cells = terminal_positions(*size)
    reward = rewards(cells, size[1], "paper")
    mass = published_law(cells, reward, size[1])
    distance = 0.5 * np.abs(reward / reward.sum() - mass / mass.sum()).sum()
    assert round(distance, 4) == variation
    if log_z is not None:
        assert round(math.log(mass.sum()), 4) == log_z


SIZES = [(2, 6), (4, 3)]


def setting(size):
    """A small grid, its target's log-rewards and positions, by number of terminal state."""
    law, target = graph(Hypergrid(*size)), DeceptiveGrid(*size)
    log_reward = np.asarray(jax.vmap(target.log_reward)(law.objects), np.float64)
    return law, log_reward, np.asarray(law.objects)


@pytest.mark.parametrize("published", [False, True], ids=["right-pb", "published-pb"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_optimum_has_no_residual_and_draws_its_law(size, published):
    """Zero loss of every objective, for every trajectory: and so no gradient leads away from
    it. With the right P_B the law is the target; with the published one it is not.
    """
    law, log_reward, cells = setting(size)
    scoring = published_backward_kernel if published else None
    sampler = optimal_sampler(law, log_reward, backward_scoring=scoring)
    assert sampler.backward_scoring is scoring
    scored = score_all(sampler, law, log_reward)
    for objective in (TB(), VarGrad(), DB(), SubTB()):
        output = objective(scored)
        np.testing.assert_allclose(output.residual, 0, atol=2e-5)
        np.testing.assert_allclose(output.loss, 0, atol=1e-8)

    log_pf, _ = edge_scores(sampler, law)
    np.testing.assert_allclose(np.exp(log_pf).sum(axis=1), 1, atol=1e-6)
    reward = np.exp(log_reward)
    mass = published_law(cells, reward, size[1]) if published else reward
    np.testing.assert_allclose(law.terminal_law(log_pf), mass / mass.sum(), atol=1e-6)
    np.testing.assert_allclose(sampler.log_z, np.log(mass.sum()), atol=1e-5)
    if not published:
        np.testing.assert_allclose(sampler.log_z, DeceptiveGrid(*size).log_z, atol=1e-5)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_neither_optimum_is_the_other(size):
    law, log_reward, cells = setting(size)
    right = optimal_sampler(law, log_reward)
    published = optimal_sampler(law, log_reward, backward_scoring=published_backward_kernel)
    # The right sampler, scored as published, has the residual -log(#non-zero) at the border.
    mixed = type(right)(law.environment, right.policy, right.log_z, published_backward_kernel)
    residual = np.asarray(TB()(score_all(mixed, law, log_reward)).residual)
    ends = law.terminal_numbers(law.trajectories())
    border = np.any(cells == size[1] - 1, axis=1)
    expected = np.where(border, -np.log(np.maximum(np.sum(cells > 0, axis=1), 1)), 0)
    np.testing.assert_allclose(residual, expected[ends], atol=2e-5)
    assert float(right.log_z) - float(published.log_z) > 0.01
    assert jnp.max(jnp.abs(residual)) > 0.5
