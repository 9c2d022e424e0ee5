"""What diffusion has beside the laws of an environment, and the samplers over it."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from didact._sampler import Sampler, sample_backward, sample_forward, score, score_pathwise
from didact.environments import Brownian, Diffusion, DiffusionState, VariancePreserving
from didact.networks import DiffusionMLPConfig, MLPConfig
from didact.objectives import DB, TB, SubTB, VarGrad
from didact.targets import FromFunction, GaussianMixture, ManyWell

from .._diffusion import diffusion_sampler
from .._statistics import ERROR_RATE
from ._instances import CONTINUOUS_ENVIRONMENTS

every_environment = pytest.mark.parametrize(
    "env", CONTINUOUS_ENVIRONMENTS.values(), ids=CONTINUOUS_ENVIRONMENTS
)
NAMES = ("brownian-3d-2", "brownian-1d-5-learned-variance", "vp-3d-5-uneven")
some_environments = pytest.mark.parametrize("name", NAMES)
POINTS, DRAWS = 48, 8_100
BATCH = 3  # below 4 a rollout packs no lanes, and compiles to less


@every_environment
def test_stepping_back_undoes_a_step_to_2_ulp(env):
    """The index exactly, positions to 2 ulp of the largest number involved, and the source to
    nothing at all. At positions of many sizes.
    """
    before, action, after, again = jax.tree.map(np.asarray, _edges(env, jax.random.key(1)))
    np.testing.assert_array_equal(again.index, before.index)
    largest = np.maximum(np.abs(before.position), np.abs(action))
    largest = np.maximum(largest, np.abs(after.position))
    assert np.all(np.abs(again.position - before.position) <= 2 * np.spacing(largest))
    assert np.all(again.position[:, 0] == 0)


@eqx.filter_jit
def _edges(env: Diffusion, key):
    """Edges [POINTS, T] of the reference process, with their ends and the first of these again."""

    def one(key, index):
        place_key, size_key, edge_key = jax.random.split(key, 3)
        size = 10 ** jax.random.uniform(size_key, minval=-2, maxval=1)
        place = size * jax.random.normal(place_key, (env.dim,))
        before = DiffusionState(jnp.where(index == 0, 0, place), index)
        action = env.forward_kernel(before, jnp.zeros(env.forward_size)).sample(edge_key)
        after = env.step(before, action)
        return before, action, after, env.backward_step(after, action)

    keys = jax.random.split(key, (POINTS, env.num_steps))
    index = jnp.broadcast_to(jnp.arange(env.num_steps, dtype=jnp.int32), keys.shape)
    return jax.vmap(jax.vmap(one))(keys, index)


@pytest.mark.parametrize(
    ("process", "num_steps", "times"),
    [
        (Brownian(2.0), 4, None),
        (Brownian(), 3, (0.0, 0.5, 0.6, 1.0)),
        (VariancePreserving(2.0), 4, None),
        (VariancePreserving(1.0, 0.5, 4.0), 3, (0.0, 0.5, 0.6, 1.0)),
    ],
    ids=["brownian", "brownian-uneven", "vp", "vp-uneven"],
)
def test_the_kernels_are_the_published_ones(process, num_steps, times):
    """Euler–Maruyama and the bridge s_i | s_{i+1} ~ N(i/(i+1) s_{i+1}, σ² dt i/(i+1)) for Brownian
    motion; for variance preserving, N(0, σ²) at first, then a² + q/σ² = 1 with a = exp(-½∫β).
    """
    env = Diffusion(1, num_steps, process, times)
    nodes = np.linspace(0, 1, num_steps + 1) if times is None else np.asarray(times)
    s, f, sigma = 0.9, -1.7, process.sigma
    for i in range(num_steps):
        here = DiffusionState(jnp.asarray([s if i else 0.0]), jnp.asarray(i, jnp.int32))
        there = DiffusionState(jnp.asarray([s]), jnp.asarray(i + 1, jnp.int32))
        forward = env.forward_kernel(here, jnp.asarray([f]))
        backward = env.backward_kernel(there, None)
        if isinstance(process, Brownian):
            dt = nodes[i + 1] - nodes[i]
            drift, variance = f * dt, sigma**2 * dt
            back, back_variance = nodes[i] / nodes[i + 1], variance * nodes[i] / nodes[i + 1]
        elif i == 0:
            drift, variance, back, back_variance = f, sigma**2, 0.0, 0.0
        else:
            begin, end = (nodes[i : i + 2] - nodes[1]) / (1 - nodes[1])
            slope = process.beta_max - process.beta_min
            a = np.exp(-0.5 * (process.beta_max - slope * (begin + end) / 2) * (end - begin))
            variance = sigma**2 * (1 - a**2)
            drift, back, back_variance = (a - 1) * s + (1 - a**2) * f, a, variance
        np.testing.assert_allclose(forward.mean, drift, rtol=1e-5)
        np.testing.assert_allclose(forward.std, np.sqrt(variance), rtol=1e-5)
        np.testing.assert_allclose(backward.mean, (1 - back) * s, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(backward.std, np.sqrt(back_variance), rtol=1e-5)


def test_the_learned_variance_and_p_b_stay_within_their_ranges():
    env = Diffusion(1, 4, log_variance_range=2.0)
    state = DiffusionState(jnp.asarray([0.8]), jnp.asarray(2, jnp.int32))
    for raw, factor in ((0.0, 1.0), (1e4, np.e**2), (-1e4, np.e**-2)):
        kernel = env.forward_kernel(state, jnp.asarray([0.0, raw]))
        np.testing.assert_allclose(np.square(kernel.std), 0.25 * factor, rtol=1e-5)
    own = env.backward_kernel(state, None)
    for raw, factor in ((0.0, 1.0), (1e4, 1.1), (-1e4, 0.9)):
        kernel = env.backward_kernel(state, jnp.full(2, raw))
        np.testing.assert_allclose(kernel.mean, factor * own.mean, rtol=1e-5)
        np.testing.assert_allclose(np.square(kernel.std), factor * np.square(own.std), rtol=1e-5)
    # The first step leads to the source, whatever the network says.
    first = DiffusionState(jnp.asarray([0.8]), jnp.asarray(1, jnp.int32))
    kernel = env.backward_kernel(first, jnp.full(2, 3.0))
    np.testing.assert_array_equal(kernel.mean, first.position)
    assert kernel.std == 0
    assert kernel.log_prob(first.position) == 0


@pytest.mark.parametrize("process", [Brownian(3.0), VariancePreserving(3.0)], ids=["b", "vp"])
@pytest.mark.parametrize("drift", ["time", "noise"])
def test_a_walk_that_runs_away_stays_finite(process, drift):
    """Where a network grows with the position, unclipped steps overflow within a few of them."""

    def walk(clip):
        env = Diffusion(2, 100, process, drift=drift, clip=clip)

        def step(position, index):
            state = DiffusionState(position, index)
            mean = env.forward_kernel(state, 1e4 * position).mean
            return env.step(state, mean).position, None

        return jax.lax.scan(step, jnp.asarray([1.0, -1.0]), jnp.arange(100))[0]

    assert jnp.isfinite(ManyWell(2).log_reward(walk(Diffusion(2).clip)))
    assert not jnp.any(jnp.isfinite(walk(None)))


@pytest.mark.parametrize("sigma", [1e-3, 1.0, 1e5])
def test_what_is_reached_does_not_depend_on_the_units(sigma):
    """The drift to 2 σ, which the bound must not touch, and the bound, in units of σ."""
    env = Diffusion(1, 4, Brownian(sigma), clip=8.0)
    state = DiffusionState(jnp.asarray([0.5 * sigma]), jnp.asarray(3, jnp.int32))
    for wanted, reached in ((2.0, 2.0), (9.0, 0.5 + 8 / 4)):
        drift = jnp.asarray([(wanted - 0.5) * 4 * sigma])
        mean = env.forward_kernel(state, drift).mean + state.position
        np.testing.assert_allclose(mean, reached * sigma, rtol=1e-5)


# ---- rollouts --------------------------------------------------------------------------------


@eqx.filter_jit
def forward(sampler, key, number):
    """As many trajectories, in batches of `BATCH`."""
    keys = jax.random.split(key, number // BATCH)
    batches = jax.vmap(lambda key: sample_forward(sampler, key, BATCH))(keys)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batches)


@eqx.filter_jit
def backward(sampler, key, x):
    return sample_backward(sampler, key, x)


def variance_of(env: Diffusion) -> float:
    """The variance of the reference process at time 1: σ² for both processes, at any times."""
    return env.process.sigma**2


def assert_is_path(env: Diffusion, trajectory) -> None:
    """All steps are real, lead from the source to an end, and states follow their edges."""
    number = trajectory.mask.shape[0]
    assert np.all(trajectory.mask)
    index = np.tile(np.arange(env.num_steps + 1), (number, 1))
    np.testing.assert_array_equal(trajectory.states.index, index)
    position, action = np.asarray(trajectory.states.position), np.asarray(trajectory.actions)
    assert np.all(position[:, 0] == 0)
    largest = np.maximum(np.abs(position[:, 1:]), np.abs(position[:, :-1]))
    largest = np.maximum(largest, np.abs(action))
    assert np.all(np.abs(position[:, :-1] + action - position[:, 1:]) <= 2 * np.spacing(largest))


@some_environments
def test_the_untrained_sampler_draws_the_reference_process(name, key):
    """Kolmogorov–Smirnov at time 1, error rate `ERROR_RATE`; all coordinates are one sample. It is
    rejected for a variance that is wrong by half.
    """
    env = CONTINUOUS_ENVIRONMENTS[name]
    trajectory = forward(diffusion_sampler(env), key, DRAWS)
    assert_is_path(env, trajectory)
    x = np.asarray(jax.vmap(env.sample_of)(trajectory.terminal)).ravel()
    std = np.sqrt(variance_of(env))
    assert stats.kstest(x / std, "norm").pvalue > ERROR_RATE
    assert stats.kstest(x / (std * np.sqrt(1.5)), "norm").pvalue < ERROR_RATE**2


@some_environments
def test_backward_rollouts_are_the_bridge(name, key):
    """Mean and variance of s_i given the object, from the reference process' covariance; each to
    4.5 of its standard errors, an error rate of 7e-6. A bridge from half the object is rejected.
    """
    env = CONTINUOUS_ENVIRONMENTS[name]
    x = jnp.linspace(1.0, 2.0, env.dim) * env.process.sigma
    trajectory = backward(diffusion_sampler(env), key, jnp.tile(x, (DRAWS, 1)))
    assert_is_path(env, trajectory)
    np.testing.assert_array_equal(trajectory.terminal.position, np.tile(x, (DRAWS, 1)))
    nodes = np.linspace(0, 1, env.num_steps + 1) if env.times is None else np.asarray(env.times)
    a, q = env.process.coefficients(nodes)
    for i in range(1, env.num_steps):
        v = 0.0
        for j in range(i):
            v = a[j] ** 2 * v + q[j]
        onward = np.prod(a[i:])  # cov(s_i, s_T) = v_i a_i … a_{T-1}
        end = variance_of(env)
        mean = onward * v / end * np.asarray(x)
        variance = v - (onward * v) ** 2 / end
        s = np.asarray(trajectory.states.position[:, i], np.float64)
        error = np.sqrt(variance / DRAWS)
        assert np.all(np.abs(s.mean(axis=0) - mean) < 4.5 * error)
        spread = variance * np.sqrt(2 / (DRAWS - 1))
        assert np.all(np.abs(s.var(axis=0, ddof=1) - variance) < 4.5 * spread)
        if i == env.num_steps - 1:
            assert np.all(np.abs(s.mean(axis=0) - mean / 2) > 10 * error)


HEADS = {
    "fixed-pb": {},
    "learned-pb-flow": {"backward_head": True, "flow_head": True},
}


@functools.cache
def random_batch(name: str, heads: str, direction: str):
    """A random network's sampler, and a batch of its trajectories."""
    env = CONTINUOUS_ENVIRONMENTS[name]
    sampler = diffusion_sampler(env, jax.random.key(5), log_z=0.3, **HEADS[heads])
    if direction == "forward":
        return sampler, forward(sampler, jax.random.key(6), BATCH)
    x = 1.5 * jax.random.normal(jax.random.key(7), (BATCH, env.dim))
    return sampler, backward(sampler, jax.random.key(6), x)


