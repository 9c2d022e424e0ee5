"""Work on as many rows as are needed: the same numbers however seeds are put together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import didact
from didact import _train
from didact._rows import on_enough_rows

SIZES = (2, 4, 8)
COUNTS = jnp.asarray([1, 4, 3])

every_backend = pytest.mark.parametrize("backend", ["cpu", "gpu"])


def total(values, count):
    """The sum of the first `count` values, and how many were looked at."""

    def of(rows, values, count):
        kept = jnp.where(jnp.arange(rows) < count, values[:rows], 0)
        return jnp.sum(kept), jnp.asarray(rows)

    return on_enough_rows(of, SIZES, count, values, count)


@every_backend
def test_each_seed_has_enough_rows(backend, monkeypatch):
    """Its own number of them where seeds take turns, that of the largest where they do not."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    values = jnp.arange(24.0).reshape(3, 8)
    sums, rows = jax.vmap(total)(values, COUNTS)
    np.testing.assert_array_equal(sums, [0, 8 + 9 + 10 + 11, 16 + 17 + 18])
    np.testing.assert_array_equal(rows, [2, 4, 4] if backend == "cpu" else [4, 4, 4])
    assert total(values[0], COUNTS[0])[1] == 2
    # What is shared by all seeds need not be copied for each of them.
    sums, _ = jax.vmap(total, in_axes=(None, 0))(values[0], COUNTS)
    np.testing.assert_array_equal(sums, [0, 6, 3])


@every_backend
def test_the_counts_alone_may_differ(backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    out = jax.vmap(lambda count: on_enough_rows(lambda rows, x: x + rows, SIZES, count, 1.0))(
        COUNTS
    )
    np.testing.assert_array_equal(out, [3, 5, 5] if backend == "cpu" else [5, 5, 5])


@pytest.mark.parametrize("depth", [1, 2])
def test_side_by_side_seeds_compute_one_branch(depth, monkeypatch):
    """A choice for each seed would be a selection among all branches."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    function, values, counts = total, jnp.ones((3, 8)), COUNTS
    for _ in range(depth):
        function, values, counts = jax.vmap(function), values[None], counts[None]
    program = jax.jit(function).lower(values[0], counts[0]).as_text()
    assert program.count("stablehlo.case") == 1
    np.testing.assert_array_equal(function(values[0], counts[0])[0].ravel(), COUNTS)


@pytest.mark.parametrize("preset", ["tb", pytest.param("lggfn", marks=pytest.mark.slow)])
def test_training_learns_the_same_side_by_side(preset, monkeypatch):
    """Another number of rows changes the order of sums alone."""
    experiment = didact.presets.grid(preset, dim=2, side=8, batch_size=16)
    # Of small batches, which compile soon, all sizes but the first are used.
    monkeypatch.setattr(
        _train, "row_sizes", lambda env, batch: (4, 24, batch * (env.num_steps + 1))
    )

    def trained(capacity):
        state = didact.init(experiment, (0, 1, 2))
        state, info = didact.train_chunk(experiment, state, 4, capacity=capacity)
        return state.seeds.student, info.loss[:, :4]

    in_turns = trained(4)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    side_by_side = trained(5)  # another capacity is another program
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6), in_turns, side_by_side
    )
