"""What modes are given, by paths, beside the exact law."""

import jax
import numpy as np
import pytest

import didact
from didact.metrics import empirical, evaluate_by_samples, exact, mode_statistics
from didact.targets import DeceptiveGrid

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
