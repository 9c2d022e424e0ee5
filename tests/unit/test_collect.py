"""Training a diffusion sampler: what is collected, what is learned from, and by which program.

The networks are 0 at first, so that the first residuals are known: log R(x) - log N(x; 0, σ² I).
"""

import collections
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact import replay
from didact._experiment import Experiment, traced_numbers
from didact._train import _run_chunk, ask, init, objects, train_chunk
from didact._types import SamplableTarget
from didact.behaviours import MALA, Collect, Cycle, FromReplay, FromTeacher, OnPolicy
from didact.networks import DiffusionMLPConfig
from didact.presets._diffusion import diffusion

TRACES = collections.Counter()
BATCH, CAPACITY, SIGMA = 3, 12, 2.0
SEEDS = [4, 7]
STUDENT, TEACHER, SEARCH = 0, 1, 4


class Quadrants(SamplableTarget):
    """A Gaussian around (1, 1) of which each quadrant is called a mode; it counts its traces."""

    dim: int = eqx.field(static=True, default=2)
    log_z: float | None = eqx.field(static=True, default=None)
    num_modes: int | None = eqx.field(static=True, default=4)

    def log_reward(self, x):
        TRACES["reward"] += 1
        return -0.5 * jnp.sum(jnp.square(x - 1))

    def mode_index(self, x):
        return 2 * (x[0] > 0).astype(jnp.int32) + (x[1] > 0).astype(jnp.int32)

    def sample(self, key):
        return 1 + jax.random.normal(key, (2,))


def preset(name: str, **options) -> Experiment:
    return diffusion(
        Quadrants(),
        name,
        sigma=SIGMA,
        batch_size=BATCH,
        num_steps=2,
        steps=100,
        network=DiffusionMLPConfig(width=8, harmonics=2, depth=1, **options),
    )


@functools.cache
def experiment() -> Experiment:
    """The Teacher's preset, with local search in the same round."""
    turns = (OnPolicy(), Collect(FromTeacher()), OnPolicy(), FromReplay())
    setting = preset("teacher")
    behaviour = Cycle((*turns, Collect(MALA(FromReplay(), num_steps=3, burn_in=1))))
    return eqx.tree_at(lambda e: e.behaviour, setting, behaviour)


def at_turn(turn: int, threshold: float, buffer=None):
    """An untrained state whose turn it is, with a threshold and perhaps a buffer."""
    state = init(experiment(), [0])
    state = eqx.tree_at(
        lambda s: (s.step, s.seeds.threshold),
        state,
        (jnp.asarray(turn, jnp.int32), jnp.full((1,), threshold)),
    )
    if buffer is None:
        return state
    return eqx.tree_at(lambda s: s.seeds.replay, state, buffer)


def copy(tree):
    """A chunk uses up the state that it is given."""
    return jax.tree.map(jnp.copy, tree)


def advance(state):
    """One step. What is asked for: its objects; then the state after it and what it reports."""
    x = np.asarray(objects(experiment(), ask(experiment(), state)))[0]
    state, info = train_chunk(experiment(), state, 1, capacity=CAPACITY)
    return x, jax.tree.map(lambda leaf: np.asarray(leaf)[0, 0], info), state


def contents(state) -> dict[tuple, tuple[float, float]]:
    """log R and priority of what a buffer holds, by object."""
    buffer = jax.tree.map(lambda leaf: np.asarray(leaf)[0], state.seeds.replay)
    return {
        tuple(buffer.x[i]): (float(buffer.log_reward[i]), float(buffer.priority[i]))
        for i in range(int(buffer.size))
    }


def log_reference(x) -> np.ndarray:
    x = np.asarray(x, np.float64)
    return -0.5 * np.sum(x**2, axis=-1) / SIGMA**2 - np.log(2 * np.pi * SIGMA**2)


def log_rewards(x) -> np.ndarray:
    return -0.5 * np.sum((np.asarray(x, np.float64) - 1) ** 2, axis=-1)


