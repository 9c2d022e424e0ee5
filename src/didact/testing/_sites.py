"""The laws of an environment whose objects have sites."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from .._types import EnumerableEnvironment, Sample, SiteEnvironment
from ._laws import Ledger, fault_at, show_state, take
from ._statistics import ERROR_RATE

SITES = "mutate changes one value of an object at most, and gives an object"
MOVES = "mutate changes something, where there is more than one object"
EVEN = "mutate leads from an object to another as often as back"
_DRAWS, _STARTS, _NEIGHBOURS = 512, 3, 8


def check_sites(
    ledger: Ledger, env: EnumerableEnvironment, key: PRNGKeyArray, random: np.random.Generator
) -> None:
    """Of the last object, which is at a border where there is one, and of some that are drawn."""
    if not isinstance(env, SiteEnvironment):
        return
    count = env.num_terminal_states
    numbers = np.asarray([count - 1, *random.integers(0, count, _STARTS - 1)]) + env.num_internal
    found = jax.tree.map(np.asarray, _ways(env, key, jnp.asarray(numbers, jnp.int32)))
    start, there, changed, valid, forth, back = found

    def went(s: int, d: int) -> str:
        return f"{show_state(take(start, s))} becomes {show_state(take(there, s, d))}"

    fault = fault_at(
        ~valid | (changed > 1),
        lambda s, d: f"{went(s, d)}, with {changed[s, d]} values that differ",
        "draws",
    )
    ledger.holds(SITES, fault)
    if count > 1:
        ledger.holds(MOVES, fault_at(~changed.any(axis=1), lambda s: went(s, 0), "objects"))
    fault = fault_at(
        np.vectorize(_differ)(forth, back),
        lambda s, d: f"{went(s, d)} in {forth[s, d]} of {_DRAWS} draws, and back in {back[s, d]}",
        "ways",
    )
    ledger.holds(EVEN, fault)


def _differ(forth: Any, back: Any) -> bool:
    """Whether two counts of so many draws show two chances, by Fisher's exact test."""
    from scipy import stats

    table = [[forth, _DRAWS - forth], [back, _DRAWS - back]]
    p: Any = stats.fisher_exact(table)[1]
    return bool(p < ERROR_RATE / (_STARTS * _NEIGHBOURS))


@eqx.filter_jit
def _ways(env: Any, key: PRNGKeyArray, numbers: Array) -> tuple[Any, ...]:
    """Objects; what they become; how many of its values differ, and whether it is an object; and of
    the first of these how often they are come to, and how often the way back is drawn.
    """
    forth_key, back_key = jax.random.split(key)
    start = jax.vmap(lambda i: env.sample_of(env.state_at(i)))(numbers)
    there = _drawn(env, forth_key, start, len(numbers))
    first = jax.tree.map(lambda leaf: leaf[:, :_NEIGHBOURS], there)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), first)
    back = _drawn(env, back_key, flat, len(numbers) * _NEIGHBOURS)
    home = jax.tree.map(lambda leaf: jnp.repeat(leaf, _NEIGHBOURS, axis=0)[:, None], start)
    returns = jnp.sum(_differing(back, home) == 0, axis=1).reshape(-1, _NEIGHBOURS)
    same = jax.vmap(_differing)(
        jax.tree.map(lambda leaf: leaf[:, :, None], first),
        jax.tree.map(lambda leaf: leaf[:, None], there),
    )
    again = jax.vmap(
        jax.vmap(lambda x: env.sample_of(env.state_at(env.index_of(env.terminal_state(x)))))
    )(there)
    changed = _differing(there, jax.tree.map(lambda leaf: leaf[:, None], start))
    return start, there, changed, _differing(again, there) == 0, jnp.sum(same == 0, -1), returns


def _drawn(env: SiteEnvironment, key: PRNGKeyArray, x: Sample, count: int) -> Sample:
    keys = jax.random.split(key, (count, _DRAWS))
    return jax.vmap(jax.vmap(env.mutate, (0, None)))(keys, x)


def _differing(a: Sample, b: Sample) -> Array:
    """How many values of objects [N, draws, ...] differ."""
    counts = jax.tree.map(lambda p, q: jnp.sum(p != q, axis=tuple(range(2, (p != q).ndim))), a, b)
    return jax.tree.reduce(jnp.add, counts)
