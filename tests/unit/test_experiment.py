"""What an experiment refuses, and what it says about itself."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact._config import require_types
from didact._experiment import Experiment, OptimiserConfig, traced_numbers
from didact.behaviours import (
    Collect,
    Cycle,
    FromReplay,
    FromTeacher,
    LocalSearch,
    Mutate,
    OnPolicy,
    Turn,
)
from didact.environments import Hypergrid
from didact.networks import MLPConfig
from didact.objectives import VarGrad
from didact.replay import ReplayConfig
from didact.targets import DeceptiveGrid, FromFunction
from didact.teacher import DoubleLog

GRID = {"environment": Hypergrid(2, 4), "target": DeceptiveGrid(2, 4)}


class Larger(OnPolicy):
    """Of two batches, which asks for rewards."""

    @property
    def turns(self):
        return (Turn("student", batches=2),)


TAUGHT = Cycle((OnPolicy(), FromReplay(), FromTeacher(), FromReplay()))
BUFFER = ReplayConfig(64)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"steps": 0}, "steps must be >= 1, got 0"),
        ({"behaviour": FromTeacher()}, "give the Experiment a teacher_reward"),
        ({"behaviour": Cycle((OnPolicy(), FromReplay()))}, "give the Experiment a replay"),
        ({"behaviour": Cycle((OnPolicy(), Mutate()))}, "give the Experiment a replay"),
        (
            {"behaviour": Cycle((FromReplay(), OnPolicy())), "replay": BUFFER},
            "must not begin with objects of the buffer",
        ),
        ({"behaviour": Mutate(), "replay": BUFFER}, "must not begin with objects of the buffer"),
        (
            {"behaviour": Cycle((LocalSearch(FromReplay()), OnPolicy())), "replay": BUFFER},
            "must not begin with objects of the buffer",
        ),
        ({"replay": ReplayConfig(15)}, "capacity 15 is below 16"),
        ({"replay": ReplayConfig(64, merge_every=5)}, "capacity 64 is below 80"),
        (
            {
                "replay": ReplayConfig(63, refresh=True),
                "behaviour": Cycle((OnPolicy(), FromReplay(4))),
            },
            "capacity 63 is below 64",
        ),
        (
            {"replay": ReplayConfig(64, merge_every=2), "behaviour": Collect(OnPolicy())},
            "cannot wait: let merge_every be 1",
        ),
        ({"behaviour": Larger()}, "Only a turn of the buffer may have several"),
        ({"replay": ReplayConfig(64, "teacher")}, "give the Experiment a teacher_reward"),
        ({"target": DeceptiveGrid(4, 4)}, "environment has dim 2, the target 4: give both"),
        ({"target": DeceptiveGrid(2, 5)}, "environment has side 4, the target 5: give both"),
        ({"steps": 2**31}, "steps must be <= 2147483647"),
        ({"objective": VarGrad(), "batch_size": 1}, "batch of at least 2"),
        ({"teacher_reward": DoubleLog(per_step=True)}, "per_step needs an objective with step"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_together_is_refused_with_a_remedy(settings, remedy):
    with pytest.raises(ValueError, match=remedy):
        Experiment(**(GRID | settings))


@dataclasses.dataclass
class Settings:
    count: int | None = None
    rate: float = 1.0


def test_what_a_constructor_takes_a_saved_configuration_gives_back():
    for good in (Settings(), Settings(3, 2), Settings(np.int64(3), np.float32(2)), Settings(None)):
        require_types(good)
    with pytest.raises(ValueError, match=r"count cannot be 10000\.0"):
        require_types(Settings(1e4))
    with pytest.raises(ValueError, match="rate cannot be 'fast'"):
        require_types(Settings(1, "fast"))


@pytest.mark.parametrize("settings", [{"width": 0}, {"depth": 0}], ids=str)
def test_impossible_networks_are_refused(settings):
    with pytest.raises(ValueError, match=r"(width|depth) must be >= 1, got 0"):
        MLPConfig(**settings)


@pytest.mark.parametrize(
    ("behaviour", "calls", "own"),
    [
        (OnPolicy(), [0, 16, 32, 48, 64, 80], [0, 1, 2, 3, 4, 5]),
        (Cycle((OnPolicy(), FromReplay())), [0, 16, 16, 32, 32, 48], [0, 1, 1, 2, 2, 3]),
        (
            Cycle((OnPolicy(), OnPolicy(), FromTeacher(), FromTeacher())),
            [0, 16, 32, 48, 64, 80],
            [0, 1, 2, 2, 2, 3],
        ),
        (TAUGHT, [0, 16, 16, 32, 32, 48], [0, 1, 1, 1, 1, 2]),
        (Cycle((OnPolicy(), FromReplay(4))), [0, 16, 16, 32, 32, 48], [0, 1, 1, 2, 2, 3]),
    ],
    ids=["on-policy", "replay", "teacher", "teacher-replay", "more-of-replay"],
)
def test_counts_of_reward_calls_and_of_the_students_own_batches(behaviour, calls, own):
    experiment = Experiment(**GRID, behaviour=behaviour, teacher_reward=DoubleLog(), replay=BUFFER)
    assert [experiment.reward_calls(n) for n in range(6)] == calls
    assert [experiment.student_batches(n) for n in range(6)] == own


def test_traced_numbers_are_arrays_and_nothing_else_changes():
    experiment = Experiment(
        **GRID,
        behaviour=Cycle((OnPolicy(epsilon=0.1), FromReplay())),
        optimiser=OptimiserConfig(weight_decay=1e-4, decay_steps=100),
        replay=BUFFER,
        teacher_reward=DoubleLog(),
        steps=7,
    )
    traced = traced_numbers(experiment)
    assert traced.steps.dtype == jnp.int32
    assert traced.optimiser.learning_rate.dtype == jnp.float32
    numbers = [leaf for leaf in jax.tree.leaves(traced) if isinstance(leaf, int | float)]
    assert not numbers
    # What shapes the program stays as it is.
    assert traced.batch_size == experiment.batch_size
    assert traced.replay.capacity == 64
    assert traced.network == experiment.network
    assert traced.environment == experiment.environment
    # And traced again it is the same.
    assert eqx.tree_equal(traced_numbers(traced), traced)


def test_your_own_function_is_a_target():
    target = FromFunction(lambda x: -0.5 * jnp.sum((x - 2.0) ** 2), log_z=1.5)
    assert target.log_z == 1.5
    assert target.num_modes is None
    x = jnp.asarray([1, 3], jnp.int32)
    assert target.log_reward(x) == -1
    assert target.mode_index(x) == -1
    assert FromFunction(lambda x: x[0]).log_reward(x).dtype == jnp.float32


def test_a_function_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match="one number for one x"):
        FromFunction(lambda x: x * 1.0).log_reward(jnp.asarray([1, 2]))
