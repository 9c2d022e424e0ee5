"""Diffusion samplers in one dimension against quadrature, in float64.

The densities of a few steps are integrated on a grid of states by formulas written out here; the
package's own trajectories, scores and objectives are summed over a grid of noise. Both converge
faster than any power of the spacing, so that they agree to many digits.
"""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact._sampler import score, score_pathwise
from didact.environments import Brownian, Diffusion, DiffusionState, VariancePreserving
from didact.objectives import MLE, ReverseKL

from .._diffusion import diffusion_sampler, walk_backward, walk_forward

SETTINGS = {
    "brownian-2": (Diffusion(1, 2, Brownian(1.2)), False),
    "brownian-2-learned": (Diffusion(1, 2, Brownian(), (0.0, 0.4, 1.0), 2.0), True),
    "vp-3-learned": (Diffusion(1, 3, VariancePreserving(1.1, 0.1, 4.0), None, 1.0), True),
}
every_setting = pytest.mark.parametrize("name", SETTINGS)
STATES = np.linspace(-9, 9, 361)
SPACING = STATES[1] - STATES[0]


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


class Quartic(eqx.Module):
    """log R(x), a polynomial: its coefficients are numbers, so that all share one program."""

    coefficients: jax.Array

    def __call__(self, x):
        return jnp.polyval(self.coefficients, x[0])


def log_reward(x):
    """Two unequal wells, far from Gaussian."""
    return wells()(x)


def wells() -> Quartic:
    return Quartic(jnp.asarray([-0.6, 0.0, 1.2, 0.5, 0.0], float))


def normal(s, mean, variance):
    return np.exp(-0.5 * (s - mean) ** 2 / variance) / np.sqrt(2 * np.pi * variance)


def make(name: str):
    """A sampler with a random network: its drifts and corrections are of size 1."""
    env, learned = SETTINGS[name]
    sampler = diffusion_sampler(
        env, jax.random.key(11), backward_head=learned, log_z=0.4, sharpness=0.8
    )
    return jax.tree.map(
        lambda leaf: leaf.astype(float) if eqx.is_inexact_array(leaf) else leaf, sampler
    )


@eqx.filter_jit
def _outputs(sampler, index, states):
    return jax.vmap(lambda s: sampler.policy(DiffusionState(s[None], index)))(states)


def noise_grid(count: int, spacing: float = 0.4):
    """All of a product grid over `count` standard normal variates, and their weights."""
    nodes = np.arange(-8, 8 + spacing / 2, spacing)
    weights = normal(nodes, 0, 1) * spacing
    points = np.asarray(list(itertools.product(nodes, repeat=count))).reshape(-1, count, 1)
    weight = np.prod(np.asarray(list(itertools.product(weights, repeat=count))), axis=1)
    return points, weight


class Law:
    """P_F and P_B of a sampler as matrices over `STATES`, by the formulas of the method.

    `forward[i]` [here, there] is the density of step i, from one row where i = 0; `backward[i]`
    [there, here] that of the step from i + 1 back to i, i >= 1.
    """

    def __init__(self, sampler):
        env = sampler.environment
        nodes = np.linspace(0, 1, env.num_steps + 1) if env.times is None else env.times
        a, q = env.process.coefficients(np.asarray(nodes))
        self.forward, self.backward, v = [], [], 0.0
        for i in range(env.num_steps):
            here = STATES if i else np.zeros(1)
            out = np.asarray(_outputs(sampler, jnp.asarray(i, jnp.int32), here).forward)
            mean = a[i] * here + q[i] / env.process.sigma**2 * out[:, 0]
            r = env.log_variance_range
            variance = q[i] * (1 if r is None else np.exp(r * np.tanh(out[:, 1] / r)))
            variance = np.broadcast_to(variance, mean.shape)
            self.forward.append(normal(STATES[None], mean[:, None], variance[:, None]))
            following = a[i] ** 2 * v + q[i]
            if i:
                back = a[i] * v / following * STATES
                spread = np.full_like(STATES, v * q[i] / following)
                params = _outputs(sampler, jnp.asarray(i + 1, jnp.int32), STATES).backward
                if params is not None:
                    correction = 1 + 0.1 * np.tanh(np.asarray(params))
                    # The corrections are those of the edge, s' - s.
                    back = STATES - (STATES - back) * correction[:, 0]
                    spread = spread * correction[:, 1]
                self.backward.append(normal(STATES[None], back[:, None], spread[:, None]))
            v = following

    def densities(self):
        """The density of each state but the source."""
        found = [self.forward[0][0]]
        for matrix in self.forward[1:]:
            found.append(found[-1] @ matrix * SPACING)
        return found

    def log_ratio(self):
        """E[log P_B - log P_F | end], a function of the end, under P_B, and over P_F times p_T."""
        tiny = 1e-300
        log_first = np.log(self.forward[0][0] + tiny)
        by_pf, by_pb = self.forward[0][0] * -log_first, -log_first
        density = self.forward[0][0]
        for ahead, back in zip(self.forward[1:], self.backward, strict=True):
            ratio = np.log(back.T + tiny) - np.log(ahead + tiny)
            by_pf = (by_pf @ ahead + density @ (ahead * ratio)) * SPACING
            density = density @ ahead * SPACING
            by_pb = (back @ by_pb + np.sum(back * ratio.T, axis=1)) * SPACING
        return by_pf, by_pb


