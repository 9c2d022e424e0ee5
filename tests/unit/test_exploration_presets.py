"""The presets of exploration: what each sets, and that all have one budget."""

import jax.numpy as jnp
import pytest

from didact.behaviours import (
    ChainsConfig,
    Cycle,
    FromChains,
    FromTeacher,
    FromUniform,
    LocalSearch,
    OnPolicy,
    Thompson,
)
from didact.networks import BootstrappedConfig, MLPConfig
from didact.novelty import RND
from didact.objectives import GAFN, TB, Squared
from didact.presets import DISCOVERY_PRESETS, EXPLORATION_PRESETS, discovery, grid
from didact.targets import FromFunction
from didact.teacher import Complementary, LossGuided, OneSided, Sibling

REWARDS = {"sagfn": Sibling(), "lggfn": LossGuided(1.0), "ace": Complementary(0.5)}
every_preset = pytest.mark.parametrize("name", EXPLORATION_PRESETS)
OWN = OnPolicy()
SCHEDULES = {
    "gafn": OWN,
    "thompson": Thompson(),
    "sagfn": Cycle((OWN, FromTeacher())),
    "lggfn": Cycle((OWN, FromTeacher())),
    "ace": Cycle((OWN, FromTeacher())),
    "local-search": Cycle((*[OWN] * 7, LocalSearch(OWN, depth=14, rounds=3, greedy=True))),
    "uniform": FromUniform(),
    "metropolis": FromChains(14),
    "tempering": FromChains(14),
}
"""On the grid (4, 16), whose longest trajectory has 57 edges."""


def strings(name: str, **options):
    target = FromFunction(lambda x: jnp.sum(x) / 2.0)
    return discovery(target, name, num_symbols=4, length=8, **options)


@pytest.mark.parametrize("size", [(2, 128), (2, 256), (4, 16), (4, 32)], ids=str)
@every_preset
def test_the_budget_is_that_of_trajectory_balance(name, size):
    """As many gradient steps and as many rewards as the paper's runs without a buffer."""
    experiment, plain = grid(name, *size), grid("tb", *size)
    assert experiment.steps == plain.steps
    assert experiment.batch_size == plain.batch_size == 16
    assert experiment.reward_calls(experiment.steps) == plain.reward_calls(plain.steps)
    assert experiment.replay is None


@every_preset
def test_what_each_sets(name):
    experiment = grid(name, 4, 16)
    assert experiment.behaviour == SCHEDULES[name]
    assert experiment.teacher_reward == REWARDS.get(name)
    assert experiment.objective == (GAFN(scale=0.01) if name == "gafn" else TB(Squared()))
    assert experiment.novelty == (RND() if name in ("gafn", "sagfn") else None)
    ensemble = BootstrappedConfig(256, 2, members=10)
    assert experiment.network == (ensemble if name == "thompson" else MLPConfig())
    assert experiment.bootstrap == (0.5 if name == "thompson" else None)
    chains = {"metropolis": ChainsConfig(), "tempering": ChainsConfig(4, hottest=10.0)}
    assert experiment.chains == chains.get(name)
    assert experiment.optimiser == grid("tb", 4, 16).optimiser


def test_our_own_teacher_keeps_all_objects_in_the_order_of_its_reward_times_the_reward():
    experiment = grid("one-sided", 4, 16)
    assert experiment.teacher_reward == OneSided(eta=1e-2, alpha=1.0)
    assert experiment.behaviour == grid("teacher-per", 4, 16).behaviour
    assert experiment.replay.capacity == 64_125
    assert experiment.replay.priority == "teacher-reward"
    assert experiment.replay.refresh
    assert experiment.reward_calls(experiment.steps) == 96_000
    assert grid("one-sided", 6, 16).replay.capacity == 1_000_000


def test_exploration_reaches_both_samplers():
    experiment = grid("sagfn", 2, 8, epsilon=0.1, temperature=2.0)
    turns = (OnPolicy(0.1, 2.0), FromTeacher(0.1, 2.0))
    assert experiment.behaviour == Cycle(turns)
    assert grid("gafn", 2, 8, epsilon=0.1).behaviour == OnPolicy(0.1)


@pytest.mark.parametrize("name", ["thompson", "uniform", "metropolis", "tempering"])
def test_what_explores_in_its_own_way_takes_no_epsilon(name):
    with pytest.raises(ValueError, match=f"{name}.*leave epsilon and temperature out"):
        grid(name, 2, 8, epsilon=0.1)
    with pytest.raises(ValueError, match="leave epsilon"):
        grid(name, 2, 8, temperature=2.0)


@pytest.mark.parametrize("name", ["local-search", "tempering"])
def test_batches_that_cannot_be_shared_out_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}.*multiple of 4, got 10"):
        grid(name, 2, 8, batch_size=10)


@pytest.mark.parametrize("name", sorted(set(EXPLORATION_PRESETS) & set(DISCOVERY_PRESETS)))
def test_strings_have_them_too(name):
    experiment = strings(name, epsilon=0.05)
    assert experiment.steps == 2_000
    assert experiment.reward_calls(experiment.steps) == 64_000
    assert experiment.objective.regression == Squared(cap=5_000.0)
    assert experiment.teacher_reward == REWARDS.get(name)
    assert (experiment.teacher_optimiser is not None) == (name in REWARDS)
    own = {
        "gafn": OnPolicy(0.05),
        "uniform": FromUniform(),
        "metropolis": FromChains(3),
        "tempering": FromChains(3),
    }
    assert experiment.behaviour == own.get(name, Cycle((OnPolicy(0.05), FromTeacher(0.05))))


def test_those_that_strings_lack():
    assert set(EXPLORATION_PRESETS) - set(DISCOVERY_PRESETS) == {"thompson", "local-search"}
    with pytest.raises(ValueError, match="unknown preset 'thompson'"):
        strings("thompson")
