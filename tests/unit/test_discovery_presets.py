"""The biochemical presets hold the paper's constants."""

import math
from dataclasses import replace

import jax.numpy as jnp
import pytest

import didact
from didact import OptimiserConfig
from didact.behaviours import Cycle, FromReplay, FromTeacher, LocalSearch, Mutate, OnPolicy
from didact.cli._tasks import Discovery, Sequence
from didact.environments import Autoregressive, PrependAppend
from didact.networks import MLPConfig, SSRConfig
from didact.objectives import TB, Squared
from didact.presets import (
    DISCOVERY_PRESETS,
    DISCOVERY_TASKS,
    EXPLORATION_PRESETS,
    discovery,
)
from didact.replay import RankDraw, SplitDraw
from didact.targets import FromFunction
from didact.teacher import DoubleLog

TARGET = FromFunction(lambda x: jnp.sum(x) / 2.0)
PUBLISHED = set(DISCOVERY_PRESETS) - set(EXPLORATION_PRESETS) - {"didact"}
every_preset = pytest.mark.parametrize("name", sorted(PUBLISHED | {"didact"}))


def make(name: str, **options):
    return discovery(TARGET, name, num_symbols=4, length=8, **options)


def test_the_tasks_of_the_paper():
    assert set(DISCOVERY_TASKS) == {"qm9", "seh", "tfbind8", "l14-rna1"}
    sizes = {name: task[1:] for name, task in DISCOVERY_TASKS.items()}
    assert sizes["qm9"] == (1_000, 1024, 0.01, 3)
    assert sizes["seh"] == (2_000, 1024, 0.05, 3)
    assert sizes["tfbind8"] == (2_000, 128, 0.01, 3)
    assert sizes["l14-rna1"] == (2_000, 128, 0.01, 7)


@every_preset
def test_what_all_of_them_share(name):
    experiment = make(name)
    assert experiment.environment == PrependAppend(4, 8)
    assert experiment.network == SSRConfig(128, clip=50.0)
    assert experiment.batch_size == 32
    assert experiment.objective == TB(Squared(cap=5_000.0))
    assert experiment.initial_log_z == 5.0
    assert experiment.count_distinct
    # As many new strings for all of them: 32 a round.
    assert experiment.reward_calls(experiment.steps) == 64_000


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_rates_of_the_paper(name):
    experiment = make(name)
    paper = OptimiserConfig(1e-4, log_z_learning_rate=0.01, max_norm=10.0, least_log_z=0.0)
    assert experiment.optimiser == paper
    teachers = replace(paper, learning_rate=5e-4) if name.startswith("teacher") else None
    assert experiment.teacher_optimiser == teachers


def test_our_own_rates():
    """The Student's fall; and log Z, of both, is free to come to where it is."""
    experiment = make("didact")
    free = OptimiserConfig(5e-4, log_z_learning_rate=0.1, max_norm=10.0)
    falling = replace(free, learning_rate=3e-3, decay_steps=4_000, final_fraction=0.02)
    assert experiment.optimiser == falling
    assert experiment.teacher_optimiser == free


@every_preset
def test_buffer_and_teacher(name):
    experiment = make(name)
    buffer, taught = experiment.replay, name.startswith("teacher") or name == "didact"
    assert (buffer is None) == (name == "tb")
    if buffer is not None:
        assert (buffer.capacity, buffer.unique) == (1_000, True)
        assert buffer.split == SplitDraw(0.5, 0.1)
        assert buffer.priority == ("loss" if name.endswith("per") else "reward")
        assert buffer.refresh == name.endswith("per")
    assert (experiment.teacher_reward is not None) == taught
    if taught:
        assert experiment.teacher_reward == DoubleLog(alpha=0.5, floor=0.0, cap=5_000.0)


def test_the_rounds():
    """Two of three rounds are the Student's; each ends with a batch of the buffer."""
    own, replayed = OnPolicy(0.05), FromReplay()
    assert make("tb", epsilon=0.05).behaviour == own
    assert make("tb-prt", epsilon=0.05).behaviour == Cycle((own, replayed))
    taught = (own, replayed, own, replayed, FromTeacher(0.05), replayed)
    assert make("teacher-per", epsilon=0.05).behaviour == Cycle(taught)
    mutants = (own, replayed, Mutate(), replayed, FromTeacher(0.05), replayed)
    assert make("teacher-mutate-per", epsilon=0.05).behaviour == Cycle(mutants)
    more, best = FromReplay(4), Mutate(RankDraw(0.001))
    new = (own, own, best, own, own, own, FromTeacher(0.05), own)
    assert make("didact", epsilon=0.05).behaviour == Cycle(tuple(t for n in new for t in (n, more)))
    search = Cycle((LocalSearch(own, depth=3, rounds=7), replayed))
    assert make("search-prt", epsilon=0.05).behaviour == search
    deep = Cycle((LocalSearch(own, depth=7, rounds=7), replayed))
    assert make("search-prt", epsilon=0.05, depth=7).behaviour == deep


def test_other_sizes_networks_and_directions():
    experiment = make("tb-per", rounds=10, batch_size=8, grow="end", network=MLPConfig(16))
    assert experiment.steps == 20
    assert experiment.environment == Autoregressive(4, 8)
    assert experiment.network == MLPConfig(16)
    assert make("tb", rounds=10).steps == 10
    assert make("tb", rounds=10, steps=7).steps == 7
    assert not discovery(TARGET, num_symbols=20, length=12).count_distinct


def test_the_default_is_our_own():
    assert discovery(TARGET, num_symbols=4, length=8) == make("didact")
    assert Discovery().preset == Sequence().preset == "didact"


@pytest.mark.slow
def test_log_z_is_reached_in_few_steps_where_it_is_far_below_0():
    """Of a constant reward it is log R + 4 log 3; training begins at 5."""
    target = FromFunction(lambda x: jnp.full((), -10.0))
    experiment = discovery(
        target, num_symbols=3, length=4, batch_size=8, network=MLPConfig(8, 1), steps=400
    )
    state, _ = didact.train_chunk(experiment, didact.init(experiment), 400, capacity=400)
    log_z = float(state.student(0).log_z)
    assert abs(log_z - (-10.0 + 4 * math.log(3))) < 0.3


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="unknown preset 'nope'; choose from tb, "):
        make("nope")
    with pytest.raises(ValueError, match="does not say of which strings it is: give num_symbols"):
        discovery(TARGET)
    with pytest.raises(ValueError, match="rounds must be >= 1, got 0"):
        make("tb", rounds=0)
    with pytest.raises(ValueError, match="a multiple of 8, got 30"):
        make("search-prt", batch_size=30)
