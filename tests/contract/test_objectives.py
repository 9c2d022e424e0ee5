"""The laws of an objective, over every instance, and what the shipped ones have beside them.

A table policy with flows from dynamic programming is the common optimum of all objectives; a
random network is a point away from it.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact._types import Scored
from didact.environments import Hypergrid
from didact.objectives import DB, MLE, TB, Huber, Linex, ReverseKL, Squared, SubTB, VarGrad
from didact.testing import check_objective

from .._tabular import (
    edge_scores,
    graph,
    network_sampler,
    optimal_sampler,
    score_all,
    table_sampler,
)
from ._instances import LIKELIHOODS, OBJECTIVES, REGRESSIONS, SMALL_ENVIRONMENTS

every_objective = pytest.mark.parametrize("make", OBJECTIVES.values(), ids=OBJECTIVES)
every_likelihood = pytest.mark.parametrize("make", LIKELIHOODS.values(), ids=LIKELIHOODS)
every_regression = pytest.mark.parametrize("regression", REGRESSIONS.values(), ids=REGRESSIONS)
some_regressions = pytest.mark.parametrize(
    "regression", [Squared(), REGRESSIONS["linex"]], ids=["squared", "linex"]
)
ENV = Hypergrid(3, 3)


def log_rewards(env, seed: int = 0) -> np.ndarray:
    """A log-reward of each terminal state, over five nats."""
    return np.random.default_rng(seed).uniform(-3, 2, env.num_terminal_states)


@functools.cache
def network_scores(pad_front: bool = False) -> Scored:
    sampler = network_sampler(ENV, jax.random.key(3), backward_head=True, flow_head=True)
    return score_all(sampler, graph(ENV), log_rewards(ENV), pad_front=pad_front)


@eqx.filter_jit
def evaluate(objective, scored: Scored):
    """The objective in one program: operation by operation each would be compiled by itself."""
    return objective(scored)


def mean_loss(objective, scored: Scored):
    """The loss of a batch, as training takes it."""
    output = objective(scored)
    return jnp.sum(scored.weight * output.loss) / jnp.sum(scored.weight)


compiled_loss = eqx.filter_jit(mean_loss)


def learned_part(scored: Scored):
    return (scored.log_pf, scored.log_pb, scored.log_flow, scored.log_z)


def with_learned_part(scored: Scored, part) -> Scored:
    return eqx.tree_at(learned_part, scored, part)


@eqx.filter_jit
def gradient(objective, scored: Scored):
    """Gradient of the mean loss by log P_F, log P_B, log F and log Z."""
    loss = lambda part: mean_loss(objective, with_learned_part(scored, part))  # noqa: E731
    return jax.grad(loss)(learned_part(scored))


@every_objective
@pytest.mark.parametrize(
    "regression",
    # Two are enough to tell apart what an objective does with its regression.
    [
        pytest.param(one, id=name, marks=[pytest.mark.slow] * (name not in ("squared", "linex")))
        for name, one in REGRESSIONS.items()
    ],
)
def test_every_law_holds(make, regression, key):
    """On all trajectories of a grid. VarGrad's loss depends on the batch, and has no slope of its
    own.
    """
    checked = check_objective(make(regression), key=key)
    assert len(checked.left_out) == (make is VarGrad)


@every_objective
@pytest.mark.parametrize("name", ["hypergrid-4x3", "prepend-append-2^4"])
def test_every_law_holds_in_other_environments(name, make, key):
    check_objective(make(Squared()), environment=SMALL_ENVIRONMENTS[name], key=key)


@every_objective
@pytest.mark.parametrize("learned", [False, True], ids=["fixed-pb", "learned-pb"])
def test_the_residual_is_positive_where_the_sampler_draws_too_rarely(make, learned):
    """From the optimum, less probability for one edge: δ > 0 for the trajectories through it,
    δ < 0 for those that leave the same state by another edge, 0 for the rest.
    """
    law, reward = graph(ENV), log_rewards(ENV)
    backward = np.ones((len(law.states.stopped), ENV.backward_size)) if learned else None
    best = optimal_sampler(law, reward, backward=backward)
    log_pf, _ = edge_scores(best, law)
    state, action = 3, 1
    assert law.child[state, action] >= 0
    log_pf[state, action] -= 2.0
    log_pf[state] -= np.logaddexp.reduce(log_pf[state])
    worse = table_sampler(
        law,
        log_pf,
        float(best.log_z),
        backward=backward,
        log_flow=np.asarray(best.policy.log_flow),
    )
    paths = list(law.paths())
    through = np.array([(state, action) in path for path in paths])
    beside = np.array([any(s == state for s, _ in path) for path in paths]) & ~through
    assert through.any()
    assert beside.any()
    residual = np.asarray(evaluate(make(Squared()), score_all(worse, law, reward)).residual)
    if make is VarGrad or make in LIKELIHOODS.values():  # relative to the batch's mean
        assert residual[through].min() > residual[~through].max()
        assert residual[beside].max() < residual[~beside].min()
        assert residual[through].min() > 0
        return
    assert residual[through].min() > 0.1
    assert residual[beside].max() < -0.01
    np.testing.assert_allclose(residual[~(through | beside)], 0, atol=1e-5)


@pytest.mark.parametrize("learned", [False, True], ids=["fixed-pb", "learned-pb"])
def test_the_residual_of_tb_is_the_sum_of_those_of_db(learned):
    sampler = network_sampler(ENV, jax.random.key(4), backward_head=learned, flow_head=True)
    start = sampler.log_flow(ENV.initial_state())
    sampler = eqx.tree_at(lambda s: s.log_z, sampler, start)
    scored = score_all(sampler, graph(ENV), log_rewards(ENV))
    tb, db, subtb = (evaluate(objective, scored) for objective in (TB(), DB(), SubTB()))
    np.testing.assert_allclose(db.step_residual.sum(axis=1), tb.residual, atol=1e-5)
    np.testing.assert_allclose(db.residual, tb.residual, atol=1e-5)
    np.testing.assert_allclose(subtb.residual, tb.residual, atol=1e-5)


@every_objective
@some_regressions
def test_weight_0_gives_the_loss_of_the_batch_without_it(make, regression):
    scored = network_scores()
    out = np.arange(len(scored.weight)) % 3 == 0
    one = eqx.tree_at(lambda s: s.weight, scored, jnp.where(out, 0.0, 1.0))
    alone = jax.tree.map(lambda leaf: leaf[~out] if leaf.ndim else leaf, one)
    objective = make(regression)
    np.testing.assert_allclose(
        compiled_loss(objective, one), compiled_loss(objective, alone), rtol=1e-5
    )


# ---- what each objective is ------------------------------------------------------------------


def by_hand(log_pf, log_pb, log_flow, log_reward, log_z, mask) -> Scored:
    array = lambda values: jnp.asarray(values, jnp.float32)  # noqa: E731
    return Scored(
        log_pf=array(log_pf),
        log_pb=array(log_pb),
        log_flow=None if log_flow is None else array(log_flow),
        log_z=array(log_z),
        log_reward=array(log_reward),
        mask=jnp.asarray(mask, bool),
        weight=jnp.ones(len(log_reward)),
    )


HAND = by_hand(
    log_pf=[[-1.0, -2.0, -3.0], [-0.5, -1.5, 0.0]],
    log_pb=[[-0.25, -0.5, 0.0], [-1.0, 0.0, 0.0]],
    log_flow=[[3.0, 2.75, 3.0, 2.0], [3.0, 0.5, 1.0, 1.0]],
    log_reward=[2.0, 1.0],
    log_z=4.0,
    mask=[[1, 1, 1], [1, 1, 0]],
)
"""Step residuals: (0.5, 1.75, 2) and (-3, 2)."""


def test_tb_by_hand():
    output = TB()(HAND)
    np.testing.assert_allclose(output.residual, [3.25, -2.0])
    np.testing.assert_allclose(output.loss, [3.25**2, 4.0])


def test_vargrad_by_hand():
    output = VarGrad()(HAND)
    np.testing.assert_allclose(output.residual, [2.625, -2.625])
    np.testing.assert_allclose(output.loss, [2.625**2, 2.625**2])


@pytest.mark.parametrize(("objective", "sign"), [(MLE(), 1), (ReverseKL(), -1)])
def test_likelihoods_by_hand(objective, sign):
    output = objective(HAND)
    np.testing.assert_allclose(output.loss, [sign * 7.25, sign * 2.0])
    np.testing.assert_allclose(output.residual, [2.625, -2.625])
    assert output.step_residual is None


@every_objective
def test_the_weight_that_estimates_z_by_hand(make):
    np.testing.assert_allclose(evaluate(make(Squared()), HAND).log_weight, [7.25, 2.0])


@every_likelihood
def test_likelihoods_pull_and_push_by_the_trajectory_alone(make):
    """No residual enters their gradient: ∓ the weight's share for log P_F and log P_B."""
    sign = 1 if make is LIKELIHOODS["mle"] else -1
    by_pf, by_pb, _, by_log_z = gradient(make(Squared()), HAND)
    np.testing.assert_allclose(by_pf, -sign * 0.5 * HAND.mask)
    np.testing.assert_allclose(by_pb, sign * 0.5 * HAND.mask)
    assert by_log_z == 0