@eqx.filter_jit
def kernel_scores(sampler: Sampler, trajectory):
    """log P_F, log P_B and log F of every edge's source, one kernel at a time."""

    def edge(state, action, following):
        return (
            sampler.forward_kernel(state).log_prob(action),
            sampler.backward_kernel(following).log_prob(action),
            sampler.log_flow(state),
        )

    now = jax.tree.map(lambda leaf: leaf[:, :-1], trajectory.states)
    after = jax.tree.map(lambda leaf: leaf[:, 1:], trajectory.states)
    return jax.vmap(jax.vmap(edge))(now, trajectory.actions, after)


compiled_score = eqx.filter_jit(score)


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("brownian-3d-2", "fixed-pb"),
        ("brownian-1d-5-learned-variance", "learned-pb-flow"),
        ("vp-3d-5-uneven", "learned-pb-flow"),
    ],
)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_scores_are_those_of_the_kernels_edge_by_edge(name, heads, direction):
    sampler, trajectory = random_batch(name, heads, direction)
    assert_is_path(sampler.environment, trajectory)
    log_reward = jnp.linspace(-2, 1, BATCH)
    scored = compiled_score(sampler, trajectory, log_reward, jnp.ones(BATCH))
    log_pf, log_pb, log_flow = kernel_scores(sampler, trajectory)
    np.testing.assert_allclose(scored.log_pf, log_pf, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(scored.log_pb, log_pb, rtol=1e-5, atol=1e-4)
    assert np.all(np.asarray(scored.log_pb)[:, 0] == 0)
    if log_flow is not None:
        np.testing.assert_allclose(scored.log_flow[:, :-1], log_flow, rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(scored.log_flow[:, -1], log_reward)


def test_what_is_masked_counts_for_nothing():
    sampler, trajectory = random_batch("vp-3d-5-uneven", "learned-pb-flow", "forward")
    mask = trajectory.mask.at[:, 1].set(False)
    arguments = jnp.zeros(BATCH), jnp.ones(BATCH)
    whole = compiled_score(sampler, trajectory, *arguments)
    cut = compiled_score(sampler, eqx.tree_at(lambda t: t.mask, trajectory, mask), *arguments)
    for a, b in ((cut.log_pf, whole.log_pf), (cut.log_pb, whole.log_pb)):
        np.testing.assert_allclose(a, np.where(mask, b, 0), rtol=1e-5, atol=1e-5)


def quartic(x):
    return -jnp.sum(jnp.square(jnp.square(x) - 1)) + 0.3 * x[0]


@pytest.mark.parametrize(
    ("name", "path_only"),
    [("brownian-1d-5-learned-variance", True), ("vp-3d-5-uneven", False)],
)
def test_walking_again_gives_the_same_scores(name, path_only):
    sampler, trajectory = random_batch(name, "learned-pb-flow", "forward")
    weight = jnp.ones(BATCH)
    log_reward = jax.vmap(quartic)(trajectory.terminal.position)
    scored = compiled_score(sampler, trajectory, log_reward, weight)
    again = eqx.filter_jit(score_pathwise)(
        sampler, trajectory, quartic, weight, path_only=path_only
    )
    np.testing.assert_allclose(again.log_pf, scored.log_pf, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(again.log_pb, scored.log_pb, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(again.log_reward, log_reward, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(again.mask, scored.mask)


@eqx.filter_jit
def _score_paths(sampler, key, x, log_reward):
    """Forward and backward trajectories of a sampler, as one batch, scored."""
    own = sample_forward(sampler, key, BATCH)
    given = sample_backward(sampler, key, x)
    both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), own, given)
    reward = jax.vmap(lambda end: log_reward(sampler.environment.sample_of(end)))(both.terminal)
    return score(sampler, both, reward, jnp.ones(2 * BATCH))


@every_environment
def test_nothing_is_left_where_the_target_is_the_law_of_the_reference_process(env, key):
    """R = Z N(0, σ² I), the network 0, log Z known: all objectives, forward and backward."""
    log_z, variance = 1.7, variance_of(env)

    def log_reward(x):
        density = -0.5 * jnp.sum(x**2) / variance - 0.5 * env.dim * jnp.log(2 * jnp.pi * variance)
        return log_z + density

    sampler = diffusion_sampler(env, flow_head=True, log_z=log_z)
    # log F is measured from the reference's density, so that it is log Z everywhere.
    at = lambda s: s.policy.last.bias  # noqa: E731
    sampler = eqx.tree_at(at, sampler, sampler.policy.last.bias.at[-1].set(log_z))
    x = 2 * jax.random.normal(key, (BATCH, env.dim)) * jnp.sqrt(variance)
    scored = _score_paths(sampler, key, x, log_reward)
    for objective in (TB(), VarGrad(), DB(), SubTB(0.9)):
        output = objective(scored)
        np.testing.assert_allclose(output.residual, 0, atol=2e-4)
        np.testing.assert_allclose(output.loss, 0, atol=1e-6)
        np.testing.assert_allclose(output.log_weight, log_z, atol=2e-4)
        if output.step_residual is not None:
            np.testing.assert_allclose(output.step_residual, 0, atol=2e-4)
    # For another target something is left.
    shifted = eqx.tree_at(lambda s: s.log_reward, scored, scored.log_reward + scored.log_reward**2)
    assert np.abs(TB()(shifted).residual).max() > 0.1


# ---- the network -----------------------------------------------------------------------------

ENV = CONTINUOUS_ENVIRONMENTS["brownian-3d-2"]
STEEP = FromFunction(lambda x: -0.5 * jnp.sum(jnp.asarray([1.0, 10.0, 1e4]) * x**2))


def test_the_guide_adds_its_clipped_gradient_to_the_drift():
    """For a network with the same weights: output + c ⊙ clip(∇ log R, ± 100)."""
    guided = diffusion_sampler(ENV, jax.random.key(3), flow_head=True, guide=STEEP)
    plain = diffusion_sampler(ENV, jax.random.key(3), flow_head=True)
    size = plain.policy.heads.total
    plain = eqx.tree_at(
        lambda s: (s.policy.last.weight, s.policy.last.bias),
        plain,
        (guided.policy.last.weight[:, :size], guided.policy.last.bias[:size]),
    )
    factors = eqx.tree_at(
        lambda s: (s.policy.last.weight, s.policy.last.bias),
        diffusion_sampler(ENV, jax.random.key(3)),
        (guided.policy.last.weight[:, size:], guided.policy.last.bias[size:]),
    )
    x = jnp.asarray([0.5, -1.0, 0.3])
    state = DiffusionState(x, jnp.asarray(1, jnp.int32))
    push = jnp.clip(-jnp.asarray([1.0, 10.0, 1e4]) * x, -100, 100)
    assert push[2] == -100
    expected = plain.output(state).forward + factors.output(state).forward * push
    np.testing.assert_allclose(guided.output(state).forward, expected, rtol=1e-5)
    assert np.all(np.abs(expected - plain.output(state).forward) > 1e-3)
    np.testing.assert_allclose(
        guided.output(state).log_flow, plain.output(state).log_flow, rtol=1e-5
    )


def test_a_guided_sampler_is_scored_as_it_draws(key):
    target = GaussianMixture(((1.0, 0.0, 0.0), (-1.0, 2.0, 0.0)), 0.7)
    sampler = diffusion_sampler(ENV, jax.random.key(3), guide=target, sharpness=0.3)
    trajectory = forward(sampler, key, BATCH)
    scored = compiled_score(sampler, trajectory, jnp.zeros(BATCH), jnp.ones(BATCH))
    log_pf, _, _ = kernel_scores(sampler, trajectory)
    np.testing.assert_allclose(scored.log_pf, log_pf, rtol=1e-5, atol=1e-4)


def test_a_fresh_network_is_the_reference_process():
    sampler = diffusion_sampler(ENV, backward_head=True, flow_head=True, guide=STEEP)
    out = sampler.output(ENV.initial_state())
    for part in (out.forward, out.backward, out.log_flow):
        assert np.all(np.asarray(part) == 0)


def test_time_and_position_both_reach_the_network():
    policy = diffusion_sampler(ENV, jax.random.key(3)).policy
    x = jnp.asarray([0.5, -1.0, 0.3])
    outputs = {
        (i, s): tuple(np.asarray(policy(DiffusionState(s * x, jnp.asarray(i, jnp.int32))).forward))
        for i in range(ENV.num_steps + 1)
        for s in (0.0, 1.0)
    }
    # At times 0 and 1 all sines and cosines of whole periods agree; no edge leaves time 1.
    assert outputs[0, 1.0] == pytest.approx(outputs[2, 1.0], abs=1e-4)
    assert outputs[0, 1.0] != pytest.approx(outputs[1, 1.0], abs=1e-2)
    assert outputs[1, 0.0] != pytest.approx(outputs[1, 1.0], abs=1e-2)


# ---- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "remedy"),
    [
        (lambda: Diffusion(0), "dim must be >= 1"),
        (lambda: Diffusion(2, 0), "num_steps must be >= 1"),
        (lambda: Diffusion(2, 2, times=(0.0, 1.0)), "3 numbers from 0 to 1"),
        (lambda: Diffusion(2, 2, times=(0.0, 0.5, 2.0)), "from 0 to 1"),
        (lambda: Diffusion(2, 3, times=(0.0, 0.5, 0.5, 1.0)), "increase"),
        (lambda: Diffusion(2, 3, times=(0.0, float("nan"), 0.5, 1.0)), "increase"),
        (lambda: Diffusion(2, log_variance_range=0.0), "log_variance_range must be > 0"),
        (lambda: Diffusion(2, 1, times=()), "2 numbers"),
        (lambda: Diffusion(2, clip=0.0), "clip must be > 0"),
        (lambda: Brownian(0.0), "sigma must be > 0"),
        (lambda: VariancePreserving(-1.0), "sigma must be > 0"),
        (lambda: VariancePreserving(1.0, 0.0), "beta_min must be > 0"),
        (lambda: VariancePreserving(1.0, 2.0, 1.0), "beta_max must be >= 2"),
        (lambda: DiffusionMLPConfig(width=0), "width must be >= 1"),
        (lambda: DiffusionMLPConfig(gradient_clip=0.0), "gradient_clip must be > 0"),
    ],
)
def test_impossible_constants_are_refused(build, remedy):
    with pytest.raises(ValueError, match=remedy):
        build()


def test_a_network_for_another_environment_is_refused(key):
    with pytest.raises(ValueError, match="DiffusionMLPConfig"):
        MLPConfig(8, 1).build(ENV, flow_head=False, backward_head=False, key=key)
