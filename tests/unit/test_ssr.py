"""The SSR policy scores each child as its formula says, however it shares the work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact.environments import Autoregressive, Hypergrid, PrependAppend
from didact.networks import SSRConfig


def one_hot(symbols, num_symbols, length):
    code = np.zeros((length, num_symbols))
    code[np.arange(len(symbols)), list(symbols)] = 1
    return code.reshape(-1)


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def affine(layer, x):
    return x @ np.asarray(layer.weight, np.float64) + np.asarray(layer.bias, np.float64)


def naive_logit(policy, parent, child):
    def embed(symbols):
        code = one_hot(symbols, policy.num_symbols, policy.length)
        return affine(policy.encoder[1], leaky(affine(policy.encoder[0], code)))

    both = np.concatenate([embed(parent), embed(child)])
    return affine(policy.scorer[1], leaky(affine(policy.scorer[0], both)))[0]


@pytest.mark.parametrize("string", [(), (2,), (1, 1), (0, 2, 1)])
@pytest.mark.parametrize("kind", [PrependAppend, Autoregressive])
def test_logits_are_the_scores_of_the_pairs(kind, string):
    env = kind(3, 4)
    policy = SSRConfig(width=8).build(
        env, flow_head=False, backward_head=False, key=jax.random.key(0)
    )
    state = env.initial_state()
    for symbol in string:
        state = env.step(state, jnp.asarray(symbol + env.num_actions - 3))
    found = np.asarray(policy(env.features(state)).forward)
    children = [(*string, a) for a in range(3)]
    if kind is PrependAppend:
        children = [(a, *string) for a in range(3)] + children
    wanted = [naive_logit(policy, string, child) for child in children]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert np.ptp(wanted) > 1e-3


def test_logits_are_clipped_without_a_gradient_beyond():
    env = PrependAppend(3, 4)
    policy = SSRConfig(width=8, clip=1e-3).build(
        env, flow_head=True, backward_head=True, key=jax.random.key(0)
    )
    features = env.features(env.initial_state())
    out = policy(features)
    assert jnp.all(jnp.abs(out.forward) <= 1e-3)
    assert out.log_flow is not None
    assert out.backward is not None
    assert out.backward.shape == (env.backward_size,)
    far = int(jnp.argmax(jnp.abs(out.forward) == 1e-3))
    assert jnp.abs(out.forward[far]) == 1e-3
    slope = jax.grad(lambda p: p(features).forward[far], allow_int=True)(policy)
    assert not jnp.any(slope.encoder[1].weight)


def test_an_environment_without_strings_is_refused():
    with pytest.raises(ValueError, match="Hypergrid has none: give the Experiment another network"):
        SSRConfig().build(
            Hypergrid(2, 4), flow_head=False, backward_head=False, key=jax.random.key(0)
        )