def test_db_by_hand():
    output = DB()(HAND)
    np.testing.assert_allclose(output.step_residual, [[0.5, 1.75, 2], [-3, 2, 0]])
    np.testing.assert_allclose(output.residual, [4.25, -1.0])
    # The mean over trajectories is the mean over the five transitions.
    np.testing.assert_allclose(np.mean(output.loss), (0.25 + 1.75**2 + 4 + 9 + 4) / 5, rtol=1e-6)


@pytest.mark.parametrize("lamda", [0.5, 1.0, 2.0])
def test_subtb_by_hand(lamda):
    output = evaluate(SubTB(lamda), HAND)
    first = lamda * (0.5**2 + 1.75**2 + 2**2) + lamda**2 * (2.25**2 + 3.75**2) + lamda**3 * 4.25**2
    second = lamda * (9 + 4) + lamda**2 * 1
    norms = [3 * lamda + 2 * lamda**2 + lamda**3, 2 * lamda + lamda**2]
    np.testing.assert_allclose(output.loss, [first / norms[0], second / norms[1]], rtol=1e-6)
    np.testing.assert_allclose(output.residual, [4.25, -1.0])


def test_subtb_tends_to_tb_and_to_detailed_balance():
    scored = network_scores()
    scored = eqx.tree_at(lambda s: s.log_z, scored, scored.log_flow[0, 0])
    tb = evaluate(TB(), scored).loss
    np.testing.assert_allclose(evaluate(SubTB(1e6), scored).loss, tb, rtol=1e-3, atol=1e-4)
    steps = evaluate(DB(), scored).step_residual
    per_step = jnp.sum(steps**2, axis=1) / jnp.sum(scored.mask, axis=1)
    np.testing.assert_allclose(evaluate(SubTB(1e-6), scored).loss, per_step, rtol=1e-3, atol=1e-4)