def teacher_rewards(x) -> np.ndarray:
    delta = log_rewards(x) - log_reference(x)
    error = np.where(delta > 0, 20, 1) * 0.5 * delta**2
    return np.log(np.log(1.001 + error)) + 0.5 * log_rewards(x)


def test_what_the_teacher_draws_is_collected_with_its_priority():
    x, info, state = advance(at_turn(TEACHER, -np.inf))
    held = contents(state)
    assert set(held) == {tuple(item) for item in x}
    expected = {
        tuple(item): pair for item, *pair in zip(x, log_rewards(x), teacher_rewards(x), strict=True)
    }
    for item, pair in expected.items():
        np.testing.assert_allclose(held[item], pair, rtol=1e-4, atol=1e-4)
    # What is learned from comes of these objects: no other loss is possible.
    losses = 0.5 * (log_rewards(x) - log_reference(x)) ** 2
    possible = [
        (losses[i] + losses[j] + losses[k]) / 3
        for i in range(BATCH)
        for j in range(BATCH)
        for k in range(BATCH)
    ]
    assert np.min(np.abs(np.asarray(possible) - info.loss)) < 1e-4
    # Modes are those of the fresh objects, whether they are learned from or not.
    numbers = {int(Quadrants().mode_index(jnp.asarray(item))) for item in x}
    np.testing.assert_array_equal(
        np.flatnonzero(np.asarray(state.seeds.modes_found)[0]), sorted(numbers)
    )
    assert info.modes_found == len(numbers)
    assert info.modes_found_student == 0


@pytest.mark.parametrize("turn", [STUDENT, TEACHER])
def test_only_what_lies_above_the_threshold_is_kept(turn):
    x, _, _ = advance(at_turn(turn, -np.inf))
    middle = float(np.median(log_rewards(x)))
    again, _, state = advance(at_turn(turn, middle + 1e-4))
    np.testing.assert_array_equal(again, x)
    kept = {tuple(item) for item in x if log_rewards(item) > middle + 1e-4}
    assert len(kept) == 1
    assert kept >= set(contents(state))
    if turn == TEACHER:
        assert set(contents(state)) == kept


def test_with_a_teacher_the_students_batches_do_not_enter_the_buffer():
    """As published: its own objects alone fill it, after the first batch of the Student."""
    _, _, state = advance(at_turn(2, -np.inf))
    assert contents(state) == {}


def test_the_step_that_collects_learns_from_the_buffer():
    """Nothing is worth keeping, and the buffer holds one object with a reward that is made up:
    the loss is that of this object, whatever the Teacher drew.
    """
    x0, made_up = np.asarray([0.5, -1.0], np.float32), 11.0
    empty = init(experiment(), [0]).seeds.replay
    one = jax.tree.map(lambda leaf: leaf[0], empty)
    one = replay.add(one, jnp.asarray(x0)[None], jnp.asarray([made_up]), jnp.zeros(1))
    buffer = jax.tree.map(lambda leaf: leaf[None], one)
    expected = 0.5 * (made_up - log_reference(x0)) ** 2
    for turn in (TEACHER, SEARCH, 3):
        _, info, state = advance(at_turn(turn, np.inf, copy(buffer)))
        np.testing.assert_allclose(info.loss, expected, rtol=1e-5)
        assert info.grad_norm > 1e-3
        assert set(contents(state)) == {tuple(x0)}
    x, info, _ = advance(at_turn(STUDENT, np.inf, buffer))
    own = np.mean(0.5 * (log_rewards(x) - log_reference(x)) ** 2)
    np.testing.assert_allclose(info.loss, own, rtol=1e-4)


def test_with_nothing_to_collect_nothing_is_learned():
    before = at_turn(TEACHER, np.inf)
    last = np.asarray(before.seeds.student.sampler.policy.last.weight)
    _, info, state = advance(before)
    assert contents(state) == {}
    assert info.loss == info.grad_norm == info.teacher_loss == 0
    np.testing.assert_array_equal(state.seeds.student.sampler.policy.last.weight, last)
    assert np.all(np.asarray(state.seeds.trouble) == 0)


