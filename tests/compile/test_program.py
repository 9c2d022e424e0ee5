"""The compiled training program: traced once a shape, closed to the host, in place."""

import collections
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact import presets
from didact._experiment import Experiment, traced_numbers
from didact._train import _run_chunk, init, step, train_chunk
from didact.behaviours import Cycle, FromReplay, FromTeacher, OnPolicy
from didact.environments import Hypergrid
from didact.networks import MLPConfig
from didact.replay import ReplayConfig
from didact.targets import FromFunction
from didact.teacher import DoubleLog

TRACES = collections.Counter()
NETWORK = MLPConfig(width=16, depth=1)
SEEDS, CAPACITY = [4, 7, 1], 8


def counted_log_reward(x):
    """A reward that counts how often it is traced."""
    TRACES["reward"] += 1
    return -0.1 * jnp.sum(x.astype(jnp.float32))


TARGET = FromFunction(counted_log_reward)


def experiment(
    *,
    epsilon=0.1,
    temperature=1.5,
    eta=1e-3,
    asymmetry=19.0,
    learning_rate=1e-3,
    max_norm=1.0,
    rank_offset=0.01,
    steps=100,
    initial_log_z=0.0,
    batch_size=8,
) -> Experiment:
    setting = Experiment(
        environment=Hypergrid(2, 5),
        target=TARGET,
        behaviour=Cycle(
            (OnPolicy(epsilon, temperature), FromReplay(), FromTeacher(epsilon), FromReplay())
        ),
        teacher_reward=DoubleLog(eta=eta, asymmetry=asymmetry),
        replay=ReplayConfig(16, "teacher", rank_offset=rank_offset),
        network=NETWORK,
        batch_size=batch_size,
        steps=steps,
        initial_log_z=initial_log_z,
    )
    return eqx.tree_at(
        lambda e: (e.optimiser.learning_rate, e.optimiser.max_norm),
        setting,
        (learning_rate, max_norm),
    )


def traces_of(function) -> int:
    """How often the reward is traced while the function runs."""
    before = TRACES["reward"]
    function()
    return TRACES["reward"] - before


def train(setting, seeds, num_steps, capacity):
    state, _ = train_chunk(setting, init(setting, seeds), num_steps, capacity=capacity)
    assert int(state.step) == num_steps


def test_one_trace_a_shape_and_none_when_only_numbers_change():
    assert traces_of(lambda: train(experiment(), SEEDS, 2, CAPACITY)) > 0

    for change in (
        {},
        {"epsilon": 0.2},
        {"epsilon": 0.0},
        {"temperature": 0.7},
        {"eta": 0.1},
        {"asymmetry": 5.0},
        {"learning_rate": 0.5},
        {"max_norm": 10.0},
        {"rank_offset": 0.5},
        {"steps": 7},
        {"initial_log_z": 5.0},
    ):
        assert traces_of(lambda change=change: train(experiment(**change), SEEDS, 2, CAPACITY)) == 0
    # Neither other seeds, nor another number of steps up to the capacity.
    assert traces_of(lambda: train(experiment(), [7, 1234, 5], 2, CAPACITY)) == 0
    assert traces_of(lambda: train(experiment(), SEEDS, CAPACITY, CAPACITY)) == 0

    # What gives another program does trace, so that the counter means something.
    assert traces_of(lambda: lower(experiment(), init(experiment(), SEEDS), 5)) > 0


def test_states_of_a_run_are_trained_on_without_a_new_trace():
    """What comes out of a chunk goes into the next: shapes, types and weak types agree."""
    setting = experiment()
    state, _ = train_chunk(setting, init(setting, [0]), 2, capacity=CAPACITY)

    def again():
        next_state, _ = train_chunk(setting, state, 3, capacity=CAPACITY)
        train_chunk(setting, next_state, 1, capacity=CAPACITY)

    assert traces_of(again) == 0


@pytest.mark.slow
def test_steps_one_by_one_share_one_program():
    setting = experiment(batch_size=3)
    state, _ = step(setting, init(setting, [0]))

    def rounds(state=state):
        for _ in range(5):
            state, _ = step(setting, state)

    assert traces_of(rounds) == 0


