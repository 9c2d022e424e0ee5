"""Seeds that run by themselves, several at a time."""

import dataclasses
import threading

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact import Experiment, _apart, ask, init, objects, step, tell, train_chunk
from didact._experiment import traced_numbers
from didact._train import NON_FINITE_REWARD, _run_chunk
from didact.behaviours import Cycle, FromReplay, OnPolicy
from didact.environments import Hypergrid
from didact.networks import MLPConfig
from didact.replay import ReplayConfig
from didact.targets import DeceptiveGrid, FromFunction

from .._states import assert_same_bits

SEEDS = (3, 4, 5)
SETTING = Experiment(
    environment=Hypergrid(2, 6),
    target=DeceptiveGrid(2, 6),
    behaviour=Cycle((OnPolicy(), FromReplay())),
    replay=ReplayConfig(20, "reward"),
    network=MLPConfig(width=8, depth=1),
    batch_size=4,
)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    """Whatever there are."""
    monkeypatch.setattr(_apart, "_cores", lambda: 2)


def run(steps: int, seeds=SEEDS, setting=SETTING):
    return train_chunk(setting, init(setting, seeds), steps, capacity=6)


def test_a_seed_among_others_is_the_seed_alone_to_the_bit():
    """By chunks, by steps, and by ask and tell."""
    state, info = run(6)
    stepped, told = init(SETTING, SEEDS), init(SETTING, SEEDS)
    for _ in range(6):
        stepped, _ = step(SETTING, stepped)
        proposal = ask(SETTING, told)
        x = objects(SETTING, proposal)
        told, _ = tell(SETTING, told, proposal, jax.vmap(jax.vmap(SETTING.target.log_reward))(x))
    for i, seed in enumerate(SEEDS):
        alone, alone_info = run(6, (seed,))
        assert_same_bits(state.alone(i), alone)
        assert_same_bits(jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], info), alone_info)
    assert_same_bits(stepped, state)
    assert_same_bits(told, state)


@pytest.mark.slow  # tests/unit/test_rows.py has it for a smaller experiment
def test_seeds_as_rows_of_one_program_are_the_same_but_for_the_last_digits():
    """As they run where there is an accelerator: 6 steps, float32."""
    steps = jnp.asarray(6)
    together, info = _run_chunk(traced_numbers(SETTING), init(SETTING, SEEDS), steps, 6)
    apart, apart_info = run(6)
    np.testing.assert_allclose(info.loss, apart_info.loss, rtol=1e-4)
    np.testing.assert_array_equal(together.seeds.replay.x, apart.seeds.replay.x)


def pitfall(x):
    """A log-reward with a cell that must not be met."""
    return jnp.where(jnp.all(x == jnp.asarray([3, 2])), jnp.nan, -jnp.sum(x) / 3.0)


def test_where_one_has_to_stop_all_do():
    """At the step of the first, as if they were rows of one program, wherever a chunk begins."""
    setting = dataclasses.replace(SETTING, target=FromFunction(pitfall), behaviour=OnPolicy())

    def after(steps: int, seeds):
        begun, _ = train_chunk(setting, init(setting, seeds), 1, capacity=20)
        return train_chunk(setting, begun, steps, capacity=20)

    ends = [int(after(20, (seed,))[0].step) for seed in SEEDS]
    assert len(set(ends)) == 3  # each meets it, at another step
    assert min(ends) > 2
    state, info = after(20, SEEDS)
    first = np.asarray(ends) == min(ends)
    np.testing.assert_array_equal(state.seeds.trouble, NON_FINITE_REWARD * first)
    assert int(state.step) == min(ends)
    for i, seed in enumerate(SEEDS):
        alone, alone_info = after(min(ends) - 1, (seed,))
        assert_same_bits(state.alone(i), alone)
        np.testing.assert_array_equal(info.loss[i], alone_info.loss[0])


def test_a_step_that_fails_leaves_the_state():
    broken = init(SETTING, SEEDS)
    log_z = broken.seeds.student.sampler.log_z
    broken = eqx.tree_at(lambda s: s.seeds.student.sampler.log_z, broken, log_z.at[1].set(jnp.nan))
    with pytest.raises(FloatingPointError, match="Student's loss"):
        step(SETTING, broken)
    np.testing.assert_array_equal(broken.seeds.student.sampler.log_z[::2], log_z[::2])


def test_the_state_given_is_used_up():
    state = init(SETTING, SEEDS)
    _ = train_chunk(SETTING, state, 1, capacity=6)
    assert state.seeds.trouble.is_deleted()


def test_settings_of_one_thread_hold_for_all_seeds():
    setting = dataclasses.replace(SETTING, replay=None, behaviour=OnPolicy())
    with jax.enable_x64(True):
        state, info = run(2, setting=setting)
        assert info.loss.dtype == np.float64
        alone, _ = run(2, (4,), setting=setting)
        assert_same_bits(state.alone(1), alone)


def test_two_work_at_a_time_and_answers_keep_their_order():
    both = threading.Barrier(2, timeout=60)

    def number(i: int, name: str) -> str:
        both.wait()  # an error where one has to wait for the other
        return f"{name}{i}"

    assert _apart.for_each(number, range(4), "abcd") == ["a0", "b1", "c2", "d3"]


def test_what_fails_in_one_is_an_error():
    def fail(i: int) -> int:
        if i == 1:
            raise ValueError("the second")
        return i

    with pytest.raises(ValueError, match="the second"):
        _apart.for_each(fail, range(3))


def test_under_a_transformation_seeds_are_rows_of_one_program():
    """Where something is traced no thread can run it: state, rewards, or a part of the state."""
    state = init(SETTING, SEEDS)
    proposal = eqx.filter_jit(lambda state: ask(SETTING, state))(state)
    assert proposal.log_reward.shape == (3, 4)
    told, _ = jax.jit(lambda rewards: tell(SETTING, state, proposal, rewards))(jnp.zeros((3, 4)))
    assert int(told.step) == 1

    @jax.jit
    def stepped(log_z):
        begun = eqx.tree_at(lambda s: s.seeds.student.sampler.log_z, state, log_z)
        return step(SETTING, begun)[1].loss

    assert np.all(np.isfinite(stepped(state.seeds.student.sampler.log_z)))
