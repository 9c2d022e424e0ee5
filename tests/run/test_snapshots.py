"""Pictures of laws over vectors and strings: where they look, and what their cells hold."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from didact._diagnostics import diagnose
from didact._sampler import Sampler
from didact._snapshots import (
    CELLS,
    DrawnProfiles,
    DrawnSnapshots,
    ExactSnapshots,
    View,
    interesting_pairs,
    profile,
)
from didact.environments import Autoregressive, Diffusion, PrependAppend
from didact.metrics import exact
from didact.networks import MLPConfig
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


def letter_counts(x: Array) -> Array:
    """Twos are liked, most of all in the first place."""
    return jnp.sum(x == 2) + 3.0 * (x[0] == 2)


def test_profile_is_the_share_of_each_symbol_in_each_place() -> None:
    x = np.array([[0, 2], [1, 2], [1, 0]])
    np.testing.assert_allclose(profile(x, 3), [[1 / 3, 1 / 3], [2 / 3, 0], [0, 2 / 3]], rtol=1e-6)
    weighted = profile(x, 4, np.array([0.5, 0.25, 0.25]))
    np.testing.assert_array_equal(weighted, [[0.5, 0.25], [0.5, 0], [0, 0.75], [0, 0]])


def test_strings_have_profiles_of_their_exact_laws(tmp_path: Path) -> None:
    """The target's places are independent, so that its profile can be written down."""
    env = PrependAppend(3, 2)
    snapshots = ExactSnapshots(tmp_path / "s", env, FromFunction(letter_counts))
    first = exact.terminal_samples(env)[:, 0] == 2
    law = np.where(first, 1 / 3, 0.0)
    snapshots.save(5, {"student": law})
    target, student = (
        loaded(tmp_path / "s" / "target.npz"),
        loaded(tmp_path / "s" / "000000005.npz"),
    )
    weight = np.exp([[0.0, 0.0], [0.0, 0.0], [4.0, 1.0]])
    np.testing.assert_allclose(target["target"], weight / weight.sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(student["student"], [[0, 1 / 3], [0, 1 / 3], [1, 1 / 3]], rtol=1e-6)
    assert set(target) == {"format_version", "target"}
    assert student["step"] == 5


def test_profiles_of_draws_need_no_rewards(tmp_path: Path) -> None:
    """An untrained policy that appends is uniform in each place; the target stays unknown."""
    env = Autoregressive(4, 3)
    policy = MLPConfig(4, 1).build(env, flow_head=False, backward_head=False, key=jax.random.key(0))
    policy = jax.tree.map(lambda leaf: 0 * leaf if eqx.is_array(leaf) else leaf, policy)
    sampler = Sampler(env, policy, jnp.zeros(()))
    snapshots = DrawnProfiles(tmp_path / "s", env, seed=1)
    snapshots.save(3, sampler, None)
    assert [file.name for file in (tmp_path / "s").iterdir()] == ["000000003.npz"]
    found = loaded(tmp_path / "s" / "000000003.npz")
    assert "teacher" not in found
    assert found["student"].shape == (4, 3)
    # Six standard errors of 4,096 draws.
    np.testing.assert_allclose(found["student"], 0.25, atol=6 * np.sqrt(0.25 * 0.75 / 4096))
    np.testing.assert_allclose(found["student"].sum(axis=0), 1, rtol=1e-5)