@functools.cache
def laws(name: str):
    return Law(make(name))


def log_rewards(states):
    return np.asarray(jax.vmap(lambda x: log_reward(x[None]))(states))


@functools.cache
def normaliser() -> float:
    return float(np.sum(np.exp(log_rewards(STATES))) * SPACING)


@eqx.filter_jit
def forward_scores(sampler, noise):
    trajectory = walk_forward(sampler, noise)
    reward = jax.vmap(log_reward)(trajectory.terminal.position)
    return trajectory, score(sampler, trajectory, reward, jnp.ones(len(noise)))


@eqx.filter_jit
def backward_scores(sampler, x, noise):
    trajectory = walk_backward(sampler, x, noise)
    reward = jax.vmap(log_reward)(trajectory.terminal.position)
    return trajectory, score(sampler, trajectory, reward, jnp.ones(len(noise)))


def spacing_of(name: str) -> float:
    return 0.4 if SETTINGS[name][0].num_steps == 2 else 0.6


@every_setting
def test_the_densities_of_all_times_integrate_to_1(name):
    for density in laws(name).densities():
        np.testing.assert_allclose(np.sum(density) * SPACING, 1, rtol=1e-7)
    for matrix in laws(name).backward:
        inside = np.abs(STATES) < 5
        np.testing.assert_allclose(np.sum(matrix[inside], axis=1) * SPACING, 1, rtol=1e-6)
    # The network does something.
    env = SETTINGS[name][0]
    reference = normal(STATES, 0, env.process.sigma**2)
    assert np.max(np.abs(laws(name).densities()[-1] - reference)) > 0.05


@every_setting
def test_forward_walks_have_the_law_of_the_formulas(name):
    """Moments of x over P_F, and the importance weights: E exp(log R + log P_B - log P_F) = Z."""
    env, _ = SETTINGS[name]
    noise, weight = noise_grid(env.num_steps, spacing_of(name))
    trajectory, scored = forward_scores(make(name), jnp.asarray(noise))
    x = np.asarray(trajectory.terminal.position)[:, 0]
    density = laws(name).densities()[-1]
    for power in (1, 2, 3):
        expected = np.sum(STATES**power * density) * SPACING
        np.testing.assert_allclose(np.sum(weight * x**power), expected, rtol=1e-5, atol=1e-5)
    log_weight = np.sum(np.asarray(scored.log_pb - scored.log_pf), axis=1) + scored.log_reward
    np.testing.assert_allclose(np.sum(weight * np.exp(log_weight)), normaliser(), rtol=1e-4)
    # Without P_B it is something else.
    wrong = log_weight - np.sum(np.asarray(scored.log_pb), axis=1)
    assert abs(np.sum(weight * np.exp(wrong)) / normaliser() - 1) > 0.05


