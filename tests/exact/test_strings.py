"""Strings: their laws against a brute-force walk over action sequences on Python strings."""

import itertools
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact.environments import Autoregressive, Hypergrid, PrependAppend, StringState
from didact.metrics import exact
from didact.targets import FromFunction

from .._tabular import network_sampler

SIZES = [(1, 3), (2, 4), (3, 3), (4, 2)]


def state_of(string, length):
    symbols = np.zeros(length, np.int32)
    symbols[: len(string)] = string
    return StringState(jnp.asarray(symbols), jnp.asarray(len(string), jnp.int32))


def strings(num_symbols, length):
    """All strings of up to `length` symbols, as tuples, in the order of their numbers."""
    for n in range(length + 1):
        yield from itertools.product(range(num_symbols), repeat=n)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_numbers_are_lexicographic_within_a_length(size):
    env = PrependAppend(*size)
    states = jax.vmap(env.state_at)(jnp.arange(env.num_internal + env.num_terminal_states))
    found = [
        tuple(row[:n].tolist())
        for row, n in zip(np.asarray(states.symbols), np.asarray(states.length), strict=True)
    ]
    assert found == list(strings(*size))


def children(string, num_symbols, *, both_ends):
    """Distinct children, whatever action makes them."""
    ways = [(*string, a) for a in range(num_symbols)]
    if both_ends:
        ways += [(a, *string) for a in range(num_symbols)]
    return set(ways)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", [PrependAppend, Autoregressive])
def test_edges_are_the_distinct_pairs_of_strings(kind, size):
    """Each child by one action, each parent by one: as sets of Python tuples have it."""
    env = kind(*size)
    num_symbols, length = size
    actions = jnp.arange(env.num_actions)

    @jax.jit
    def about(state):
        after = jax.vmap(lambda a: env.step(state, a).symbols)(actions)
        before = jax.vmap(lambda a: env.backward_step(state, a).symbols)(actions)
        return env.forward_mask(state), after, env.backward_mask(state), before

    parents = defaultdict(set)
    for string in strings(num_symbols, length):
        n = len(string)
        forward, after, backward, before = map(np.asarray, about(state_of(string, length)))
        made = [tuple(row[: n + 1].tolist()) for row in after[forward]]
        wanted = set()
        if n < length:
            wanted = children(string, num_symbols, both_ends=kind is PrependAppend)
        assert len(made) == len(set(made))
        assert set(made) == wanted
        for child in wanted:
            parents[child].add(string)
        left = [tuple(row[: max(n - 1, 0)].tolist()) for row in before[backward]]
        assert len(left) == len(set(left))
        assert set(left) == parents[string]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_terminal_law_is_the_sum_over_all_action_sequences(size):
    """P_T(x) sums the products of P_F over every sequence of strings from the empty one to x."""
    num_symbols, length = size
    env = PrependAppend(*size)
    sampler = network_sampler(env, jax.random.key(5))
    table = np.asarray(exact.policy_table(sampler), np.float64)
    numbers = {string: i for i, string in enumerate(strings(num_symbols, length))}
    law = defaultdict(float)
    for actions in itertools.product(range(2 * num_symbols), repeat=length):
        string, probability = (), 1.0
        for action in actions:
            # The table gives a forbidden action, which makes a string twice, probability 0.
            probability *= np.exp(table[numbers[string], action])
            symbol = action % num_symbols
            string = (symbol, *string) if action < num_symbols else (*string, symbol)
        law[string] += probability
    found = exact.terminal_law(env, exact.policy_table(sampler))
    wanted = [law[s] for s in itertools.product(range(num_symbols), repeat=length)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    np.testing.assert_allclose(sum(wanted), 1, rtol=1e-5)


@pytest.mark.parametrize("kind", [PrependAppend, Autoregressive])
def test_the_perfect_policy_draws_in_proportion_to_the_reward(kind):
    env = kind(3, 3)
    target = FromFunction(lambda x: jnp.sum(jnp.sin(1.0 + 2 * x[:2]) * x[1:]).astype(jnp.float32))
    log_flow, log_pf = exact.exact_flows(env, target)
    truth = exact.truth(env, target)
    np.testing.assert_allclose(log_flow[0], truth.log_z, rtol=1e-6)
    law = exact.terminal_law(env, jnp.asarray(log_pf))
    np.testing.assert_allclose(law, np.exp(truth.log_p), rtol=2e-6)


def test_an_autoregressive_sampler_has_a_likelihood():
    """In a tree the terminal law is the product of P_F along the one path."""
    env = Autoregressive(3, 3)
    sampler = network_sampler(env, jax.random.key(2))
    table = np.asarray(exact.policy_table(sampler), np.float64)
    numbers = {string: i for i, string in enumerate(strings(3, 3))}
    wanted = [
        np.exp(sum(table[numbers[x[:n]], x[n]] for n in range(3)))
        for x in itertools.product(range(3), repeat=3)
    ]
    law = exact.terminal_law(env, exact.policy_table(sampler))
    np.testing.assert_allclose(law, wanted, rtol=1e-5)


@pytest.mark.parametrize("bad", [(0, 3), (3, 0), (-1, 2)])
@pytest.mark.parametrize("kind", [PrependAppend, Autoregressive])
def test_sizes_are_checked(kind, bad):
    with pytest.raises(ValueError, match=r"(num_symbols|length) must be >= 1"):
        kind(*bad)


def test_too_many_strings_have_no_numbers_but_can_be_built():
    env = PrependAppend(20, 12)
    assert exact.refusal(env) is not None
    state = env.step(env.initial_state(), jnp.asarray(25))
    assert state.symbols[0] == 5
    with pytest.raises(ValueError, match="2\\^31"):
        env.index_of(state)


@pytest.mark.parametrize("size", [(1, 3), (2, 4), (4, 2), (3, 1)], ids=str)
@pytest.mark.parametrize("kind", [PrependAppend, Autoregressive])
def test_the_probability_of_a_string_is_that_of_its_substrings(kind, size):
    """Against the law of all terminal states; strings with repeated symbols among them."""
    env = kind(*size)
    sampler = network_sampler(env, jax.random.key(4))
    law = exact.terminal_law(env, exact.policy_table(sampler))
    found = exact.string_log_prob(sampler, jnp.asarray(exact.terminal_samples(env)))
    np.testing.assert_allclose(found, np.log(law), atol=2e-5)


def test_only_strings_have_substrings():
    sampler = network_sampler(Hypergrid(2, 4), jax.random.key(4))
    with pytest.raises(ValueError, match="Hypergrid is no environment of strings"):
        exact.string_log_prob(sampler, jnp.zeros((1, 2), jnp.int32))


def test_strings_of_no_symbols_are_never_drawn():
    """Outside a program they are an error, inside one they have no probability."""
    env = PrependAppend(3, 3)
    sampler = network_sampler(env, jax.random.key(4))
    x = jnp.asarray([[0, 1, 2], [0, 1, 3], [-1, 1, 2]])
    with pytest.raises(ValueError, match="digits of strings are 0 to 2, got -1 to 3"):
        exact.string_log_prob(sampler, x)
    found = jax.jit(lambda x: exact.string_log_prob(sampler, x))(x)
    assert np.isfinite(found).tolist() == [True, False, False]
    assert float(found[0]) == pytest.approx(float(exact.string_log_prob(sampler, x[:1])[0]))


def test_long_strings_are_too_many_in_words():
    """More of them than a float can count."""
    reason = exact.refusal(PrependAppend(20, 400))
    assert reason is not None
    assert "would need about 10^520 states" in reason
