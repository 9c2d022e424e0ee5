"""Kernels with one planted fault each."""

import jax
import jax.numpy as jnp
import pytest

from didact.environments import Categorical, Gaussian, Kernel
from didact.testing import Checked, ConformanceError, check_kernel


class Raw(Kernel):
    """A categorical written from the abstract type alone; the mutants below change one line."""

    logits: jax.Array

    def noise(self, key, shape=()):
        return jax.random.gumbel(key, (*shape, *self.logits.shape))

    def from_noise(self, noise):
        return jnp.argmax(self.logits + noise).astype(jnp.int32)

    def log_prob(self, action):
        return jax.nn.log_softmax(self.logits)[action]

    def explore(self, amount):
        mixed = (1 - amount) * jax.nn.softmax(self.logits) + amount / self.logits.shape[0]
        return type(self)(jnp.log(mixed))

    def temper(self, temperature):
        return type(self)(jax.nn.log_softmax(self.logits / temperature))


class WithoutNormaliser(Raw):
    def log_prob(self, action):
        return self.logits[action]


class HalfOfIt(Raw):
    """A normaliser that counts one action twice: half of the probability is nowhere."""

    def log_prob(self, action):
        return super().log_prob(action) - jnp.log(2.0)


class DrawsAnother(Raw):
    def from_noise(self, noise):
        return jnp.argmax(self.logits / 1.3 + noise).astype(jnp.int32)


class MasksWithMinusInfinity(Raw):
    def __init__(self, logits):
        self.logits = jnp.where(jnp.arange(len(logits)) == 1, -jnp.inf, logits)


class ExploresTooMuch(Raw):
    """The mixture is not divided by what it adds up to."""

    def explore(self, amount):
        mixed = jax.nn.softmax(self.logits) + amount / self.logits.shape[0]
        return WithoutNormaliser(jnp.log(mixed))


class AlwaysExplores(Raw):
    def explore(self, amount):
        return super().explore(jnp.maximum(amount, 0.1))


class NoiseOfOneShape(Raw):
    def noise(self, key, shape=()):
        return jax.random.gumbel(key, self.logits.shape)


class LogProbOfEachAction(Raw):
    def log_prob(self, action):
        return jax.nn.log_softmax(self.logits)


class ExploresByBranching(Raw):
    def explore(self, amount):
        return super().explore(amount) if amount > 0 else self


class Own(Gaussian):
    """A Gaussian whose mutants stay what they are."""

    def explore(self, amount):
        return type(self)(self.mean, super().explore(amount).std)

    def temper(self, temperature):
        return type(self)(self.mean, super().temper(temperature).std)


class GaussianWithoutNormaliser(Own):
    def log_prob(self, action):
        return super().log_prob(action) + jnp.sum(jnp.log(jnp.maximum(self.std, 1e-3)))


class PointIsNarrow(Own):
    """A point mass is scored as a Gaussian of standard deviation 1e-6."""

    def log_prob(self, action):
        return Gaussian(self.mean, jnp.maximum(self.std, 1e-6)).log_prob(action)


class PointIsNaN(Own):
    """A point mass is divided by its standard deviation."""

    def log_prob(self, action):
        z = (action - self.mean) / self.std
        return jnp.sum(-0.5 * z**2 - jnp.log(self.std * jnp.sqrt(2 * jnp.pi)))


class DrawsWider(Own):
    def from_noise(self, noise):
        return self.mean + 1.1 * self.std * noise


class DrawsBeside(Own):
    def from_noise(self, noise):
        return self.mean + self.std * (noise + 0.15)


class CorrelatedDraws(Own):
    """Each coordinate has the law that it should, and a part of it is that of the first."""

    def from_noise(self, noise):
        mixed = 0.25 * noise[0] + (1 - 0.25**2) ** 0.5 * noise
        return self.mean + self.std * mixed.at[0].set(noise[0])


class NoiseIsNotBack(Own):
    def to_noise(self, action):
        return super().to_noise(action) + 0.1


LOGITS = jnp.asarray([0.5, -1.0, 2.0, 0.0])
MEAN, STD = jnp.asarray([0.7, -2.0]), jnp.asarray([0.4, 1.5])
FINITE = "log-probabilities and their gradients are finite"
NORMALISED = "log_prob is normalised"
DRAWS = "draws have the law that log_prob states"
FAULTS = [
    (WithoutNormaliser(LOGITS), NORMALISED),
    (HalfOfIt(LOGITS), NORMALISED),
    (DrawsAnother(LOGITS), DRAWS),
    (MasksWithMinusInfinity(LOGITS), "its parameters are finite"),
    (ExploresTooMuch(LOGITS), f"{NORMALISED} after explore(0.3)"),
    (AlwaysExplores(LOGITS), "explore(0) and temper(1) change nothing"),
    (NoiseOfOneShape(LOGITS), "noise has the shape that is asked for"),
    (LogProbOfEachAction(LOGITS), "log_prob is one number"),
    (ExploresByBranching(LOGITS), "its methods can be compiled and batched"),
    (GaussianWithoutNormaliser(MEAN, STD), NORMALISED),
    (PointIsNarrow(MEAN, 0 * STD), NORMALISED),
    (PointIsNaN(MEAN, 0 * STD), FINITE),
    (DrawsWider(MEAN, STD), DRAWS),
    (DrawsBeside(MEAN[:1], STD[:1]), DRAWS),
    (CorrelatedDraws(MEAN, STD), DRAWS),
    (NoiseIsNotBack(MEAN, STD), "from_noise undoes to_noise"),
]


SLOW = (
    *(HalfOfIt, AlwaysExplores, GaussianWithoutNormaliser, PointIsNaN, DrawsWider, DrawsBeside),
    *(CorrelatedDraws, NoiseIsNotBack),
)
"""Each class is compiled anew, which takes a second or two."""


@pytest.mark.parametrize(
    ("kernel", "law"),
    [
        pytest.param(
            kernel,
            law,
            id=type(kernel).__name__,
            marks=[pytest.mark.slow] * isinstance(kernel, SLOW),
        )
        for kernel, law in FAULTS
    ],
)
def test_a_planted_fault_is_found(kernel, law, key):
    law, _, after = law.partition(" after ")
    with pytest.raises(ConformanceError) as error:
        check_kernel(kernel, key=key)
    first, where = str(error.value).splitlines()
    assert first.startswith(f"{type(kernel).__name__}(")
    assert law in first
    assert after in where


def test_a_kernel_written_from_the_abstract_type_passes(key):
    """And the summary says what was checked."""
    checked = check_kernel(Raw(LOGITS), key=key)
    assert isinstance(checked, Checked)
    assert "log_prob is normalised" in checked.laws
    assert str(checked).startswith(
        f"Raw(logits=f32[4]): {len(checked.laws)} laws hold, over 16384 draws.\n  + "
    )
    with pytest.raises(AttributeError):
        checked.laws = ()


@pytest.mark.slow
def test_edges_that_are_rare_are_no_fault(key):
    """Most of them are never drawn, and what is missing from the sum is no more than that."""
    rare = jnp.concatenate([jnp.zeros(1), jnp.full(2000, -9.0)])
    check_kernel(Categorical(rare, jnp.ones(2001, bool)), key=key, num_draws=1024)
