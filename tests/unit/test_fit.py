"""`didact.fit`: its answer, its verdict, its files, and its errors."""

import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import didact
from didact import FitConfig, cli
from didact._constraints import Constraint
from didact._fit._modes import Modes, find_modes, from_afar
from didact._fit._standardised import Standardised
from didact._fit._verdict import judge

TINY = FitConfig(num_steps=8, width=16, batch_size=32, round_steps=60, max_rounds=1)
BLOCKED = 25.0


def gaussian(position):
    """Normal of scale 2 around 3, and half of one above 0: log Z = log(2 √(2π)) + ½ log(π/2)."""
    z = (position["mean"] - 3) / 2
    return -0.5 * z**2 - 0.5 * position["scale"] ** 2


LOG_Z = math.log(2 * math.sqrt(2 * math.pi)) + 0.5 * math.log(math.pi / 2)


@functools.cache
def fitted() -> didact.Fit:
    return didact.fit(
        gaussian,
        template={"mean": 0.0, "scale": 1.0},
        bounds=({"mean": None, "scale": 0.0}, None),
        rng_key=jax.random.key(0),
        num_samples=1_000,
        config=TINY,
    )


def test_the_answer_is_that_of_the_density():
    fit = fitted()
    low, high = fit.log_z_interval
    assert low - 0.05 <= LOG_Z <= high + 0.05
    assert fit.elbo <= fit.log_z
    weight = np.exp(fit.log_weights - fit.log_weights.max())
    weight /= weight.sum()
    assert fit.ess == pytest.approx(1 / np.sum(weight**2))
    mean, scale = (np.asarray(fit.samples[name], np.float64) for name in ("mean", "scale"))
    error = 4 * 2 / math.sqrt(fit.ess)  # one in 16,000
    assert weight @ mean == pytest.approx(3, abs=error)
    assert weight @ scale == pytest.approx(math.sqrt(2 / math.pi), abs=error)
    assert np.all(scale > 0)


def test_the_weights_are_those_of_the_users_own_density():
    """Their mean is Z whatever the units and the offset that training used."""
    fit = fitted()
    assert len(fit.log_weights) == 4_096
    own = np.logaddexp.reduce(fit.log_weights) - math.log(len(fit.log_weights))
    assert own == pytest.approx(fit.log_z)
    assert len(fit.log_z_by_seed) == 2
    assert fit.calls > 0
    assert fit.seconds > 0


def test_there_is_one_mode():
    (mode,) = fitted().modes
    assert mode["share"] == pytest.approx(1)
    assert mode["position"]["mean"] == pytest.approx(3, abs=0.05)