@every_setting
def test_weights_of_backward_walks_have_the_terminal_density_as_their_mean(name):
    """For each x: the mean of P_F(τ)/P_B(τ|x) over τ ~ P_B(·|x) is p_T(x)."""
    env, _ = SETTINGS[name]
    noise, weight = noise_grid(env.num_steps - 1)
    # The step back to the source draws nothing: its noise is not looked at.
    noise = np.concatenate([np.full_like(noise[:, :1], 7.0), noise], axis=1)
    density = laws(name).densities()[-1]
    places = np.searchsorted(STATES, [-1.5, -0.3, 0.0, 0.8, 2.0])
    for place in places:
        x = jnp.full((len(noise), 1), STATES[place])
        _, scored = backward_scores(make(name), x, jnp.asarray(noise))
        ratio = np.sum(np.asarray(scored.log_pf - scored.log_pb), axis=1)
        np.testing.assert_allclose(np.sum(weight * np.exp(ratio)), density[place], rtol=1e-5)


# ---- gradients -------------------------------------------------------------------------------


def split(sampler):
    """The network's numbers, and the rest."""
    where = jax.tree.map(lambda _: False, sampler)
    policy = jax.tree.map(eqx.is_inexact_array, sampler.policy)
    return eqx.partition(sampler, eqx.tree_at(lambda s: s.policy, where, policy))


def directions(params, count: int):
    """Random directions in the space of the parameters."""
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(3)
    for _ in range(count):
        yield jax.tree.unflatten(structure, [jnp.asarray(rng.normal(size=p.shape)) for p in leaves])


def along(gradient, direction) -> float:
    return float(
        sum(
            jnp.vdot(g, d)
            for g, d in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True)
        )
    )


def differences(value, sampler, direction, step: float = 1e-4) -> float:
    """The derivative of `value(Law)` along a direction, to fourth order in the step."""
    params, rest = split(sampler)

    def at(t: float) -> float:
        moved = jax.tree.map(lambda p, d: p + t * d, params, direction)
        return value(Law(eqx.combine(moved, rest)))

    first, second = at(step) - at(-step), at(2 * step) - at(-2 * step)
    return (8 * first - second) / (12 * step)


def elbo(law: Law) -> float:
    """E over P_F of log R + log P_B - log P_F."""
    reward = np.sum(law.densities()[-1] * log_rewards(STATES))
    return float((reward + np.sum(law.log_ratio()[0])) * SPACING)


def eubo(law: Law) -> float:
    """The same over exact samples and P_B."""
    target = np.exp(log_rewards(STATES)) / normaliser()
    return float(np.sum(target * (log_rewards(STATES) + law.log_ratio()[1])) * SPACING)


@eqx.filter_jit
def reverse_kl(sampler, objective, noise, weight, log_reward_fn):
    """Mean loss over the noise and its gradient, as training takes it."""
    params, rest = split(sampler)
    trajectory = jax.lax.stop_gradient(walk_forward(sampler, noise))

    def loss(params):
        scored = score_pathwise(
            eqx.combine(params, rest),
            trajectory,
            log_reward_fn,
            weight,
            path_only=objective.path_only,
        )
        output = objective(scored)
        return jnp.sum(weight * output.loss) / jnp.sum(weight)

    return jax.value_and_grad(loss)(params)


@pytest.mark.parametrize(
    ("name", "path_only"),
    [
        pytest.param("brownian-2", True, marks=pytest.mark.slow),
        ("brownian-2", False),
        ("brownian-2-learned", True),
    ],
)
def test_reverse_kl_descends_the_elbo(name, path_only):
    """The loss is -ELBO, and its gradient that of -ELBO, with and without the term whose mean is
    0: differences of the ELBO of the formulas show it.
    """
    sampler = make(name)
    noise, weight = map(jnp.asarray, noise_grid(2))
    loss, gradient = reverse_kl(sampler, ReverseKL(path_only), noise, weight, wells())
    np.testing.assert_allclose(-loss, elbo(Law(sampler)), rtol=1e-5)
    for direction in directions(gradient, 3):
        expected = differences(elbo, sampler, direction)
        np.testing.assert_allclose(-along(gradient, direction), expected, rtol=1e-4, atol=1e-4)
        assert abs(expected) > 0.01


