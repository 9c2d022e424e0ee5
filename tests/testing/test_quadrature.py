"""Integrals of densities: narrow, bounded and far from 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

from didact.testing._quadrature import mass_of, mass_of_line, proposals

NUMBER = 2_048


def uniform(key):
    return jax.random.uniform(key, (NUMBER, 1)), lambda x: jnp.where(
        (x[0] >= 0) & (x[0] <= 1), 0.0, -jnp.inf
    )


def hills(key):
    """Two of width 0.1, ten apart."""
    side_key, noise_key = jax.random.split(key)
    side = jax.random.bernoulli(side_key, 0.5, (NUMBER, 1))

    def log_density(x):
        both = jnp.stack([norm.logpdf(x[0], 0, 0.1), norm.logpdf(x[0], 10, 0.1)])
        return jax.nn.logsumexp(both) - jnp.log(2.0)

    return 10.0 * side + 0.1 * jax.random.normal(noise_key, (NUMBER, 1)), log_density


def cauchy(key):
    return jax.random.cauchy(key, (NUMBER, 1)), lambda x: -jnp.log(jnp.pi * (1 + x[0] ** 2))


@pytest.mark.parametrize("law", [uniform, hills, cauchy])
def test_the_integral_of_a_line(law):
    for seed in range(8):
        draws, log_density = law(jax.random.key(seed))
        mass = mass_of_line(log_density, draws)
        # The widest of heavy tails may leave too few nodes in the middle, which is then said.
        assert mass.is_precise or law is cauchy
        assert not mass.is_precise or mass.fault("It") is None
        wrong = mass_of_line(lambda x, plain=log_density: plain(x) + jnp.log(1.2), draws)
        assert not mass.is_precise or wrong.fault("It") is not None


@pytest.mark.parametrize("dim", [3, 64])
@pytest.mark.parametrize("off", [-110.0, 110.0])
def test_what_is_off_by_more_than_a_float_holds_is_seen(dim, off):
    random = np.random.default_rng(0)
    z = jnp.asarray(proposals(random, 2**13, dim), jnp.float32)
    draws = jnp.asarray(random.standard_normal((NUMBER, dim)), jnp.float32)
    mass = mass_of(lambda x: norm.logpdf(x).sum() + off, draws, jnp.ones(dim, bool), z)
    if dim == 3:
        assert mass.is_precise
        assert f"integrates to e^{off:.0f}"[:16] in str(mass.fault("It"))
    # Known well or not, it is not taken for 0 or for infinity.
    np.testing.assert_allclose(mass.log_value, off, atol=1.0)
