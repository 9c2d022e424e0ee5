"""Pictures of laws over vectors: where they look, and what their cells hold."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from didact._diagnostics import diagnose
from didact._snapshots import CELLS, DrawnSnapshots, View, interesting_pairs
from didact.environments import Diffusion
from didact.targets import FromFunction, ManyWell

from .._diffusion import diffusion_sampler


def loaded(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file}


def test_view_holds_nearly_all_draws() -> None:
    x = np.random.default_rng(0).normal([3.0, -50.0], [1.0, 20.0], (4000, 2))
    view = View.of(x)
    assert view.pairs.tolist() == [[0, 1]]
    low, high = view.extent[0, 0::2], view.extent[0, 1::2]
    assert np.mean(np.all((x > low) & (x < high), axis=1)) > 0.999
    # Of ± 3.1 standard deviations, and a fifth of that more.
    np.testing.assert_allclose(high - low, [7.4, 148], rtol=0.1)


def test_cells_hold_the_share_of_the_draws() -> None:
    view = View(np.array([[0, 2], [1, 2]]), np.array([[0.0, 1, 0, 1], [0.0, 2, 0, 1]]))
    x = np.array([[0.999, 0.5, 0.001], [0.999, 0.5, 0.001], [0.5, 1.5, 0.5], [2.0, 0.5, 0.5]])
    picture = view.picture(x)
    assert picture.shape == (2, CELLS, CELLS)
    # The first coordinate runs along the first axis, and draws outside are in no cell.
    assert picture[0, -1, 0] == 0.5
    assert picture[0, CELLS // 2, CELLS // 2] == 0.25
    np.testing.assert_allclose(picture.sum(axis=(1, 2)), [0.75, 1])
    weighted = view.picture(x, np.array([0.0, 0.0, 1.0, 3.0]))
    np.testing.assert_allclose(weighted.sum(axis=(1, 2)), [0.25, 1])
    line = View(np.zeros((0, 2), np.int64), np.array([[0.0, 64.0]]))
    np.testing.assert_array_equal(np.flatnonzero(line.picture(np.array([[3.5], [9.0]]))), [3, 9])


def test_pairs_are_those_least_like_a_gaussian() -> None:
    """A planted dependence is found among 30 coordinates, and though its marginals are Gaussian
    among 6; a correlated Gaussian pair is not taken for one.
    """
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4000, 30))
    x[:, 17] = x[:, 5] ** 2 + 0.1 * x[:, 17]
    assert interesting_pairs(x)[0].tolist() == [5, 17]
    x = rng.normal(size=(4000, 6))
    x[:, 1] = x[:, 0] + 0.1 * x[:, 1]
    x[:, 4] = np.sign(x[:, 2]) * np.abs(x[:, 4])
    assert interesting_pairs(x)[0].tolist() == [2, 4]


def test_coordinates_that_are_alike_are_taken_in_order() -> None:
    rng = np.random.default_rng(2)
    x = rng.choice([-1.0, 1.0], size=(4000, 40)) + 0.3 * rng.normal(size=(4000, 40))
    assert interesting_pairs(x).tolist() == [[2 * i, 2 * i + 1] for i in range(6)]
    wells = jax.vmap(ManyWell(8).sample)(jax.random.split(jax.random.key(0), 4000))
    assert interesting_pairs(np.asarray(wells, np.float64))[:2].tolist() == [[0, 2], [4, 6]]


def hills(x: Array) -> Array:
    """A Gaussian around (4, 4, ...) with standard deviation 0.5."""
    return -2 * jnp.sum((x - 4) ** 2)


def on_the_host(x: Array) -> Array:
    """The same where JAX cannot differentiate it."""
    value = jax.ShapeDtypeStruct((), x.dtype)
    return jax.pure_callback(
        lambda x: np.asarray(-2 * np.sum((x - 4) ** 2), x.dtype), value, x, vmap_method="sequential"
    )


@pytest.mark.parametrize("dim", [2, 3])
def test_target_that_cannot_be_sampled(dim: int, tmp_path: Path) -> None:
    """Pictures look where the target is, though the untrained sampler draws around 0."""
    sampler = diffusion_sampler(Diffusion(dim, 2))
    snapshots = DrawnSnapshots(tmp_path / "s", FromFunction(hills), sampler, seed=0)
    extent = snapshots.view.extent
    assert np.all((extent[:, 0::2] > 1) & (extent[:, 0::2] < 3.5))
    assert np.all((extent[:, 1::2] > 4.5) & (extent[:, 1::2] < 7))
    snapshots.save(7, sampler, sampler)
    target, law = loaded(tmp_path / "s" / "target.npz"), loaded(tmp_path / "s" / "000000007.npz")
    assert target["format_version"] == law["format_version"] == 1
    np.testing.assert_array_equal(target["extent"], law["extent"])
    assert target["target"].shape == law["student"].shape == law["teacher"].shape
    np.testing.assert_array_equal(law["student"], law["teacher"])
    assert str(target["source"]) == ("density" if dim == 2 else "weighted draws")
    if dim == 2:
        at = [
            (ends[0] + (ends[1] - ends[0]) * (np.arange(192) + 0.5) / 192)
            for ends in (extent[0, :2], extent[0, 2:])
        ]
        wanted = np.exp(-2 * ((at[0][:, None] - 4) ** 2 + (at[1] - 4) ** 2))
        np.testing.assert_allclose(target["density"], wanted / wanted.sum(), atol=1e-6)
        np.testing.assert_allclose(target["target"].sum(), 1, rtol=1e-5)


def test_target_on_the_host_is_looked_for_where_the_sampler_draws() -> None:
    sampler = diffusion_sampler(Diffusion(1, 2))
    snapshots = DrawnSnapshots(Path(), FromFunction(on_the_host), sampler, seed=0)
    np.testing.assert_allclose(snapshots.view.extent, [[-3.5, 3.5]], atol=1)


def test_view_is_that_of_the_run_whatever_was_trained(tmp_path: Path) -> None:
    """A resumed run looks where it looked before."""
    sampler = diffusion_sampler(Diffusion(4, 2))
    views = [DrawnSnapshots(tmp_path, ManyWell(4), sampler, seed=3).view for _ in range(2)]
    for one, other in zip(*views, strict=True):
        np.testing.assert_array_equal(one, other)


def test_diagnostics_keep_the_coordinates_of_the_pictures() -> None:
    """Of many coordinates those in the pairs; weights for all draws, points for the first."""
    target = ManyWell(18)
    sampler = diffusion_sampler(Diffusion(18, 2))
    view = View(np.array([[0, 2], [4, 6]]), np.zeros((2, 4)))
    found = diagnose(sampler, target, view, seed=1, n=40)
    assert found["coordinates"].tolist() == [0, 2, 4, 6]
    assert found["x"].shape == found["target_x"].shape == (40, 4)
    assert found["log_weight"].shape == found["backward_log_weight"].shape == (40,)
    # Exact samples lie in the wells near ± 1.7, draws of the untrained sampler do not.
    assert np.mean(np.abs(np.abs(found["target_x"]) - 1.7) < 0.8) > 0.95
    assert np.mean(np.abs(np.abs(found["x"]) - 1.7) < 0.8) < 0.7
    # The bounds hold on average: backward weights lie above log Z, forward ones below.
    assert found["log_weight"].mean() < target.log_z < found["backward_log_weight"].mean()