def test_a_saved_fit_draws_without_the_density(tmp_path):
    fit = fitted()
    again = didact.load_fit(fit.save(tmp_path / "fit.npz"))
    key = jax.random.key(5)
    for a, b in zip(
        jax.tree.leaves(fit.sample(key, 7)), jax.tree.leaves(again.sample(key, 7)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    for name in ("log_z", "log_z_interval", "elbo", "ess", "k_hat", "reliable", "reason", "calls"):
        assert getattr(again, name) == getattr(fit, name)
    np.testing.assert_array_equal(again.log_weights, fit.log_weights)
    np.testing.assert_array_equal(again.samples["scale"], fit.samples["scale"])
    assert again.modes[0]["share"] == fit.modes[0]["share"]
    assert again.constraint.names() == fit.constraint.names()


def test_a_damaged_file_is_named(tmp_path):
    path = fitted().save(tmp_path / "fit.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"fit\.npz cannot be read as a fit"):
        didact.load_fit(path)
    with pytest.raises(ValueError, match=r"saved as \.npz"):
        fitted().save(tmp_path / "fit.pickle")


def test_draws_picked_by_weight_have_none_left():
    fit = fitted()
    picked = np.asarray(fit.resample(jax.random.key(1), 4_000)["scale"])
    error = 4 * 0.6 / math.sqrt(min(fit.ess, 4_000))
    assert picked.mean() == pytest.approx(math.sqrt(2 / math.pi), abs=error)


def test_the_page_is_whole_and_loads_nothing(tmp_path, undrawn):
    page = fitted().report(tmp_path / "fit.html").read_text()
    for word in ("log Z", "Pareto k-hat", "mean", "scale", "Modes", "Importance weights"):
        assert word in page
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert ("Reliable" if fitted().reliable else "Not reliable") in page


# ---- budgets ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        ({"max_calls": 1}, "the budget of 1 evaluations ended"),
        ({"should_stop": lambda: True}, "it was asked to stop"),
    ],
)
def test_what_was_cut_off_is_not_reliable(budget, reason):
    fit = didact.fit(
        gaussian,
        template={"mean": 0.0, "scale": 1.0},
        bounds=({"mean": None, "scale": 0.0}, None),
        rng_key=jax.random.key(0),
        num_samples=200,
        config=TINY,
        **budget,
    )
    assert not fit.reliable
    assert reason in fit.reason
    assert fit.modes == ()


# ---- the verdict -----------------------------------------------------------------------------


def light(offset: float = 0.0, scale: float = 0.3, n: int = 2_000) -> np.ndarray:
    return offset + scale * np.random.default_rng(3).standard_normal(n)


def hills(share: float, mass: float) -> Modes:
    """Two hills; the draws have `share` in the second, which by its shape has `mass`."""
    return Modes(
        centre=np.zeros((2, 1)),
        log_density=np.zeros(2),
        share=np.asarray([1 - share, share]),
        share_drawn=np.asarray([1 - share, share]),
        by_chains=np.asarray([True, True]),
        log_mass=np.log(np.asarray([1 - mass, mass])),
    )


def test_light_weights_of_samplers_that_agree_are_reliable():
    verdict = judge(np.stack([light(), light(n=2_000)]), hills(0.3, 0.3), "")
    assert verdict.reliable
    assert "2 independent samplers agree" in verdict.reason


@pytest.mark.parametrize(
    ("log_weight", "modes", "cut", "reason"),
    [
        (np.stack([light(), light()]), hills(0.3, 0.3), "no time", "cut off: no time"),
        (np.stack([light(scale=4.0)] * 2), hills(0.3, 0.3), "", "Pareto k-hat"),
        (np.stack([light(), light(0.5)]), hills(0.3, 0.3), "", "disagree"),
        (np.stack([light(), light()]), hills(0.001, 0.3), "", "about 30 % of the mass"),
    ],
)
def test_each_thing_that_can_be_wrong_is_named(log_weight, modes, cut, reason):
    verdict = judge(log_weight, modes, cut)
    assert not verdict.reliable
    assert reason in verdict.reason


def test_a_hill_of_unknown_mass_that_only_chains_find_is_named():
    modes = dataclasses.replace(hills(0.0, 0.3), log_mass=np.asarray([0.0, np.nan]))
    verdict = judge(np.stack([light(), light()]), modes, "")
    assert not verdict.reliable
    assert "unknown mass" in verdict.reason


def test_one_sampler_agrees_with_nobody():
    verdict = judge(light()[None], hills(0.3, 0.3), "")
    assert verdict.reliable
    assert "agreement was not checked" in verdict.reason


def test_a_lesser_hill_may_be_missing():
    assert judge(np.stack([light(), light()]), hills(0.0, 0.01), "").reliable


# ---- the hills -------------------------------------------------------------------------------


def two_hills(x):
    """Normals of scale 1/2 at -3 and 3 in the plane, of weights 0.25 and 0.75."""
    left = math.log(0.25) - 2 * jnp.sum((x + 3) ** 2)
    right = math.log(0.75) - 2 * jnp.sum((x - 3) ** 2)
    return jnp.logaddexp(left, right)


LOG_Z_HILLS = math.log(2 * math.pi / 4)


def look(draws, chains):
    ones, zero = jnp.ones(2), jnp.zeros(2)
    target = Standardised(two_hills, Constraint(2), zero, ones, jnp.zeros(()))
    share = np.full(len(draws), 1 / len(draws))
    return find_modes(target, draws, share, chains, LOG_Z_HILLS, climbers=16)[0]


def test_hills_are_found_with_their_shares_and_masses():
    rng = np.random.default_rng(0)
    side = np.where(rng.uniform(size=400) < 0.25, -3.0, 3.0)
    draws = (side[:, None] + 0.5 * rng.standard_normal((400, 2))).astype(np.float32)
    modes = look(draws, draws[:8])
    np.testing.assert_allclose(modes.centre, [[3, 3], [-3, -3]], atol=0.02)
    np.testing.assert_allclose(modes.share, [np.mean(side > 0), np.mean(side < 0)])
    np.testing.assert_allclose(np.exp(modes.log_mass), [0.75, 0.25], rtol=0.02)
    assert len(modes.missed(0.02)) == 0


def test_a_hill_that_only_chains_find_is_missed():
    rng = np.random.default_rng(0)
    draws = (3 + 0.5 * rng.standard_normal((400, 2))).astype(np.float32)
    chains = np.concatenate([draws[:6], -draws[:2]])
    modes = look(draws, chains)
    assert modes.missed(0.02).tolist() == [1]
    np.testing.assert_allclose(np.exp(modes.log_mass[1]), 0.25, rtol=0.02)
    # A chain that ended where the density is next to nothing joins nothing.
    lost = np.concatenate([chains[:7], [[200.0, -400.0]]]).astype(np.float32)
    assert look(draws, lost).missed(0.02).tolist() == [1]
    # Without the chains nobody knows.
    assert len(look(draws, chains[:6].repeat(2, axis=0)[:8]).missed(0.02)) == 0


def test_climbs_from_afar_end_on_hills_that_are_far_away():
    def far(x):
        return jnp.logaddexp(-0.5 * jnp.sum(x**2), -0.5 * jnp.sum((x - 3_000.0) ** 2))

    target = Standardised(far, Constraint(2), jnp.zeros(2), jnp.ones(2), jnp.zeros(()))
    ends = from_afar(target, jax.random.key(0), 64, 2.0)
    distance = np.abs(ends[:, None] - np.asarray([0.0, 3_000.0])[:, None]).max(axis=2)
    arrived = distance.min(axis=1) < 0.1
    assert arrived.all()
    assert np.all(np.bincount(distance[arrived].argmin(axis=1)) >= 4)


# ---- what cannot be fitted -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({}, "give either dim"),
        ({"dim": 2, "template": jnp.zeros(2)}, "give either dim"),
        ({"dim": 2, "num_samples": 5}, "num_samples must be >= 100"),
        ({"dim": 2, "max_calls": 0}, "max_calls must be >= 1"),
        ({"dim": 2, "max_seconds": -1.0}, "max_seconds must be > 0"),
    ],
)
def test_impossible_options_are_refused(options, remedy):
    with pytest.raises(ValueError, match=remedy):
        didact.fit(lambda x: -jnp.sum(x**2), rng_key=jax.random.key(0), **options)