@every_regression
def test_vargrad_has_the_gradient_of_tb_at_the_best_log_z_of_the_batch(regression):
    weight = jnp.asarray(np.random.default_rng(0).uniform(0.1, 2, len(network_scores().weight)))
    scored = eqx.tree_at(lambda s: s.weight, network_scores(), weight.astype(jnp.float32))
    ratio = TB()(scored).residual + scored.log_z
    best = jnp.sum(scored.weight * ratio) / jnp.sum(scored.weight)
    at_best = eqx.tree_at(lambda s: s.log_z, scored, best)
    *tb, by_log_z = gradient(TB(regression), at_best)
    *vargrad, none = gradient(VarGrad(regression), scored)
    for expected, found in zip(tb[:2], vargrad[:2], strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert none == 0
    if isinstance(regression, Squared):  # for which the mean is the best log Z
        np.testing.assert_allclose(by_log_z, 0, atol=1e-5)


@pytest.mark.parametrize("make", [DB, lambda r: SubTB(0.9, r)], ids=["db", "subtb"])
def test_objectives_with_flows_say_what_they_need(make):
    scored = eqx.tree_at(lambda s: s.log_flow, HAND, None)
    assert make(Squared()).needs_flow
    with pytest.raises(ValueError, match="flow_head=True"):
        make(Squared())(scored)


# ---- regressions -----------------------------------------------------------------------------

WIDE = np.concatenate([[0.0], np.geomspace(1e-3, 1e4, 200)]).astype(np.float32)


@every_regression
def test_regressions_are_0_at_0_only_and_grow_away_from_it(regression):
    for side in (WIDE, -WIDE):
        loss = np.asarray(regression(jnp.asarray(side)), np.float64)
        assert loss[0] == 0
        assert np.all(np.diff(loss) > 0)
        assert np.all(np.isfinite(loss))


@every_regression
def test_regressions_are_never_negative_however_small_the_residual(regression):
    tiny = np.geomspace(1e-12, 1e-3, 400).astype(np.float32)
    for side in (tiny, -tiny):
        assert np.all(np.asarray(regression(jnp.asarray(side))) >= 0)


@every_regression
def test_the_slope_of_a_regression_is_finite_and_has_the_sign_of_the_residual(regression):
    slope = jax.vmap(jax.grad(regression))
    assert slope(jnp.zeros(1))[0] == 0
    for sign in (1, -1):
        values = np.asarray(slope(jnp.asarray(sign * WIDE[1:])))
        assert np.all(np.isfinite(values))
        assert np.all(sign * values > 0)
        assert np.all(np.diff(sign * values) >= -1e-6 * np.abs(values[1:]))  # convex


@pytest.mark.parametrize(
    ("regression", "residual", "loss"),
    [
        (Squared(), 3.0, 9.0),
        (Huber(), 0.5, 0.25),
        (Huber(), 3.0, 5.0),
        (Huber(2.0), -3.0, 8.0),
        (REGRESSIONS["shifted-cosh"], 1.0, np.e + 1 / np.e - 2),
        (REGRESSIONS["shifted-cosh"], -2.0, np.e**2 + np.e**-2 - 2),
        (REGRESSIONS["shifted-cosh"], 12.0, 2 * np.cosh(10) - 2 + 4 * np.sinh(10)),
        (Linex(), 1.0, np.e - 2),
        (Linex(), -1.0, 1 / np.e),
        (Linex(2.0), 0.5, (np.e - 2) / 4),
        (Linex(-1.0), 1.0, 1 / np.e),
        (Linex(), 12.0, np.exp(10) - 11 + 2 * (np.exp(10) - 1)),
        (Linex(), -1e4, 1e4 - 1),
    ],
)
def test_regressions_by_hand(regression, residual, loss):
    np.testing.assert_allclose(regression(jnp.asarray(residual)), loss, rtol=1e-5)


def test_regressions_agree_with_their_squares_near_0():
    near = jnp.asarray([-1e-2, 1e-2])
    for name, factor in {"huber": 1.0, "shifted-cosh": 1.0, "linex": 0.5}.items():
        np.testing.assert_allclose(REGRESSIONS[name](near), factor * near**2, rtol=1e-2)


@pytest.mark.parametrize(
    ("build", "remedy"),
    [
        (lambda: Huber(0.0), "width must be > 0"),
        (lambda: Linex(0.0), "Squared"),
        (lambda: Linex(1.0, limit=-1.0), "limit must be > 0"),
        (lambda: SubTB(0.0), "lamda must be > 0"),
        (lambda: SubTB(float("nan")), "lamda must be > 0"),
    ],
)
def test_impossible_constants_are_refused(build, remedy):
    with pytest.raises(ValueError, match=remedy):
        build()


def test_a_capped_square_is_the_square_up_to_its_cap_and_flat_beyond():
    """The one regression that does not grow everywhere: the published biochemical loss."""
    residual = jnp.asarray([0.0, 1.0, -6.9, 7.1, -300.0])
    capped = Squared(cap=50.0)
    loss, slope = jax.vmap(jax.value_and_grad(capped))(residual)
    np.testing.assert_allclose(loss, [0, 1, 6.9**2, 50, 50], rtol=1e-6)
    np.testing.assert_allclose(slope, [0, 2, -13.8, 0, 0], rtol=1e-6)
    with pytest.raises(ValueError, match="cap must be > 0"):
        Squared(cap=0.0)
