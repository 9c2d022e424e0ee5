"""Work on as many rows as there are distinct states, in programs whose shapes are fixed."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, PyTree


def on_enough_rows(
    of: Callable[..., PyTree], sizes: Sequence[int], count: Int[Array, "..."], *args: Any
) -> PyTree:
    """`of(rows, *args)` with the least of the increasing `sizes` that is not below any `count`; the
    program holds one branch for each of them.

    A batch of seeds must not turn the choice into one for each, for which all branches would be
    computed. On a CPU, where many rows already fill the cores, seeds of one program take turns,
    each with its own number of rows. On an accelerator they run side by side, all with as many as
    the one that needs most.

    **Arguments:** `of` holds no traced arrays: they are among the `args`.
    """
    branches = [functools.partial(of, rows) for rows in sizes]
    if jax.default_backend() == "cpu":
        choose = functools.partial(_choose, branches, sizes)
        return jax.custom_batching.sequential_vmap(choose)(count, *args)
    return _side_by_side(branches, sizes)(count, *args)


def _choose(branches: Sequence[Callable[..., PyTree]], sizes: Sequence[int], count, *args):
    if len(branches) == 1:
        return branches[0](*args)
    return lax.switch(jnp.sum(jnp.max(count) > jnp.asarray(sizes)), branches, *args)


def _side_by_side(branches: Sequence[Callable[..., PyTree]], sizes: Sequence[int]):
    """`_choose`, which stays one choice under any number of `vmap`."""
    chosen = jax.custom_batching.custom_vmap(functools.partial(_choose, branches, sizes))

    @chosen.def_vmap
    def together(size: int, batched: Sequence[PyTree], count: Array, *args: Any):
        axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, tuple(batched[1:]))
        wider = [jax.vmap(branch, in_axes=axes, axis_size=size) for branch in branches]
        out = _side_by_side(wider, sizes)(count, *args)
        return out, jax.tree.map(lambda _: True, out)

    return chosen
