"""Kernels and environments whose edges are one real number, right ones and with planted faults."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from didact.environments import Environment, Kernel
from didact.testing import ConformanceError, check_environment, check_kernel

NORMALISED = "log_prob is normalised"
VOLUME = "an edge keeps volume"


class Laplace(Kernel):
    mean: jax.Array
    scale: jax.Array

    def noise(self, key, shape=()):
        return jax.random.laplace(key, shape)

    def from_noise(self, noise):
        return self.mean + self.scale * noise

    def log_prob(self, action):
        return -jnp.abs(action - self.mean) / self.scale - jnp.log(2 * self.scale)

    def explore(self, amount):
        return type(self)(self.mean, self.scale * (1 + amount))

    def temper(self, temperature):
        return type(self)(self.mean, self.scale * temperature)


class WithoutNormaliser(Laplace):
    def log_prob(self, action):
        return -jnp.abs(action - self.mean) / self.scale


class DrawsTwiceAsWide(Laplace):
    def from_noise(self, noise):
        return self.mean + 2 * self.scale * noise


class NaNBeside(Laplace):
    """Uniform, and NaN where it is 0."""

    def noise(self, key, shape=()):
        return jax.random.uniform(key, shape)

    def log_prob(self, action):
        inside = (action > self.mean) & (action < self.mean + self.scale)
        return jnp.where(inside, -jnp.log(self.scale), jnp.nan)


class Steep(Laplace):
    """x = u^4 has a density that rises without bound at 0: its integral is not known well."""

    def noise(self, key, shape=()):
        return jax.random.uniform(key, shape, minval=1e-6)

    def from_noise(self, noise):
        return noise**4

    def log_prob(self, action):
        inside = (action > 0) & (action < 1)
        return jnp.where(inside, -0.75 * jnp.log(jnp.where(inside, action, 0.5)), -jnp.inf) - 1.386

    def explore(self, amount):
        return self

    temper = explore


def laplace(kind):
    return kind(jnp.asarray(0.3), jnp.asarray(0.7))


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        (WithoutNormaliser, NORMALISED),
        (DrawsTwiceAsWide, "draws have the law that log_prob states"),
        (NaNBeside, "it must be 0"),
    ],
)
def test_a_planted_fault_of_a_kernel_is_found(kind, law, key):
    with pytest.raises(ConformanceError) as error:
        check_kernel(laplace(kind), key=key)
    assert law in str(error.value)


def test_kernels_of_one_number_are_checked_like_others(key):
    checked = check_kernel(laplace(Laplace), key=key)
    assert NORMALISED in checked.laws
    assert not checked.left_out


@pytest.mark.parametrize("scale", [1e-2, 1e-4])
def test_a_variance_taken_for_a_standard_deviation_is_no_steep_density(scale, key):
    class Squared(Laplace):
        def from_noise(self, noise):
            return self.mean + jnp.sqrt(self.scale) * noise

    with pytest.raises(ConformanceError):
        check_kernel(Squared(jnp.asarray(0.3), jnp.asarray(scale) ** 2), key=key)


def test_a_density_without_bound_is_not_judged_by_an_integral_that_is_not_known(key):
    with pytest.raises(ConformanceError, match=r"temper\(T\)"):  # which it leaves as it is
        check_kernel(laplace(Steep), key=key)


# ---- an environment --------------------------------------------------------------------------


class Point(Kernel):
    """One edge, for sure."""

    at: Any

    def noise(self, key, shape=()):
        return jnp.zeros(shape)

    def from_noise(self, noise):
        numbers, choice = eqx.partition(self.at, eqx.is_inexact_array)
        return eqx.combine(jax.tree.map(lambda number: number + noise, numbers), choice)

    def log_prob(self, action):
        return jnp.zeros(())

    def explore(self, amount):
        return self

    temper = explore


class Place(eqx.Module):
    x: jax.Array
    index: jax.Array


class OneByOne(Environment):
    """x in two dimensions, one coordinate after the other; P_B has no choice."""

    num_steps = 2
    fewest_steps = 2
    feature_size = 4
    forward_size = 2
    backward_size = 1

    def initial_state(self):
        return Place(jnp.zeros(2), jnp.zeros((), jnp.int32))

    def terminal_state(self, x):
        return Place(x, jnp.asarray(2, jnp.int32))

    def sample_of(self, state):
        return state.x

    def is_initial(self, state):
        return state.index == 0

    def is_terminal(self, state):
        return state.index == 2

    def coordinate(self, action):
        return action

    def edge(self, coordinate):
        return coordinate

    def step(self, state, action):
        here = jnp.arange(2) == state.index
        return Place(jnp.where(here, self.coordinate(action), state.x), state.index + 1)

    def backward_step(self, state, action):
        return Place(jnp.where(jnp.arange(2) == state.index - 1, 0, state.x), state.index - 1)

    def features(self, state):
        return jnp.concatenate([state.x, jnp.arange(2) < state.index])

    def log_reference(self, state):
        return jnp.zeros(())

    def forward_kernel(self, state, params):
        return Laplace(params[0], jnp.exp(0.3 * params[1]))

    def backward_kernel(self, state, params):
        return Point(self.edge(state.x[jnp.maximum(state.index - 1, 0)]))


class Doubles(OneByOne):
    def coordinate(self, action):
        return 2 * action

    def edge(self, coordinate):
        return coordinate / 2


class Cubes(OneByOne):
    def coordinate(self, action):
        return action**3

    def edge(self, coordinate):
        return jnp.cbrt(coordinate)


class Clips(OneByOne):
    def coordinate(self, action):
        return jnp.clip(action, -0.5, 0.5)


class Objects(OneByOne):
    """Objects are twice what the walk has filled in."""

    def sample_of(self, state):
        return 2 * state.x

    def terminal_state(self, x):
        return super().terminal_state(x / 2)


class Move(eqx.Module):
    stop: jax.Array
    amount: jax.Array


class StopOrMove(Kernel):
    """An edge that is a choice and a number, which is 0 for a stop."""

    chance: jax.Array
    laplace: Laplace

    def noise(self, key, shape=()):
        choice_key, key = jax.random.split(key)
        return jax.random.uniform(choice_key, shape), self.laplace.noise(key, shape)

    def from_noise(self, noise):
        stop = noise[0] < self.chance
        return Move(stop.astype(jnp.int32), jnp.where(stop, 0, self.laplace.from_noise(noise[1])))

    def log_prob(self, action):
        move = jnp.log1p(-self.chance) + self.laplace.log_prob(action.amount)
        return jnp.where(action.stop == 1, jnp.log(self.chance), move)

    def explore(self, amount):
        return self

    temper = explore


class Stopped(eqx.Module):
    x: jax.Array
    index: jax.Array
    stopped: jax.Array


class StopsEarly(Environment):
    """A number of numbers: each edge appends one, or stops; a third one must be a stop."""

    num_steps = 3
    fewest_steps = 1
    feature_size = 6
    forward_size = 3
    backward_size = 1

    def initial_state(self):
        return Stopped(jnp.zeros(2), jnp.zeros((), jnp.int32), jnp.asarray(False))

    def terminal_state(self, x):
        return Stopped(x[:2], x[2].astype(jnp.int32), jnp.asarray(True))

    def sample_of(self, state):
        return jnp.append(state.x, state.index)

    def is_initial(self, state):
        return (state.index == 0) & ~state.stopped

    def is_terminal(self, state):
        return state.stopped

    def step(self, state, action):
        here = (jnp.arange(2) == state.index) & (action.stop == 0)
        x = jnp.where(here, action.amount, state.x)
        return Stopped(x, state.index + 1 - action.stop, action.stop == 1)

    def backward_step(self, state, action):
        last = (jnp.arange(2) == state.index - 1) & (action.stop == 0)
        return Stopped(
            jnp.where(last, 0, state.x), state.index - 1 + action.stop, jnp.asarray(False)
        )

    def features(self, state):
        rest = jnp.stack([state.stopped, state.index == 1, state.index == 2, state.index == 0])
        return jnp.concatenate([state.x, rest])

    def log_reference(self, state):
        return jnp.zeros(())

    def forward_kernel(self, state, params):
        chance = jnp.where(state.index == 2, 1.0, jnp.clip(jax.nn.sigmoid(params[2]), 0.1, 0.9))
        return StopOrMove(chance, Laplace(params[0], jnp.exp(0.3 * params[1])))

    def backward_kernel(self, state, params):
        last = state.x[jnp.maximum(state.index - 1, 0)]
        stop = state.stopped.astype(jnp.int32)
        return Point(Move(stop, jnp.where(state.stopped, 0, last)))


def test_edges_may_be_a_choice_and_a_number(key):
    laws = check_environment(StopsEarly(), key=key, num_paths=16).laws
    assert any(law.startswith(VOLUME) for law in laws)


def test_an_object_that_changes_volume_is_found(key):
    with pytest.raises(ConformanceError, match="sample_of keeps volume"):
        check_environment(Objects(), key=key, num_paths=16)


def test_an_environment_that_fills_coordinates_is_right(key):
    assert any(law.startswith(VOLUME) for law in check_environment(OneByOne(), key=key).laws)


@pytest.mark.parametrize("kind", [Doubles, Cubes, Clips])
def test_an_edge_that_changes_volume_is_found(kind, key):
    with pytest.raises(ConformanceError, match=VOLUME):
        check_environment(kind(), key=key, num_paths=16)