@pytest.mark.parametrize(
    ("sizes", "remedy"),
    [
        ({"num_seeds": 0}, "num_seeds must be >= 1"),
        ({"batch_size": 1}, "batch_size must be >= 2"),
        ({"sigma": 0.0}, "sigma must be > 0"),
    ],
)
def test_impossible_sizes_are_refused(sizes, remedy):
    with pytest.raises(ValueError, match=remedy):
        FitConfig(**sizes)


@pytest.mark.parametrize(
    ("density", "remedy"),
    [
        (lambda x: x, "shape"),
        (lambda x: jnp.zeros(()), "integra"),
        (lambda x: jnp.log(x[0]), "NaN|nan"),
    ],
)
def test_densities_that_cannot_be_used_are_refused_before_anything_is_trained(density, remedy):
    with pytest.raises(ValueError, match=remedy):
        didact.fit(density, dim=2, rng_key=jax.random.key(0), config=TINY)


# ---- the command -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_writes_what_it_found(tmp_path, monkeypatch, capsys, undrawn):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_density.py").write_text(
        "import jax.numpy as jnp\n\n\ndef normal(x):\n    return -0.5 * jnp.sum(x**2)\n"
    )
    monkeypatch.setattr("didact._fit._fit.FitConfig", lambda: TINY)
    words = "train --density own_density:normal --dim 2 --draws 200 --out own"
    with pytest.raises(SystemExit) as end:
        cli.main(words.split())
    assert end.value.code == 0
    verdict = json.loads((tmp_path / "own" / "verdict.json").read_text())
    assert verdict["log_z"] == pytest.approx(math.log(2 * math.pi), abs=0.2)
    with np.load(tmp_path / "own" / "samples.npz", allow_pickle=False) as file:
        assert file["x"].shape == (4_096, 2)
        assert file["log_weight"].shape == (4_096,)
    assert (tmp_path / "own" / "report.html").exists()
    assert len(didact.load_fit(tmp_path / "own" / "fit.npz").log_weights) == 4_096
    shown = capsys.readouterr()
    assert "log Z" in shown.out
    assert "evaluations" in shown.err


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("--density nothing_there:f --dim 2", "nothing_there"),
        ("--density math --dim 2", "module:function"),
        ("--density math:nothing --dim 2", "no function nothing"),
        ("--density math:sin --dim 2 --seed -1", "--seed"),
    ],
)
def test_the_command_refuses_in_one_line(words, remedy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main(["train", *words.split()])
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert remedy in message
    assert len(message.splitlines()) == 1
