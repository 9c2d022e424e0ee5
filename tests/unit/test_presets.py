"""The paper's presets hold the paper's constants."""

import dataclasses

import pytest

from didact._experiment import OptimiserConfig
from didact.behaviours import FromReplay, FromTeacher, Mutate, OnPolicy
from didact.environments import Hypergrid, published_backward_kernel
from didact.networks import MLPConfig
from didact.objectives import TB, Squared
from didact.presets import EXPLORATION_PRESETS, GRID_PRESETS, grid
from didact.replay import RankDraw
from didact.targets import DeceptiveGrid
from didact.teacher import DoubleLog, OneSided

GRIDS = [(2, 128), (2, 256), (4, 16), (4, 32)]
WITH_BUFFER = {"tb-prt", "tb-per", "teacher-prt", "teacher-per"}
TAUGHT = {"teacher", "teacher-prt", "teacher-per"}
PUBLISHED = {"tb", "eps", *WITH_BUFFER, *TAUGHT}

every_preset = pytest.mark.parametrize("name", sorted(PUBLISHED))
every_grid = pytest.mark.parametrize("size", GRIDS, ids=str)


def test_all_methods_of_the_comparison_are_there():
    assert set(GRID_PRESETS) == PUBLISHED | {
        *("one-sided", "tb-prt-late", "teacher-floor", "mutate", "didact"),
        *EXPLORATION_PRESETS,
    }
    assert all(GRID_PRESETS.values())


@every_grid
@every_preset
def test_what_all_of_them_share(name, size):
    experiment = grid(name, *size)
    assert experiment.environment == Hypergrid(*size)
    assert experiment.target == DeceptiveGrid(*size, "paper")
    assert experiment.batch_size == 16
    assert experiment.objective == TB(Squared())
    assert experiment.teacher_objective is None
    assert experiment.initial_log_z == 0.0
    assert experiment.network == MLPConfig(width=256, depth=2, negative_slope=0.01)
    assert experiment.teacher_network is None
    optimiser = experiment.optimiser
    assert (optimiser.learning_rate, optimiser.log_z_learning_rate) == (1e-3, 0.1)
    assert optimiser.max_norm == 1.0
    assert optimiser.weight_decay is None
    assert optimiser.decay_steps is None
    assert experiment.teacher_optimiser is None
    assert experiment.backward_scoring is None


@every_grid
@every_preset
def test_the_budget(name, size):
    """Base × 1.5, × 2 with a buffer, so that all see as many new objects."""
    experiment = grid(name, *size)
    base = 16_000 if size == (4, 32) else 4_000
    steps = base * 3 // 2 * (2 if name in WITH_BUFFER else 1)
    assert experiment.steps == steps
    assert steps in (6_000, 12_000, 24_000, 48_000)
    assert experiment.reward_calls(steps) == (384_000 if size == (4, 32) else 96_000)


@pytest.mark.parametrize(
    ("size", "capacity"),
    [((2, 128), 1_638), ((2, 256), 6_553), ((4, 16), 6_412), ((4, 32), 104_268)],
    ids=str,
)
@every_preset
def test_the_buffer(name, size, capacity):
    """⌊0.1·(H-1+d)·(H-1)^(d-1)⌋ objects, rank r drawn ∝ 1/(0.01·N + r), never refreshed."""
    dim, side = size
    assert (side - 1 + dim) * (side - 1) ** (dim - 1) // 10 == capacity
    buffer = grid(name, *size).replay
    if name not in WITH_BUFFER:
        assert buffer is None
        return
    assert buffer.capacity == capacity
    assert buffer.draw == RankDraw(0.01)
    assert not buffer.refresh
    assert buffer.merge_every == (16 if size == (4, 32) else 1)
    by_error = "teacher" if name in TAUGHT else "loss"
    assert buffer.priority == ("reward" if name.endswith("prt") else by_error)


@pytest.mark.parametrize(
    ("size", "steps"), [((2, 64), 1), ((2, 128), 2), ((4, 16), 10), ((4, 32), 64)], ids=str
)
def test_what_waits_is_a_400th_of_a_buffer_of_all_objects(size, steps):
    """In batches of 16, and 64 of them at most."""
    buffer = grid("one-sided", *size).replay
    assert buffer is not None
    assert buffer.merge_every == steps
    assert steps * 16 <= max(buffer.capacity / 400, 16)


