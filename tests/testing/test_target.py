"""Targets with one planted fault each."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from didact.environments import Diffusion, Hypergrid, PrependAppend
from didact.targets import DeceptiveGrid, FromFunction, GaussianMixture, SamplableTarget, Target
from didact.testing import ConformanceError, check_target

GRID = Hypergrid(2, 4)


class Plain(Target):
    """Written from the abstract type alone: R(x) = 1 + x_0 on the grid, two modes."""

    log_z: float = eqx.field(static=True, default=None)
    num_modes: int = eqx.field(static=True, default=2)

    def log_reward(self, x):
        return jnp.log(1.0 + x[0])

    def mode_index(self, x):
        return jnp.where(x[0] == 3, jnp.where(x[1] < 2, 0, 1), -1)


class Forbidden(Plain):
    """One object is forbidden, and log Z is far off all the same."""

    def log_reward(self, x):
        return jnp.where((x[0] == 2) & (x[1] == 1), -1e9, jnp.log(1.0 + x[0]))


class Integer(Plain):
    def log_reward(self, x):
        return x[0] + 1


class Vector(Plain):
    def log_reward(self, x):
        return jnp.log(1.0 + x)


class NaNSomewhere(Plain):
    """0 times infinity."""

    def log_reward(self, x):
        return x[0] * jnp.log(jnp.asarray(x[1], float))


class NaNGradient(Plain):
    """The slope of |x| at 0 by a square root."""

    def log_reward(self, x):
        return -jnp.sqrt(jnp.sum(jnp.maximum(x, 0.0) ** 2))


class ModeBeyondTheLast(Plain):
    def mode_index(self, x):
        return jnp.where(x[0] == 3, x[1], -1)


class ModeThatNothingHas(Plain):
    num_modes: int = eqx.field(static=True, default=3)


class TracedLogZ(Plain):
    log_z: float = 1.0


class BranchOfPython(Plain):
    def log_reward(self, x):
        return jnp.asarray(1.0 if x[0] > 1 else 0.0)


class Normal(SamplableTarget):
    """A Gaussian with standard deviations 1 and 2, written from the abstract type alone."""

    log_z: float = eqx.field(static=True, default=0.0)
    num_modes: int = eqx.field(static=True, default=None)
    dim: int = eqx.field(static=True, default=2)

    @property
    def std(self):
        return 1.0 + jnp.arange(self.dim)

    def log_reward(self, x):
        return jnp.sum(jax.scipy.stats.norm.logpdf(x, 0, self.std))

    def mode_index(self, x):
        return jnp.asarray(-1, jnp.int32)

    def sample(self, key):
        return self.std * jax.random.normal(key, (self.dim,))


class SamplesTooWide(Normal):
    def sample(self, key):
        return 1.15 * super().sample(key)


class SamplesBeside(Normal):
    def sample(self, key):
        return super().sample(key) + jnp.asarray([0.0, 0.5])


class MissesAMode(GaussianMixture):
    """The second of two components is never drawn: along no coordinate alone this can be seen."""

    def sample(self, key):
        means, scales, _ = self.components()
        noise = jax.random.normal(key, (self.dim,))
        return jnp.asarray(means[0] + scales[0] * noise, float)


class SamplesTheGridEvenly(SamplableTarget):
    log_z: float = eqx.field(static=True, default=None)
    num_modes: int = eqx.field(static=True, default=None)

    def log_reward(self, x):
        return jnp.log(1.0 + x[0])

    def mode_index(self, x):
        return jnp.asarray(-1, jnp.int32)

    def sample(self, key):
        number = jax.random.randint(key, (), 0, GRID.num_terminal_states)
        return GRID.sample_of(GRID.state_at(GRID.num_internal + number))


SAMPLES = "samples have the density R/Z"
LOG_Z = "log_z is the logarithm of the sum or integral of R"


class ModesInAnotherOrder(DeceptiveGrid):
    def mode_samples(self):
        return super().mode_samples()[::-1]


class OneModeIsNotListed(DeceptiveGrid):
    def mode_samples(self):
        return super().mode_samples()[1:]


LISTED = "listed modes are those of mode_index, in its order"
FAULTS = [
    (ModesInAnotherOrder(2, 8), Hypergrid(2, 8), LISTED),
    (OneModeIsNotListed(2, 8), Hypergrid(2, 8), LISTED),
    (Integer(), GRID, "log_reward is one float"),
    (Vector(), GRID, "log_reward is one float"),
    (NaNSomewhere(), GRID, "log_reward is finite"),
    (NaNGradient(num_modes=None), Diffusion(2, 1), "log_reward is finite, and its gradient"),
    (Plain(log_z=2.0), GRID, LOG_Z),
    (Forbidden(log_z=50.0), GRID, LOG_Z),
    (ModeBeyondTheLast(), GRID, "mode_index is -1 or below num_modes"),
    (ModeThatNothingHas(), GRID, "every mode has an object"),
    (TracedLogZ(), GRID, "log_z and num_modes are plain numbers or None"),
    (BranchOfPython(), GRID, "its methods can be compiled and batched"),
    (SamplesTooWide(), None, SAMPLES),
    (SamplesBeside(), None, SAMPLES),
    (MissesAMode(((-1.5, -1.5), (1.5, 1.5)), 0.5), None, SAMPLES),
    (SamplesTheGridEvenly(), GRID, SAMPLES),
    (Normal(log_z=0.2), None, LOG_Z),
    (Normal(log_z=0.2, dim=4), None, LOG_Z),
]


SLOW = (SamplesBeside, MissesAMode)
"""Like others in what is compiled, which takes a second or two."""


@pytest.mark.parametrize(
    ("target", "env", "law"),
    [
        pytest.param(
            target,
            env,
            law,
            id=f"{type(target).__name__}-{number}",
            marks=[pytest.mark.slow] * (isinstance(target, SLOW) or getattr(target, "dim", 2) > 2),
        )
        for number, (target, env, law) in enumerate(FAULTS)
    ],
)
def test_a_planted_fault_is_found(target, env, law, key):
    with pytest.raises(ConformanceError) as error:
        check_target(target, env, key=key)
    first, _ = str(error.value).splitlines()
    assert first.startswith(f"{type(target).__name__}(")
    assert law in first


@pytest.mark.parametrize(
    ("target", "env"),
    [
        pytest.param(Plain(), GRID, id="abstract"),
        pytest.param(DeceptiveGrid(2, 4), GRID, id="grid"),
        pytest.param(Normal(), None, id="plane", marks=pytest.mark.slow),
        pytest.param(Normal(dim=4), None, id="space", marks=pytest.mark.slow),
    ],
)
def test_what_has_no_fault_passes(target, env, key):
    check_target(target, env, key=key)


def test_it_must_know_where_to_look(key):
    with pytest.raises(ValueError, match="give an environment, or objects x"):
        check_target(FromFunction(lambda x: -jnp.sum(x**2)))
    x = jax.random.normal(key, (8, 3))
    assert check_target(FromFunction(lambda x: -jnp.sum(x**2)), x=x).extent == "8 objects"
    # Of states that are too many, some are looked at.
    long = check_target(FromFunction(lambda x: jnp.sum(x) * 0.1, log_z=1.0), PrependAppend(9, 9))
    assert any("small enough" in reason for reason in long.left_out)
