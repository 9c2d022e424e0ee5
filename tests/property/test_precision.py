"""float32 and float64 say the same of the same trajectories: scores, residuals, losses and
their gradients.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from didact._sampler import score
from didact.environments import (
    Autoregressive,
    Brownian,
    Diffusion,
    DiffusionState,
    EnumerableEnvironment,
    Hypergrid,
    PrependAppend,
    Trajectory,
    VariancePreserving,
)
from didact.objectives import DB, GAFN, MLE, TB, Linex, ReverseKL, SubTB, VarGrad

from .._diffusion import diffusion_sampler
from .._tabular import graph, network_sampler

BATCH = 4
OBJECTIVES = {
    "tb": TB(),
    "vargrad": VarGrad(Linex()),
    "db": DB(),
    "subtb": SubTB(0.9),
    "gafn": GAFN(),
    "mle": MLE(),
    "reverse-kl": ReverseKL(),
}
ENVIRONMENTS = {
    "hypergrid": Hypergrid(2, 4),
    "brownian": Diffusion(2, 4, Brownian(1.5)),
    "prepend-append": PrependAppend(2, 4),
    "autoregressive": Autoregressive(3, 3),
    "variance-preserving": Diffusion(3, 4, VariancePreserving(1.2, 0.1, 5.0), None, 2.0),
}


@functools.cache
def sampler_of(name: str):
    """With a learned P_B and log F, so that every head is compared."""
    env, key = ENVIRONMENTS[name], jax.random.key(3)
    if isinstance(env, EnumerableEnvironment):
        return network_sampler(env, key, backward_head=True, flow_head=True, sharpness=3.0)
    return diffusion_sampler(env, key, backward_head=True, flow_head=True, log_z=0.7)


@eqx.filter_jit
def everything(sampler, trajectory, log_reward):
    """Scores, and for each objective its output and the gradient of its mean loss."""
    params, rest = eqx.partition(sampler, eqx.is_inexact_array)
    weight = jnp.ones_like(log_reward)

    def scores(params):
        scored = score(eqx.combine(params, rest), trajectory, log_reward, weight)
        return learned_part(scored), scored

    learned, pull, scored = jax.vjp(scores, params, has_aux=True)
    outputs, slopes = {}, []
    for name, objective in OBJECTIVES.items():

        def mean(part, objective=objective):
            output = objective(eqx.tree_at(learned_part, scored, part))
            return jnp.mean(output.loss), output

        (_, outputs[name]), slope = jax.value_and_grad(mean, has_aux=True)(learned)
        slopes.append(slope)
    # One way back through the network for all objectives.
    every = jax.vmap(lambda slope: pull(slope)[0])(jax.tree.map(lambda *a: jnp.stack(a), *slopes))
    gradients = {
        name: jax.tree.map(lambda leaf, i=i: leaf[i], every) for i, name in enumerate(OBJECTIVES)
    }
    return scored, outputs, gradients


def learned_part(scored):
    return scored.log_pf, scored.log_pb, scored.log_flow, scored.log_z


def widened(tree):
    """The same numbers in float64."""

    def widen(leaf):
        leaf = np.asarray(leaf)
        return leaf.astype(np.float64) if np.issubdtype(leaf.dtype, np.floating) else leaf

    return jax.tree.map(widen, tree)


def assert_near(narrow, wide, tolerance: float, what: str) -> None:
    """Relative to the largest number among those that belong together."""
    leaves = list(zip(jax.tree.leaves(narrow), jax.tree.leaves(wide), strict=True))
    assert leaves
    largest = max(1.0, *(float(np.max(np.abs(b), initial=0)) for _, b in leaves))
    for a, b in leaves:
        if np.issubdtype(np.asarray(b).dtype, np.floating):
            assert a.dtype == np.float32, what
            assert b.dtype == np.float64, what
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest, err_msg=what)


def assert_agreement(name: str, trajectory: Trajectory, log_reward: np.ndarray) -> None:
    sampler = sampler_of(name)
    narrow = jax.tree.map(np.asarray, everything(sampler, trajectory, jnp.asarray(log_reward)))
    with jax.enable_x64(True):
        wide = everything(*widened((sampler, trajectory, log_reward)))
        wide = jax.tree.map(np.asarray, wide)
    assert_near(narrow[0], wide[0], 1e-5, "scores")
    for objective in OBJECTIVES:
        output, expected = (each[1][objective] for each in (narrow, wide))
        slope, wanted = (each[2][objective] for each in (narrow, wide))
        rest = [(o.residual, o.step_residual, o.log_weight) for o in (output, expected)]
        assert_near(*rest, 1e-5, f"residuals of {objective}")
        assert_near(output.loss, expected.loss, 1e-4, f"losses of {objective}")
        assert_near(slope, wanted, 1e-4, f"gradient of {objective}")


def numbers(least: float, most: float, count: int):
    """float32 numbers."""
    values = st.floats(least, most, width=32)
    return st.lists(values, min_size=count, max_size=count)


def contents(name: str):
    """What `trajectories` is made of. Numbers: the checker of types, which looks at what is made of
    them, draws too.
    """
    env = ENVIRONMENTS[name]
    if isinstance(env, EnumerableEnvironment):
        last = sum(1 for _ in graph(env).paths()) - 1
        rows = st.lists(st.integers(0, last), min_size=BATCH, max_size=BATCH)
        return st.tuples(st.booleans(), rows)
    return numbers(-1.5, 1.5, BATCH * env.num_steps * env.dim)


def trajectories(name: str, content) -> Trajectory:
    """Of numbered environments any of all, of the others any positions at all."""
    env = ENVIRONMENTS[name]
    if isinstance(env, EnumerableEnvironment):
        pad_front, rows = content
        every = graph(env).trajectories(pad_front=pad_front)
        return jax.tree.map(lambda leaf: leaf[np.asarray(rows)], every)
    edges = np.float32(content).reshape(BATCH, env.num_steps, env.dim)
    position = np.cumsum(np.pad(edges, ((0, 0), (1, 0), (0, 0))), axis=1, dtype=np.float32)
    index = np.tile(np.arange(env.num_steps + 1, dtype=np.int32), (BATCH, 1))
    states = jax.vmap(jax.vmap(DiffusionState))(jnp.asarray(position), jnp.asarray(index))
    return Trajectory(states, jnp.asarray(edges), jnp.ones(index[:, 1:].shape, bool))


@pytest.mark.parametrize(
    "name",
    # Each is compiled twice, which takes some seconds.
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "brownian")) for name in ENVIRONMENTS],
)
def test_the_precisions_agree(name):
    @settings(max_examples=8)
    @given(contents(name), numbers(-20, 5, BATCH))
    def run(content, log_reward):
        assert_agreement(name, trajectories(name, content), np.float32(log_reward))

    run()


def test_what_loses_digits_is_found():
    """float32 that went through float16 on the way is no float32."""
    scores = np.random.default_rng(0).normal(size=(BATCH, 4)).astype(np.float32)
    assert_near(scores, widened(scores), 1e-5, "scores")
    rough = scores.astype(np.float16).astype(np.float32)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_near(rough, widened(scores), 1e-5, "scores")
