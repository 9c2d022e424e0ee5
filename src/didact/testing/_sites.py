"""The laws of an environment whose objects have sites."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from .._types import EnumerableEnvironment, Environment, Sample, SiteEnvironment
from ._laws import Ledger, fault_at, show_state, take
from ._statistics import ERROR_RATE, generator

SITES = "mutate changes one value of an object at most, and gives an object"
MOVES = "mutate changes something, where there is more than one object"
EVEN = "mutate leads from an object to another as often as back"
_DRAWS, _STARTS, _NEIGHBOURS = 512, 3, 8
_FEW_SITES = 32


def check_sites(ledger: Ledger, env: Environment, key: PRNGKeyArray) -> None:
    """Of the last object, which is at a border where there is one, and of some that are drawn."""
    if not isinstance(env, SiteEnvironment):
        return
    if not isinstance(env, EnumerableEnvironment) or not numbered(env):
        ledger.leave_out("what mutate draws: there are no numbers of states to know an object by")
        return
    count, random = env.num_terminal_states, generator(key)
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
    # Of many sites that of a border may be the only one that can change, and is seldom drawn.
    if count > 1 and sum(leaf[0].size for leaf in jax.tree.leaves(start)) <= _FEW_SITES:
        fault = f"None of {_STARTS * _DRAWS} draws did, such as {show_state(take(start, 0))}."
        ledger.holds(MOVES, None if changed.any() else fault)
    fault = fault_at(
        np.vectorize(_differ)(forth, back),
        lambda s, d: f"{went(s, d)} in {forth[s, d]} of {_DRAWS} draws, and back in {back[s, d]}",
        "ways",
    )
    ledger.holds(EVEN, fault)
    # Of many neighbours each is drawn seldom: then all ways together, each of them once.
    ways = [
        [
            (s, *(leaf[s, d].tobytes() for leaf in jax.tree.leaves(there)))
            for d in range(_NEIGHBOURS)
        ]
        for s in range(_STARTS)
    ]
    _, once = np.unique(np.asarray([repr(w) for row in ways for w in row]), return_index=True)
    total = int(forth.ravel()[once].sum()), int(back.ravel()[once].sum())
    fault = f"Along {len(once)} ways {total[0]} draws went, and {total[1]} came back."
    ledger.holds(EVEN, fault if _differ(*total, draws=len(once) * _DRAWS) else None)


def numbered(env: EnumerableEnvironment) -> bool:
    """Whether int32 can number the states."""
    return env.num_internal + env.num_terminal_states < 2**31


def _differ(forth: Any, back: Any, draws: int = _DRAWS) -> bool:
    """Whether two counts of so many draws show two chances, by Fisher's exact test."""
    from scipy import stats

    table = [[forth, draws - forth], [back, draws - back]]
    p: Any = stats.fisher_exact(table)[1]
    return bool(p < ERROR_RATE / (1 + _STARTS * _NEIGHBOURS))


@eqx.filter_jit
def _ways(env: Any, key: PRNGKeyArray, numbers: Array) -> tuple[Any, ...]:
    """Objects; what they become; how many of its values differ, and whether it is an object; and of
    the first of these how often they are come to, and how often the way back is drawn.
    """
    forth_key, back_key = jax.random.split(key)
    start = jax.vmap(lambda i: env.sample_of(env.state_at(i)))(numbers)
    there = _drawn(env, forth_key, start, len(numbers), _NEIGHBOURS + _DRAWS)
    first, later = (
        jax.tree.map(lambda leaf, part=part: leaf[:, part], there)
        for part in (slice(_NEIGHBOURS), slice(_NEIGHBOURS, None))
    )
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), first)
    back = _drawn(env, back_key, flat, len(numbers) * _NEIGHBOURS, _DRAWS)
    home = jax.tree.map(lambda leaf: jnp.repeat(leaf, _NEIGHBOURS, axis=0)[:, None], start)
    returns = jnp.sum(_differing(back, home) == 0, axis=1).reshape(-1, _NEIGHBOURS)
    same = jax.vmap(_differing)(
        jax.tree.map(lambda leaf: leaf[:, :, None], first),
        jax.tree.map(lambda leaf: leaf[:, None], later),
    )
    again = jax.vmap(
        jax.vmap(lambda x: env.sample_of(env.state_at(env.index_of(env.terminal_state(x)))))
    )(there)
    changed = _differing(there, jax.tree.map(lambda leaf: leaf[:, None], start))
    return start, there, changed, _differing(again, there) == 0, jnp.sum(same == 0, -1), returns


def _drawn(env: SiteEnvironment, key: PRNGKeyArray, x: Sample, count: int, draws: int) -> Sample:
    keys = jax.random.split(key, (count, draws))
    return jax.vmap(jax.vmap(env.mutate, (0, None)))(keys, x)


def _differing(a: Sample, b: Sample) -> Array:
    """How many values of objects [N, draws, ...] differ."""
    counts = jax.tree.map(lambda p, q: jnp.sum(p != q, axis=tuple(range(2, (p != q).ndim))), a, b)
    return jax.tree.reduce(jnp.add, counts)
