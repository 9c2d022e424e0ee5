"""Seeds in programs of their own, several of them running at a time.

On a CPU the products of one seed's batches are too small for more than one core. As rows of one
program, seeds would wait for each other there; as programs of their own they take a core each. So
a seed's run is then that of the same seed alone, to the bit.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Int, PyTree

from ._sharding import num_shards


def runs_apart(num_seeds: int, *arguments: PyTree) -> bool:
    """Whether each seed is best run by itself. Nothing of the arguments may be traced: another
    thread knows nothing of a transformation.
    """
    return (
        num_seeds > 1
        and not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arguments))
        and jax.default_backend() == "cpu"
        and num_shards() == 1
        and jax.process_count() == 1
    )


def seed_of(seeds: PyTree, i: int) -> PyTree:
    """One seed, whose leading axis has length 1: a copy."""
    return _seed_of(seeds, jnp.asarray(i))


@eqx.filter_jit
def _seed_of(seeds: PyTree, i: Int[Array, ""]) -> PyTree:
    arrays, rest = eqx.partition(seeds, eqx.is_array)
    part = jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, i, 1), arrays)
    return eqx.combine(part, rest)


def together(parts: Sequence[PyTree]) -> PyTree:
    """The inverse: parts one after the other."""
    return parts[0] if len(parts) == 1 else _together(tuple(parts))


@eqx.filter_jit
def _together(parts: tuple[PyTree, ...]) -> PyTree:
    arrays, rest = eqx.partition(parts, eqx.is_array)
    return eqx.combine(jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *arrays), rest[0])


def use_up(tree: PyTree) -> None:
    """Free the memory of arrays, as a program does with those that are given to it for good."""
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array):
            leaf.delete()


def for_each(
    function: Callable[..., PyTree], *items: Sequence[Any], in_turn: bool = False
) -> list[PyTree]:
    """`map`, with as many calls at a time as there are cores, or one (`in_turn`)."""
    calls = list(zip(*items, strict=True))
    workers = 1 if in_turn else min(_cores(), len(calls))
    if workers > 1:
        with ThreadPoolExecutor(workers) as pool:
            # A setting that is in force in this thread alone would make another program there.
            if pool.submit(_settings).result() == _settings():
                return list(pool.map(lambda call: function(*call), calls))
    return [function(*call) for call in calls]


def _settings() -> tuple[dict[str, Any], Any]:
    return dict(jax.config.values), jax.sharding.get_abstract_mesh()


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return (os.cpu_count() or 1) if affinity is None else len(affinity(0))