def test_without_the_gradient_of_log_r_it_would_not():
    sampler = make("brownian-2")
    noise, weight = map(jnp.asarray, noise_grid(2))

    def held(x):
        return jax.lax.stop_gradient(log_reward(x))

    _, gradient = reverse_kl(sampler, ReverseKL(), noise, weight, held)
    direction = next(directions(gradient, 1))
    expected = differences(elbo, sampler, direction)
    assert abs(-along(gradient, direction) - expected) > 0.1 * abs(expected)


@eqx.filter_jit
def likelihood(sampler, x, noise, weight, log_reward_fn):
    """MLE's mean loss over objects and noise, and its gradient, as training takes it."""
    params, rest = split(sampler)
    trajectory = jax.lax.stop_gradient(walk_backward(sampler, x, noise))
    reward = jax.vmap(log_reward_fn)(x)

    def loss(params):
        output = MLE()(score(eqx.combine(params, rest), trajectory, reward, weight))
        return jnp.sum(weight * output.loss) / jnp.sum(weight)

    return jax.value_and_grad(loss)(params)


def objects_and_noise(density):
    """A grid of objects with their weights, times a grid of the bridge's noise of two steps."""
    places = STATES[::2]
    noise, weight = noise_grid(1)
    x = np.repeat(places, len(noise))[:, None]
    bridge = np.tile(noise, (len(places), 1, 1))
    both = np.concatenate([np.zeros_like(bridge), bridge], axis=1)
    return map(
        jnp.asarray,
        (x, both, np.repeat(density(places), len(noise)) * np.tile(weight, len(places))),
    )


def test_maximum_likelihood_descends_the_eubo():
    sampler = make("brownian-2")
    x, noise, weight = objects_and_noise(lambda s: np.exp(log_rewards(s)))
    loss, gradient = likelihood(sampler, x, noise, weight, wells())
    np.testing.assert_allclose(loss, eubo(Law(sampler)), rtol=1e-6)
    assert elbo(Law(sampler)) < np.log(normaliser()) < eubo(Law(sampler))
    for direction in directions(gradient, 3):
        expected = differences(eubo, sampler, direction)
        np.testing.assert_allclose(along(gradient, direction), expected, rtol=1e-5, atol=1e-6)
        assert abs(expected) > 0.01


# ---- at the optimum: a network that is 0, and the law of the reference process as the target -----


VARIANCE = 1.2**2


def gaussian() -> Quartic:
    constant = -0.5 * np.log(2 * np.pi * VARIANCE)
    return Quartic(jnp.asarray([0.0, 0.0, -0.5 / VARIANCE, 0.0, constant], float))


def optimum():
    sampler = diffusion_sampler(SETTINGS["brownian-2"][0])
    return jax.tree.map(
        lambda leaf: leaf.astype(float) if eqx.is_inexact_array(leaf) else leaf, sampler
    )


def largest(gradient) -> float:
    return max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(gradient))


def test_at_the_optimum_the_mean_gradients_vanish():
    noise, weight = map(jnp.asarray, noise_grid(2))
    for path_only in (True, False):
        loss, gradient = reverse_kl(optimum(), ReverseKL(path_only), noise, weight, gaussian())
        np.testing.assert_allclose(loss, 0, atol=1e-9)
        assert largest(gradient) < 1e-9
    x, bridge, weight = objects_and_noise(lambda s: normal(s, 0, VARIANCE))
    loss, gradient = likelihood(optimum(), x, bridge, weight, gaussian())
    np.testing.assert_allclose(loss, 0, atol=1e-9)
    assert largest(gradient) < 1e-9


@pytest.mark.parametrize("path_only", [True, False])
def test_along_the_path_alone_the_gradient_of_every_trajectory_vanishes_there(path_only):
    """One trajectory at a time: with the other term, and for maximum likelihood, the mean alone
    is 0.
    """
    noise, weight = map(jnp.asarray, noise_grid(2))
    for i in (500, 900, 1_111):
        one = jnp.zeros_like(weight).at[i].set(1)
        _, gradient = reverse_kl(optimum(), ReverseKL(path_only), noise, one, gaussian())
        assert largest(gradient) < 1e-9 if path_only else largest(gradient) > 1e-2