def test_the_teacher_learns_from_what_lies_above_the_threshold():
    """½(log R_T - log N)² of those, the Teacher's residual on any bridge to them."""
    x, _, _ = advance(at_turn(STUDENT, -np.inf))
    middle = float(np.median(log_rewards(x))) + 1e-4
    _, info, _ = advance(at_turn(STUDENT, middle))
    above = x[log_rewards(x) > middle]
    expected = np.mean(0.5 * (teacher_rewards(above) - log_reference(above)) ** 2)
    np.testing.assert_allclose(info.teacher_loss, expected, rtol=1e-4)


def test_the_threshold_is_the_quantile_of_a_batch_of_the_untrained_student():
    """Of three draws the 0.9 quantile lies between the second and the largest."""
    setting = experiment()
    thresholds = np.concatenate([init(setting, [seed]).seeds.threshold for seed in (0, 1)])
    assert thresholds[0] != thresholds[1]
    assert np.all(thresholds < 0)
    least, most = (
        float(init(eqx.tree_at(lambda e: e.threshold_quantile, setting, q), [0]).seeds.threshold[0])
        for q in (0.0, 1.0)
    )
    assert least < thresholds[0] < most
    assert eqx.filter_eval_shape(init, preset("tb"), [0]).seeds.threshold is None


@pytest.mark.slow
def test_seeds_together_are_seeds_alone():
    """Objects to rounding, parameters to 1e-3, after two rounds with collection and search: as rows
    of one program, which they are on an accelerator, and each by itself.
    """
    setting = eqx.tree_at(lambda e: e.threshold_quantile, experiment(), 0.0)
    steps, numbers = jnp.asarray(10), traced_numbers(setting)
    together, infos = _run_chunk(numbers, init(setting, SEEDS), steps, CAPACITY)
    for place, seed in enumerate(SEEDS):
        alone, info = train_chunk(setting, init(setting, [seed]), 10, capacity=CAPACITY)
        mine = jax.tree.map(lambda leaf, i=place: leaf[i], together.seeds)
        other = jax.tree.map(lambda leaf: leaf[0], alone.seeds)
        assert int(mine.replay.size) == int(other.replay.size)
        size = int(mine.replay.size)
        assert size > 0
        np.testing.assert_allclose(mine.replay.x[:size], other.replay.x[:size], atol=1e-4)
        np.testing.assert_array_equal(mine.modes_found, other.modes_found)
        np.testing.assert_allclose(infos.loss[place], info.loss[0], rtol=1e-3, atol=1e-4)
        for a, b in zip(
            jax.tree.leaves(eqx.filter((mine.student, mine.teacher), eqx.is_inexact_array)),
            jax.tree.leaves(eqx.filter((other.student, other.teacher), eqx.is_inexact_array)),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.slow  # tests/compile has its like
def test_one_program_serves_all_steps_and_seeds():
    setting = experiment()
    train_chunk(setting, init(setting, [0]), 1, capacity=CAPACITY)
    states = init(setting, [5])
    before = TRACES["reward"]
    state, _ = train_chunk(setting, states, 7, capacity=CAPACITY)
    train_chunk(setting, state, 3, capacity=CAPACITY)
    assert TRACES["reward"] == before


def blank(leaf):
    """Any value of a shape, for a program that is not run."""
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0), leaf.shape)
    return jnp.zeros(leaf.shape, leaf.dtype)


@pytest.mark.parametrize(
    ("name", "langevin"),
    [
        ("teacher", True),
        *(pytest.param(name, False, marks=pytest.mark.slow) for name in ("pis", "mle", "tb-iwr")),
    ],
)
def test_the_programs_of_the_presets_hold_no_host_callback(name, langevin):
    setting = preset(name, langevin=langevin)
    state = jax.tree.map(blank, eqx.filter_eval_shape(init, setting, SEEDS))
    numbers = traced_numbers(setting)
    text = _run_chunk.lower(numbers, state, jnp.asarray(3), CAPACITY).as_text()
    assert "while" in text
    assert "callback" not in text
