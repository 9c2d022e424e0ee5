"""The training loop: ask -> reward -> tell, and what it counts, marks and remembers."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact import replay
from didact._experiment import Experiment, OptimiserConfig, traced_numbers
from didact._train import (
    NON_FINITE_REWARD,
    NON_FINITE_TEACHER,
    _mean_length,
    _run_chunk,
    ask,
    init,
    objects,
    step,
    tell,
    train_chunk,
)
from didact.behaviours import (
    ChainsConfig,
    Collect,
    Cycle,
    FromChains,
    FromReplay,
    FromTeacher,
    OnPolicy,
    Thompson,
)
from didact.environments import Brownian, Diffusion, Hypergrid
from didact.networks import BootstrappedConfig, DiffusionMLPConfig, MLPConfig
from didact.novelty import RND
from didact.objectives import DB, TB, SubTB, VarGrad
from didact.replay import ReplayConfig
from didact.targets import DeceptiveGrid, FromFunction
from didact.teacher import DoubleLog, TeacherReward

from .._states import assert_same_bits
from .._tabular import edge_scores, graph

ENV, TARGET = Hypergrid(2, 8), DeceptiveGrid(2, 8)
# Two seeds wherever they do no harm: `ask` and `tell` are compiled for each number of them.
SEEDS = [3, 4]
ROUND = (OnPolicy(), FromReplay(), FromTeacher(), FromReplay())


@functools.cache
def experiment(priority: str = "teacher", refresh: bool = False, objective=None) -> Experiment:
    return Experiment(
        environment=ENV,
        target=TARGET,
        behaviour=Cycle(ROUND),
        objective=objective or TB(),
        teacher_reward=DoubleLog(),
        replay=ReplayConfig(24, priority, refresh=refresh, asymmetry=19.0),
        network=MLPConfig(width=16, depth=1),
        batch_size=8,
    )


def small() -> Experiment:
    """Neither a Teacher nor a buffer."""
    return Experiment(
        environment=ENV, target=TARGET, network=MLPConfig(width=16, depth=1), batch_size=8
    )


def advance(setting: Experiment, state):
    """One step by ask and tell, with the rewards that a user would compute."""
    proposal = ask(setting, state)
    x = objects(setting, proposal)
    log_reward = jax.vmap(jax.vmap(setting.target.log_reward))(x)
    return proposal, x, log_reward, *tell(setting, state, proposal, log_reward)


def test_ask_and_tell_are_the_steps_of_a_chunk_bit_by_bit():
    """Parameters, optimisers, buffer, keys and reports, over two rounds of the schedule."""
    setting = experiment()
    by_hand, infos = init(setting, SEEDS), []
    for _ in range(8):
        *_, by_hand, info = advance(setting, by_hand)
        infos.append(info)
    chunk, all_infos = train_chunk(setting, init(setting, SEEDS), 8, capacity=10)
    assert_same_bits(chunk, by_hand)
    for number, info in enumerate(infos):
        assert_same_bits(jax.tree.map(lambda leaf, n=number: leaf[:, n], all_infos), info)
    # What was not run is not filled.
    assert np.all(np.asarray(all_infos.loss)[:, 8:] == 0)
    # And in two chunks it is the same.
    half, _ = train_chunk(setting, init(setting, SEEDS), 3, capacity=10)
    assert_same_bits(train_chunk(setting, half, 5, capacity=10)[0], by_hand)


OTHERS = {
    "teacher": {"behaviour": Cycle((*ROUND[:3], FromReplay(3)))},
    "collect": {"behaviour": Cycle((Collect(OnPolicy()), OnPolicy(), OnPolicy(), FromReplay(3)))},
    "chains": {
        "behaviour": Cycle((FromChains(depth=2), FromReplay(), FromChains(depth=2), FromReplay(3))),
        "chains": ChainsConfig(),
        "teacher_reward": None,
        "replay": ReplayConfig(24, "reward"),
    },
    "novelty": {"novelty": RND(width=4), "behaviour": Cycle((*ROUND[:3], FromReplay(3)))},
    "bootstrap": {
        "network": BootstrappedConfig(width=8, depth=1, members=3),
        "behaviour": Cycle((Thompson(), FromReplay(), Thompson(), FromReplay(3))),
        "bootstrap": 1.0,
        "teacher_reward": None,
        "replay": ReplayConfig(24, "reward"),
    },
}


@pytest.mark.parametrize(
    "other", ["teacher", *(pytest.param(k, marks=pytest.mark.slow) for k in list(OTHERS)[1:])]
)
def test_several_batches_of_the_buffer_leave_the_others_as_they_are(other):
    """The copies that make a batch as large change what is learned from it by rounding at most, and
    nothing of what is counted and kept, and nobody is asked for their rewards.
    """
    wide = dataclasses.replace(experiment(), **OTHERS[other])
    first, replayed, second, _ = wide.behaviour.behaviours
    plain = dataclasses.replace(wide, behaviour=Cycle((first, replayed, second, replayed)))
    states = [init(setting, SEEDS) for setting in (plain, wide)]
    for _ in range(3):
        steps = [advance(*both) for both in zip((plain, wide), states, strict=True)]
        proposal, x, *_ = steps[1]
        np.testing.assert_array_equal(proposal.weight, [[1] * 8 + [0] * 16] * 2)
        assert x.shape == (2, 8, 2)
        after = [jax.tree.leaves(eqx.filter(step[3:], _is_number)) for step in steps]
        for a, b in zip(*after, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
        states = [step[3] for step in steps]


def test_a_step_learns_from_all_batches_of_the_buffer():
    """The loss is the mean over them, and all of them wait to be refreshed."""
    setting = dataclasses.replace(
        small(),
        behaviour=Cycle((OnPolicy(), FromReplay(3))),
        replay=ReplayConfig(96, "reward", refresh=True, merge_every=3),
        steps=60,
    )
    assert setting.room_to_wait == 72
    before = train_chunk(setting, init(setting, [3]), 27, capacity=60)[0]
    proposal, x, _, state, info = advance(setting, before)
    np.testing.assert_array_equal(proposal.weight, np.ones((1, 24)))
    assert x.shape == (1, 8, 2)
    delta, _ = residuals(setting, before, proposal, proposal.log_reward)
    np.testing.assert_allclose(info.loss[0], np.mean(delta**2), rtol=1e-4)
    waiting = state.seeds.replay.waiting
    assert int(waiting.count[0]) == 24
    terminal = jax.tree.map(lambda leaf: leaf[0], proposal.trajectory.terminal)
    np.testing.assert_array_equal(waiting.x[0, :24], jax.vmap(ENV.sample_of)(terminal))
    assert_same_bits(tell(setting, before, proposal, proposal.log_reward)[0], state)
    assert_same_bits(train_chunk(setting, init(setting, [3]), 28, capacity=60)[0], state)


class Generous(OnPolicy):
    """Of more trajectories than were asked for."""

    def __call__(self, agents, key, step, batch_size, *, axis_name=None):
        return super().__call__(agents, key, step, 2 * batch_size, axis_name=axis_name)


def test_more_or_fewer_trajectories_than_the_turns_say_are_refused():
    setting = dataclasses.replace(small(), behaviour=Generous())
    with pytest.raises(ValueError, match="Generous proposes 16 trajectories where its turns say 8"):
        step(setting, init(setting, SEEDS))


def test_the_mean_length_is_of_the_trajectories_that_count():
    mask = jnp.arange(4) < jnp.asarray([1, 4, 2])[:, None]
    assert _mean_length(mask, jnp.asarray([1.0, 1.0, 0.0])) == 2.5
    assert _mean_length(mask, jnp.zeros(3)) == pytest.approx(7 / 3)


def _is_number(leaf) -> bool:
    return eqx.is_array(leaf) and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def test_batches_wait_for_each_other_and_are_merged_by_the_step():
    """On-policy, where draws change nothing, the buffer is that of adding each batch at once: at
    the end of each of the first steps, then of every third. Between two it stays as it was.
    """

    def at(steps: int, every: int):
        setting = dataclasses.replace(
            small(), replay=ReplayConfig(40, "reward", merge_every=every), steps=60
        )
        buffer = train_chunk(setting, init(setting, SEEDS), steps, capacity=60)[0].seeds.replay
        assert buffer is not None
        arrays = (buffer.x, buffer.fingerprint, buffer.log_reward, buffer.priority)
        return buffer.waiting, (*arrays, buffer.rank, buffer.age, buffer.size)

    for steps in (1, 20, 24, 27, 30, 45):
        assert_same_bits(at(steps, 3)[1], at(steps, 1)[1])
    for steps in (28, 29):
        waiting, merged = at(steps, 3)
        assert_same_bits(merged, at(27, 1)[1])
        assert waiting is not None
        assert np.all(waiting.count == 8 * (steps - 27))


@pytest.mark.slow
def test_seeds_together_wait_and_merge_as_alone():
    """Two as rows of one program, as on an accelerator, and each by itself: numbers of networks
    differ in their last digits, and what is drawn, kept and ordered is the same.
    """
    setting = dataclasses.replace(
        small(),
        behaviour=Cycle((OnPolicy(), FromReplay())),
        replay=ReplayConfig(64, "reward", refresh=True, merge_every=3),
        steps=60,
    )

    def after(steps: int, seeds):
        state = init(setting, seeds)
        return _run_chunk(traced_numbers(setting), state, jnp.asarray(steps), 60)[0].seeds.replay

    together, alone = after(28, SEEDS), [after(28, [seed]) for seed in SEEDS]
    assert np.all(together.waiting.count == 8)
    for i, buffer in enumerate(alone):
        for name in ("x", "rank", "age", "size"):
            np.testing.assert_array_equal(getattr(together, name)[i], getattr(buffer, name)[0])
        np.testing.assert_array_equal(together.waiting.slot[i], buffer.waiting.slot[0])


def test_a_state_with_another_room_to_wait_is_refused():
    few, many = (
        dataclasses.replace(small(), replay=ReplayConfig(64, "reward", merge_every=every))
        for every in (2, 6)
    )
    with pytest.raises(ValueError, match="another merge_every or batch_size"):
        train_chunk(many, init(few, [3]), 1, capacity=1)


@pytest.mark.slow
def test_steps_are_those_of_a_chunk_bit_by_bit():
    setting = experiment()
    state = init(setting, [3])
    for _ in range(8):
        state, info = step(setting, state)
    chunk, infos = train_chunk(setting, init(setting, [3]), 8, capacity=10)
    assert_same_bits(chunk, state)
    assert_same_bits(jax.tree.map(lambda leaf: leaf[:, 7], infos), info)


def test_seeds_decide_and_nothing_else_does():
    setting = experiment()
    assert_same_bits(init(setting, [1, 2]), init(setting, [1, 2]))
    first, second = init(setting, [1, 2]).student(0), init(setting, [1, 2]).student(1)
    assert not eqx.tree_equal(first, second)
    assert_same_bits(init(setting, [5, 1]).student(1), first)
    teacher = init(setting, [1]).teacher(0)
    assert jax.tree.structure(teacher) == jax.tree.structure(first)
    assert not eqx.tree_equal(teacher.policy, first.policy)


def test_rewards_are_asked_for_as_often_as_the_experiment_says():
    setting = experiment()
    state, calls, own = init(setting, SEEDS), 0, 0
    for number in range(9):
        assert calls == setting.reward_calls(number)
        assert own == setting.student_batches(number)
        proposal, *_, state, _ = advance(setting, state)
        calls += int(proposal.fresh[0]) * setting.batch_size
        own += int(proposal.by_student[0])


def test_modes_are_marked_where_fresh_batches_find_them():
    setting = experiment()
    assert setting.target.num_modes == 4
    state, found, by_student = init(setting, [0, 1]), set(), set()
    for _ in range(24):
        proposal, x, _, state, info = advance(setting, state)
        if proposal.fresh[0]:
            numbers = {int(setting.target.mode_index(item)) for item in x[0]} - {-1}
            found |= numbers
            by_student |= numbers if proposal.by_student[0] else set()
        assert int(info.modes_found[0]) == len(found)
        assert int(info.modes_found_student[0]) == len(by_student)
    assert found > by_student  # else the seed shows nothing: take another


@pytest.mark.parametrize(
    ("priority", "refresh"),
    [
        ("teacher", False),
        pytest.param("loss", True, marks=pytest.mark.slow),
        pytest.param("none", True, marks=pytest.mark.slow),
        pytest.param("reward", True, marks=pytest.mark.slow),
        pytest.param("teacher", True, marks=pytest.mark.slow),
        pytest.param("teacher-reward", True, marks=pytest.mark.slow),
        pytest.param("weight", True, marks=pytest.mark.slow),
    ],
)
def test_the_buffer_remembers_the_right_priorities(priority, refresh):
    """Of fresh objects always, of replayed ones only where they are refreshed."""
    setting = experiment(priority, refresh)
    state, expected = init(setting, SEEDS), {}
    for _ in range(4):
        before = state
        proposal, x, log_reward, state, _ = advance(setting, state)
        if not (proposal.fresh[0] or refresh):
            continue
        delta, teacher = residuals(setting, before, proposal, log_reward)
        values = {
            "none": np.zeros_like(delta),
            "reward": np.asarray(log_reward[0]),
            "teacher": teacher,
            "loss": np.where(delta > 0, 20, 1) * delta**2,
            "teacher-reward": teacher + np.asarray(log_reward[0]),
            # log R + log P_B − log P_F: the residual without log Z.
            "weight": delta + float(before.student(0).log_z),
        }[priority]
        for item, value in zip(np.asarray(x[0]), values, strict=True):
            expected[tuple(item)] = value
    buffer = jax.tree.map(lambda leaf: np.asarray(leaf[0]), state.seeds.replay)
    assert buffer.size == len(expected) < 24  # nothing has left yet
    held = {tuple(buffer.x[i]): buffer.priority[i] for i in range(buffer.size)}
    for item, value in expected.items():
        np.testing.assert_allclose(held[item], value, rtol=1e-4, atol=1e-4)


def residuals(setting, state, proposal, log_reward):
    """δ of the Student before the step and the Teacher's log-reward, from the kernels' table."""
    log_pf, log_pb = edge_scores(state.student(0), graph(ENV))
    batch = jax.tree.map(lambda leaf: leaf[0], proposal.trajectory)
    now = jax.tree.map(lambda leaf: leaf[:, :-1].reshape(-1, *leaf.shape[2:]), batch.states)
    mask = np.asarray(batch.mask)
    number = np.where(mask, graph(ENV).numbers(now).reshape(mask.shape), 0)
    action = np.asarray(batch.actions)
    ratio = np.where(mask, (log_pb - log_pf)[number, action], 0).sum(axis=1)
    delta = np.asarray(log_reward[0], np.float64) + ratio - float(state.student(0).log_z)
    teacher = np.log(np.log(1.001 + np.where(delta > 0, 20, 1) * delta**2) + 1e-8)
    return delta, teacher


@pytest.mark.parametrize(
    ("priority", "rule"), [("none", replay.UniformDraw()), ("teacher", replay.RankDraw(0.01))]
)
def test_replay_draws_by_rank_only_where_there_is_a_priority(priority, rule):
    setting = experiment(priority)
    state = init(setting, SEEDS)
    seed = jax.tree.map(lambda leaf: leaf[0], state.seeds)
    x = jnp.stack([jnp.arange(8), jnp.zeros(8)], axis=1).astype(jnp.int32)
    buffer = jax.jit(replay.add)(seed.replay, x, jnp.arange(8.0), jnp.arange(8.0))
    state = eqx.tree_at(
        lambda s: (s.step, s.seeds.replay),
        state,
        (
            jnp.asarray(1, jnp.int32),
            jax.tree.map(lambda leaf: jnp.stack([leaf] * len(SEEDS)), buffer),
        ),
    )
    draw_key, _ = jax.random.split(jax.random.fold_in(seed.key, 1))
    expected, _, _ = replay.sample(buffer, draw_key, 8, rule)
    np.testing.assert_array_equal(objects(setting, ask(setting, state))[0], expected)


@pytest.mark.parametrize(
    "bad",
    [jnp.nan, *(pytest.param(value, marks=pytest.mark.slow) for value in (jnp.inf, -jnp.inf))],
    ids=str,
)
def test_a_chunk_stops_at_a_reward_that_is_not_finite(bad):
    target = FromFunction(lambda x: jnp.where(jnp.sum(x) == 5, bad, 0.0))
    setting = eqx.tree_at(lambda e: e.target, small(), target)
    state, _ = train_chunk(setting, init(setting, [0]), 200, capacity=200)
    assert int(state.seeds.trouble[0]) == NON_FINITE_REWARD
    assert int(state.step) < 200


class Sharp(TeacherReward):
    """log max(δ, 0): minus infinity wherever the Student draws too often."""

    def __call__(self, output, log_reward, mask):
        return jnp.log(jnp.maximum(output.residual, 0))


def test_a_chunk_stops_at_a_teacher_that_is_not_finite():
    setting = eqx.tree_at(lambda e: e.teacher_reward, experiment(), Sharp())
    state, _ = train_chunk(setting, init(setting, [0]), 10, capacity=10)
    assert int(state.seeds.trouble[0]) == NON_FINITE_TEACHER
    assert int(state.step) < 10


def test_a_step_that_is_not_finite_is_an_error_and_leaves_the_state():
    setting = experiment()
    state = init(setting, [3, 4])
    proposal = ask(setting, state)
    rewards = jnp.zeros((2, 8)).at[1, 2].set(jnp.nan)
    with pytest.raises(FloatingPointError, match=r"log_reward is not finite.*bound"):
        tell(setting, state, proposal, rewards)
    after, _ = tell(setting, state, proposal, jnp.zeros((2, 8)))
    assert int(after.step) == 1
    assert_same_bits(state, init(setting, [3, 4]))
    # And where `step` computes the rewards itself.
    bad = eqx.tree_at(lambda e: e.target, small(), FromFunction(lambda x: jnp.nan * jnp.sum(x)))
    state = init(bad, SEEDS)
    with pytest.raises(FloatingPointError, match="log_reward is not finite"):
        step(bad, state)
    assert_same_bits(state, init(bad, SEEDS))


def test_what_would_be_wrong_in_silence_is_refused():
    setting = experiment()
    state = init(setting, [3, 4])
    with pytest.raises(ValueError, match=r"shape \(2, 8\), seeds by objects, got \(2, 7\)"):
        tell(setting, state, ask(setting, state), jnp.zeros((2, 7)))
    with pytest.raises(ValueError, match="num_steps 10 is above capacity 4"):
        train_chunk(setting, state, 10, capacity=4)
    for position in (2, -1):
        with pytest.raises(IndexError, match="there are 2 seeds: no position"):
            state.student(position)


class Scaled(Hypergrid):
    """A grid with numbers of its own, which its features use."""

    scale: float
    table: jax.Array

    def __init__(self, dim, side):
        super().__init__(dim, side)
        self.scale, self.table = 3.0, jnp.arange(1.0, 4.0)

    @property
    def feature_size(self):
        return 3

    def features(self, state):
        return self.scale * self.table * jnp.sum(state.position)


@pytest.mark.slow
def test_numbers_of_an_environment_are_not_trained():
    env = Scaled(2, 8)
    optimiser = OptimiserConfig(weight_decay=0.1)
    setting = eqx.tree_at(lambda e: (e.environment, e.optimiser), experiment(), (env, optimiser))
    state, _ = train_chunk(setting, init(setting, [0]), 8, capacity=10)
    for sampler in (state.student(), state.teacher()):
        assert float(sampler.environment.scale) == 3
        np.testing.assert_array_equal(sampler.environment.table, [1, 2, 3])
    before = init(setting, [0]).student().policy.layers[0].weight
    assert not np.array_equal(state.student().policy.layers[0].weight, before)


def test_a_chunk_of_finite_rewards_goes_on():
    setting = experiment()
    state, _ = train_chunk(setting, init(setting, SEEDS), 10, capacity=10)
    assert np.all(np.asarray(state.seeds.trouble) == 0)
    assert int(state.step) == 10


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective", [TB(), VarGrad(), DB(), SubTB()], ids=lambda o: type(o).__name__
)
def test_training_converges_to_the_target(objective):
    """With a Teacher and a buffer, and each objective: total variation below 0.05, from above
    0.3, and log Z, where there is one, within 0.05.
    """
    setting = eqx.tree_at(
        lambda e: e.network, experiment("teacher", objective=objective), MLPConfig(width=64)
    )
    log_reward = np.asarray(jax.vmap(TARGET.log_reward)(graph(ENV).objects), np.float64)
    target = np.exp(log_reward - np.logaddexp.reduce(log_reward))

    def variation(state):
        log_pf, _ = edge_scores(state.student(0), graph(ENV))
        return 0.5 * np.abs(graph(ENV).terminal_law(log_pf) - target).sum()

    state = init(setting, [0])
    assert variation(state) > 0.3
    state, _ = train_chunk(setting, state, 4_000, capacity=4_000)
    assert variation(state) < 0.05
    student = state.student(0)
    if objective.learns_log_z:
        np.testing.assert_allclose(student.log_z, TARGET.log_z, atol=0.05)
    if objective.needs_flow:
        np.testing.assert_allclose(student.log_flow(ENV.initial_state()), TARGET.log_z, atol=0.05)


def test_log_z_may_begin_with_an_estimate_from_the_first_batch():
    """Where the target is the reference process times e^c, every weight is e^c."""
    c, eta, sigma = 40.0, 1e-3, 1.5

    def log_reward(x):
        return c + jnp.sum(jax.scipy.stats.norm.logpdf(x, scale=sigma))

    setting = Experiment(
        environment=Diffusion(2, 4, Brownian(sigma)),
        target=FromFunction(log_reward),
        behaviour=Cycle((OnPolicy(), FromTeacher())),
        # The Student's residuals are 0 then, and the Teacher's reward is log(1 + eta) R.
        teacher_reward=DoubleLog(eta=eta, alpha=1.0, floor=0.0),
        network=DiffusionMLPConfig(width=4, harmonics=1, depth=1),
        initial_log_z=None,
    )
    seeds = init(setting, SEEDS).seeds
    np.testing.assert_allclose(seeds.student.sampler.log_z, c, rtol=1e-6)
    expected = c + np.log(np.log1p(eta))
    np.testing.assert_allclose(seeds.teacher.sampler.log_z, expected, rtol=1e-6)


def test_log_z_may_learn_from_the_students_batches_alone():
    setting = Experiment(
        environment=ENV,
        target=TARGET,
        behaviour=Cycle((OnPolicy(), FromTeacher())),
        teacher_reward=DoubleLog(),
        network=MLPConfig(width=16, depth=1),
        # With rates of 0 the others keep still; momentum does not carry log Z on.
        optimiser=OptimiserConfig(learning_rate=0.0, log_z_learning_rate=0.1),
        log_z_from_student=True,
        batch_size=8,
    )
    _, by_student = step(setting, init(setting, [0]))
    fresh = init(setting, [0])
    teachers_turn = eqx.tree_at(lambda s: s.step, fresh, fresh.step + 1)
    _, by_teacher = step(setting, teachers_turn)
    assert by_student.log_z is not None
    assert by_teacher.log_z is not None
    assert abs(float(by_student.log_z[0])) == pytest.approx(0.1, rel=1e-3)
    assert float(by_teacher.log_z[0]) == 0.0
