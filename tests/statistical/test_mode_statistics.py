"""What modes are given, by paths, beside the exact law."""

import jax
import numpy as np
import pytest
from jaxtyping import Array, Key

import didact
from didact.environments import Hypergrid
from didact.metrics import (
    draw_statistics,
    empirical,
    evaluate_by_samples,
    exact,
    mode_statistics,
)
from didact.targets import DeceptiveGrid

from .._statistics import fits, rejects
from .._tabular import graph, optimal_sampler

EXPERIMENT = didact.presets.grid("tb", dim=2, side=8, batch_size=32)


@pytest.fixture(scope="module")
def sampler() -> didact.Sampler:
    """Trained a little: it gives the modes between a fifth and all of what they should have."""
    state = didact.init(EXPERIMENT, (0,))
    state, _ = didact.train_chunk(EXPERIMENT, state, 200, capacity=200)
    return state.student(0)


def exact_law(sampler: didact.Sampler) -> np.ndarray:
    """Of each mode, by enumeration."""
    env, target = EXPERIMENT.environment, EXPERIMENT.target
    law = exact.terminal_law(env, exact.policy_table(sampler))
    mode = exact.truth(env, target).mode
    return np.bincount(mode[mode >= 0], law[mode >= 0])


def test_ratios_have_the_mean_of_the_exact_law(sampler: didact.Sampler) -> None:
    x = DeceptiveGrid(2, 8).mode_samples()
    paths = 4_096
    ratios = empirical.path_ratios(sampler, x, jax.random.key(3), paths=paths, batch_size=1_000)
    assert ratios.shape == (len(x), paths)
    error = ratios.std(axis=1, ddof=1) / np.sqrt(paths)
    z = (ratios.mean(axis=1) - exact_law(sampler)) / error
    assert np.abs(z).max() < 5.5  # by chance once in a million


def test_held_and_recall_are_about_those_of_the_exact_law(sampler: didact.Sampler) -> None:
    target = DeceptiveGrid(2, 8)
    q, p = exact_law(sampler), target.mode_mass / target.num_modes
    held, recall = int(np.sum(q >= 0.5 * p)), np.minimum(q, p).sum() / target.mode_mass
    found = mode_statistics(sampler, target, paths=4_096)
    assert 0.05 < recall < 0.98
    assert found["modes_held_low"] <= held <= found["modes_held_high"]
    assert found["mode_mass_recall_low"] <= recall <= found["mode_mass_recall_high"]
    assert found["mode_mass_recall"] == pytest.approx(recall, rel=0.05)
    assert found["mode_mass_recall_high"] - found["mode_mass_recall_low"] < 0.1 * recall
    assert 0 < found["mode_ess"] < 1


def test_draws_of_the_exact_law_have_that_law(sampler: didact.Sampler, key: Key[Array, ""]) -> None:
    """And none where nothing can be. They are not drawn from the target, which is not far away."""
    env, n = EXPERIMENT.environment, 200_000
    law = exact.terminal_law(env, exact.policy_table(sampler)).copy()
    law[5] = 0.0
    law /= law.sum()
    x = exact.objects(env, law, key, n)
    counts = np.bincount(np.asarray(empirical.terminal_numbers(env, x)), minlength=len(law))
    assert counts.sum() == n
    assert counts[5] == 0
    assert fits(np.delete(counts, 5), np.delete(law, 5))
    p = np.delete(np.exp(exact.truth(env, EXPERIMENT.target).log_p), 5)
    assert rejects(np.delete(counts, 5), p / p.sum())
    np.testing.assert_array_equal(x, exact.objects(env, law, key, n))


@pytest.mark.parametrize(
    "law", [np.full(16, 1 / 16), -np.eye(15)[0], np.eye(15)[0] * np.nan, np.zeros(15), np.ones(15)]
)
def test_what_is_no_law_is_refused(law: np.ndarray, key: Key[Array, ""]) -> None:
    with pytest.raises(ValueError, match="15 probabilities that sum to 1"):
        _ = exact.objects(Hypergrid(2, 4), law, key, 3)


@pytest.mark.slow
def test_statistics_of_draws_of_the_law_are_those_of_draws(
    sampler: didact.Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same within the error of chance; the network is asked for the scored draws alone."""
    env, target, n = EXPERIMENT.environment, EXPERIMENT.target, 60_000
    law = exact.terminal_law(env, exact.policy_table(sampler))
    drawn = draw_statistics(sampler, target, n=n)

    def refuse(*_: object) -> None:
        raise AssertionError("no more draws of the network are needed")

    with monkeypatch.context() as patch:
        patch.setattr(empirical, "objects", refuse)
        quick = draw_statistics(sampler, target, n=n, law=law)
    share = exact_law(sampler).sum()
    error = np.sqrt(share * (1 - share) / n)
    assert abs(drawn["mode_mass"] - share) < 5 * error
    assert abs(quick["mode_mass"] - share) < 5 * error
    assert quick["mode_mass"] != drawn["mode_mass"]
    assert quick["empirical_l1"] == pytest.approx(drawn["empirical_l1"], rel=0.05)
    same = ("num_draws", "num_scored", "elbo", "log_z_estimate", "empirical_l1_floor")
    assert {name: quick[name] for name in same} == {name: drawn[name] for name in same}
    # A law that is none says nothing, and the network is asked after all.
    assert draw_statistics(sampler, target, n=n, law=law * np.nan) == drawn


def test_every_path_of_the_perfect_sampler_says_the_same() -> None:
    env, target = EXPERIMENT.environment, EXPERIMENT.target
    perfect = optimal_sampler(graph(env), exact.truth(env, target).log_p + target.log_z)
    found = mode_statistics(perfect, target, paths=8)
    assert found["modes_held_low"] == found["modes_held_high"] == target.num_modes
    for end in ("", "_low", "_high"):
        assert found[f"mode_mass_recall{end}"] == pytest.approx(1, abs=1e-4)
    assert found["mode_ess"] == pytest.approx(1, abs=1e-4)


class Unnumbered(DeceptiveGrid):
    """A target that lists its modes and does not say how many there are."""

    @property
    def num_modes(self) -> None:
        return None


@pytest.mark.parametrize(
    "target",
    [DeceptiveGrid(12, 5), DeceptiveGrid(6, 32), Unnumbered(2, 8)],
    ids=["no modes", "too many", "unknown"],
)
def test_where_modes_cannot_be_walked_to_they_are_unknown(target: DeceptiveGrid) -> None:
    experiment = didact.presets.grid("tb", target.dim, target.side, batch_size=2)
    student = didact.init(experiment, (0,)).student(0)
    verdict = evaluate_by_samples(student, target, experiment.objective, n=16)
    assert verdict["modes_held"] is None
    assert verdict["mode_mass_recall"] is None


def test_what_it_cannot_do_is_refused(sampler: didact.Sampler) -> None:
    with pytest.raises(ValueError, match="has modes"):
        mode_statistics(sampler, DeceptiveGrid(12, 5))
    with pytest.raises(ValueError, match="at least 2"):
        mode_statistics(sampler, DeceptiveGrid(2, 8), paths=1)
    with pytest.raises(ValueError, match="at least 1"):
        empirical.path_ratios(sampler, np.zeros((1, 2), int), jax.random.key(0), paths=0)
    nothing = empirical.path_ratios(sampler, np.zeros((0, 2), int), jax.random.key(0))
    assert nothing.shape == (0, 64)