@every_preset
def test_the_schedule(name):
    schedules = {
        (False, False): ("student",),
        (False, True): ("student", "replay"),
        (True, False): ("student", "student", "teacher", "teacher"),
        (True, True): ("student", "replay", "teacher", "replay"),
    }
    behaviour = grid(name).behaviour
    assert behaviour.pattern == schedules[name in TAUGHT, name in WITH_BUFFER]
    for member in behaviour.behaviours:
        if isinstance(member, FromReplay):
            continue
        assert isinstance(member, OnPolicy | FromTeacher)
        assert (member.epsilon or 0.0) == (0.01 if name == "eps" else 0.0)
        assert member.temperature is None


@every_preset
def test_the_teacher(name):
    """log( log(1 + 1e-3 + (1 + 19·1[δ > 0]) δ²) + 1e-8 ), without the reward."""
    reward = grid(name).teacher_reward
    if name not in TAUGHT:
        assert reward is None
        return
    assert reward == DoubleLog()
    assert (reward.eta, reward.asymmetry, reward.alpha, reward.floor) == (1e-3, 19.0, 0.0, 1e-8)
    assert (reward.scale, reward.cap, reward.threshold) == (1.0, None, None)
    assert not reward.per_step


def test_the_defaults_and_what_may_be_changed():
    assert grid().environment == Hypergrid(2, 128)
    changed = grid(
        "teacher",
        2,
        8,
        convention="exact",
        steps=10,
        batch_size=4,
        epsilon=0.2,
        temperature=3.0,
        published_backward=True,
    )
    assert changed.target == DeceptiveGrid(2, 8, "exact")
    assert (changed.steps, changed.batch_size) == (10, 4)
    assert {b.epsilon for b in changed.behaviour.behaviours} == {0.2}
    assert {b.temperature for b in changed.behaviour.behaviours} == {3.0}
    assert changed.backward_scoring is published_backward_kernel


def test_a_buffer_holds_a_batch_on_the_smallest_grids():
    assert grid("tb-prt", 2, 4).replay.capacity == 16


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("per",), "choose from tb, eps"),
        (("tb", 2, 1), "side >= 2"),
        (("tb", 0, 8), "dim >= 1"),
    ],
    ids=str,
)
def test_impossible_requests_are_refused(arguments, remedy):
    with pytest.raises(ValueError, match=remedy):
        grid(*arguments)


@every_grid
def test_rates_may_fall_at_the_end(size):
    experiment, published = grid("tb-prt-late", *size), grid("tb-prt", *size)
    rates = OptimiserConfig(milestones=(published.steps * 4 // 5,))
    assert experiment == dataclasses.replace(published, optimiser=rates)
    assert grid("tb-prt-late", *size, steps=700).optimiser.milestones == (560,)


def new_turns(experiment):
    """What makes new batches; every other turn is of the buffer, four of its batches in each."""
    turns = experiment.behaviour.behaviours
    assert set(turns[1::2]) == {FromReplay(4)}
    return turns[::2]


@every_grid
def test_our_own_has_a_teacher_and_mutants_and_two_presets_one_of_them_each(size):
    ours = grid("didact", *size)
    floor, mutate, published = (grid(name, *size) for name in ("teacher-floor", "mutate", "tb-prt"))
    rates = OptimiserConfig(learning_rate=3e-3, decay_steps=ours.steps, final_fraction=0.02)
    for experiment in (ours, floor, mutate):
        assert experiment.replay == published.replay
        assert experiment.optimiser == rates
        calls = experiment.reward_calls(experiment.steps)
        assert calls == published.reward_calls(published.steps)
    assert ours.replay is not None
    own, taught, search = OnPolicy(), FromTeacher(), Mutate(RankDraw(1 / ours.replay.capacity))
    assert new_turns(ours) == (own, own, search, own, own, own, taught, own)
    assert new_turns(floor) == (own, own, taught, own)
    assert new_turns(mutate) == (own, own, own, own, search, own, own, own)
    objects = ours.environment.num_terminal_states
    assert ours.teacher_reward == floor.teacher_reward == OneSided(floor=0.15 / objects)
    assert mutate.teacher_reward is None


def test_among_many_objects_our_own_looks_and_searches_more():
    """(6, 16) has 16 million; (6, 14) has 7 million, of which the buffer holds a tenth."""
    many, fewer = grid("didact", 6, 16), grid("didact", 6, 14)
    own, taught = OnPolicy(), FromTeacher()
    assert new_turns(many) == (own, taught, Mutate(RankDraw(1e-6)), taught)
    assert many.replay is not None
    assert fewer.replay is not None
    assert (many.replay.capacity, many.replay.rank_offset) == (1_000_000, 5e-5)
    assert new_turns(fewer).count(taught) == 1
    assert fewer.replay.rank_offset == 0.01