# ---- nothing calls the host ------------------------------------------------------------------


def host_calls(text: str) -> list[str]:
    """Lines of a lowered program that call back into Python."""
    return [line for line in text.splitlines() if "callback" in line]


def lower(setting: Experiment, state, capacity: int) -> str:
    """The training program as it is handed to the compiler."""
    numbers = traced_numbers(setting)
    return _run_chunk.lower(numbers, state, jnp.asarray(3), capacity).as_text()


@functools.cache
def lowered(name: str, seeds: int) -> str:
    if name == "all-kinds":
        return lower(experiment(), init(experiment(), SEEDS[:seeds]), 4)
    setting = presets.grid(name, 2, 8, batch_size=8)
    setting = eqx.tree_at(lambda e: e.network, setting, NETWORK)
    return lower(setting, init(setting, SEEDS[:seeds]), 4)


@pytest.mark.parametrize(
    ("name", "seeds"),
    [
        ("all-kinds", 1),
        ("all-kinds", 3),
        # What these are made of, the cycle of all kinds is made of too.
        *(
            pytest.param(name, 1, marks=pytest.mark.slow)
            for name in ("eps", "tb-per", "teacher-per", "teacher-prt")
        ),
    ],
)
def test_the_training_program_holds_no_host_callback(name, seeds):
    text = lowered(name, seeds)
    assert "while" in text
    assert not host_calls(text)


def test_a_host_callback_would_be_seen():
    def talkative(x):
        jax.debug.callback(lambda value: None, x)
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct((), jnp.float32), x)

    assert len(host_calls(jax.jit(talkative).lower(0.0).as_text())) >= 2


def test_the_program_holds_no_constant_of_the_size_of_a_network():
    """Numbers are arguments, never baked in: constants would be compiled again with each seed."""
    assert len(lowered("teacher-per", 1)) < 1_000_000


# ---- in place, and over seeds ----------------------------------------------------------------


def test_the_state_given_is_used_up():
    setting = experiment()
    state = init(setting, [0])
    weight = state.seeds.student.sampler.policy.layers[0].weight
    moment = jax.tree.leaves(state.seeds.teacher.opt_state)[-1]
    buffer = state.seeds.replay.x
    train_chunk(setting, state, 2, capacity=CAPACITY)
    assert weight.is_deleted()
    assert moment.is_deleted()
    assert buffer.is_deleted()
    # The experiment is not: its numbers serve the next chunk.
    assert not any(
        leaf.is_deleted() for leaf in jax.tree.leaves(setting) if isinstance(leaf, jax.Array)
    )


def test_three_seeds_together_are_three_seeds_alone():
    """Trajectories and buffers bit by bit; parameters to 2e-5 after two rounds with a Teacher,
    since a batched product adds up in another order.
    """
    setting = experiment()
    together, infos = train_chunk(setting, init(setting, SEEDS), 8, capacity=CAPACITY)
    for place, seed in enumerate(SEEDS):
        alone, info = train_chunk(setting, init(setting, [seed]), 8, capacity=CAPACITY)
        mine = jax.tree.map(lambda leaf, i=place: leaf[i], together.seeds)
        other = jax.tree.map(lambda leaf: leaf[0], alone.seeds)
        np.testing.assert_array_equal(mine.replay.x, other.replay.x)
        np.testing.assert_array_equal(mine.replay.age, other.replay.age)
        np.testing.assert_array_equal(infos.mean_length[place], info.mean_length[0])
        np.testing.assert_allclose(infos.loss[place], info.loss[0], rtol=1e-4)
        for a, b in zip(
            jax.tree.leaves(eqx.filter((mine.student, mine.teacher), eqx.is_inexact_array)),
            jax.tree.leaves(eqx.filter((other.student, other.teacher), eqx.is_inexact_array)),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
    lengths = np.asarray(infos.mean_length)
    assert not np.array_equal(lengths[0], lengths[1])
