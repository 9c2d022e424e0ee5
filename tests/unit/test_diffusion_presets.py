"""The presets of diffusion samplers hold the paper's constants."""

import inspect
import math

import numpy as np
import pytest

from didact import targets
from didact._experiment import Experiment
from didact.behaviours import MALA, Collect, Cycle, FromReplay, FromSamples, FromTeacher, OnPolicy
from didact.environments import Brownian, Diffusion, VariancePreserving
from didact.networks import DiffusionMLPConfig
from didact.objectives import MLE, TB, Huber, ReverseKL, Squared, VarGrad
from didact.presets import (
    DIFFUSION_PRESETS,
    DIFFUSION_TASKS,
    SIZES,
    diffusion,
    own_network,
    shortening,
)
from didact.replay import RankDraw
from didact.targets import GMM25, FromFunction
from didact.teacher import DoubleLog

from .._diffusion import OnTheHost

TAUGHT = {"teacher", "teacher-mala"}
PRIORITIES = {
    "tb-per": "loss",
    "tb-prt": "reward",
    "tb-iwr": "weight",
    "teacher": "teacher",
    "teacher-mala": "teacher",
}
BUFFERED = {*PRIORITIES, "tb-mala"}
THRESHOLD = {*TAUGHT, "tb-per"}
OBJECTIVES = {"vargrad": VarGrad(), "pis": ReverseKL(), "mle": MLE()}

PUBLISHED = sorted(set(DIFFUSION_PRESETS) - {"didact"})
every_preset = pytest.mark.parametrize("name", PUBLISHED)


def preset(name: str, **options) -> Experiment:
    return diffusion(GMM25(), name, sigma=math.sqrt(5), **options)


def test_all_methods_of_the_comparison_are_there():
    others = {"tb", "explore", "vargrad", "pis", "mle"}
    assert set(PUBLISHED) == others | BUFFERED
    assert all(DIFFUSION_PRESETS.values())
    assert diffusion(GMM25()) == diffusion(GMM25(), "didact")


@every_preset
def test_what_all_of_them_share(name):
    """T = 100 even steps of Brownian motion, batches of 500, 10,000 steps, ½δ²."""
    experiment = preset(name)
    assert experiment.environment == Diffusion(2, 100, Brownian(math.sqrt(5)))
    assert experiment.environment.times is None
    assert experiment.environment.log_variance_range is None
    assert experiment.target == GMM25()
    assert (experiment.batch_size, experiment.steps) == (500, 10_000)
    assert experiment.objective == OBJECTIVES.get(name, TB(Squared(0.5)))
    assert experiment.initial_log_z == 0.0
    assert not experiment.learn_backward
    assert experiment.backward_scoring is None
    shape = DiffusionMLPConfig(width=256, harmonics=256, depth=2, langevin=False)
    assert experiment.network == shape
    assert experiment.teacher_network is None


@every_preset
def test_the_optimisers(name):
    """1e-3, the Teacher 5e-3 and clipped at 0.1, L2 of 1e-7, a tenth where 6,000 and 2,000 updates
    are left.
    """
    experiment = preset(name)
    own, teachers = experiment.optimiser, experiment.teacher_optimiser
    assert (own.learning_rate, own.log_z_learning_rate, own.max_norm) == (1e-3, 0.1, None)
    assert (teachers is not None) == (name in TAUGHT)
    for optimiser in (own, teachers or own):
        assert optimiser.weight_decay == 1e-7
        assert optimiser.milestones == (10_000 - 6_000, 10_000 - 2_000)
        assert optimiser.decay_steps is None
    if teachers is not None:
        assert (teachers.learning_rate, teachers.log_z_learning_rate) == (5e-3, 0.1)
        assert teachers.max_norm == 0.1


@every_preset
def test_the_buffer(name):
    """50,000 objects, rank r drawn ∝ 1/(0.01·N + r), never refreshed; no two objects are equal."""
    buffer = preset(name).replay
    assert (buffer is not None) == (name in BUFFERED)
    if buffer is None:
        return
    assert buffer.capacity == 50_000
    assert not buffer.refresh
    assert not buffer.unique
    assert buffer.priority == PRIORITIES.get(name, "loss")
    if name == "tb-iwr":
        assert buffer.target_ess is not None
    else:
        assert buffer.draw == RankDraw(0.01)
    if buffer.priority == "loss":
        assert buffer.asymmetry == 19.0


def written_out(name: str) -> tuple:
    behaviour = preset(name).behaviour
    return behaviour.behaviours if isinstance(behaviour, Cycle) else (behaviour,)


@every_preset
def test_the_schedule(name):
    own, buffer, taught = OnPolicy(), FromReplay(), Collect(FromTeacher())
    schedule = written_out(name)
    if name == "explore":
        assert schedule == (OnPolicy(epsilon=0.5, anneal_steps=5_000),)
    elif name == "mle":
        assert schedule == (FromSamples(),)
    elif name in {"tb", "vargrad", "pis"}:
        assert schedule == (own,)
    else:
        basis = (own, taught, own, buffer) if name in TAUGHT else (own, buffer)
        if not name.endswith("mala"):
            assert schedule == basis
            return
        # Local search takes the place of one batch of the buffer, about every 50 steps.
        assert 48 <= len(schedule) <= 50
        repeated = basis * (len(schedule) // len(basis))
        assert schedule[:-1] == repeated[:-1]
        search = schedule[-1]
        assert isinstance(search, Collect)
        assert search.inner == MALA(buffer, num_steps=200, burn_in=100, acceptance=0.574)


@every_preset
def test_the_teacher(name):
    """log(log(1.001 + w ½δ²)) + ½ log R with w = 20 where δ > 0, on objects above the 0.9 quantile,
    on bridges of its own.
    """
    experiment = preset(name)
    assert experiment.threshold_quantile == (0.9 if name in THRESHOLD else None)
    assert experiment.redraw_for_teacher == (name in TAUGHT)
    if name not in TAUGHT:
        assert experiment.teacher_reward is None
        return
    assert experiment.teacher_reward == DoubleLog(
        eta=1e-3, asymmetry=19.0, alpha=0.5, floor=0.0, scale=0.5
    )
    assert experiment.teacher_objective == TB(Squared(0.5))


@every_preset
@pytest.mark.parametrize("size", SIZES)
def test_the_budget(name, size):
    experiment = preset(name, size=size)
    assert (experiment.batch_size, experiment.steps) == {
        "paper": (500, 10_000),
        "cpu": (100, 4_000),
    }[size]
    steps, batch = experiment.steps, experiment.batch_size
    assert experiment.optimiser.milestones == (steps * 2 // 5, steps * 4 // 5)
    calls = experiment.reward_calls(steps)
    if name not in BUFFERED:
        assert calls == steps * batch
    elif not name.endswith("mala"):
        assert calls == steps * batch * (3 if name in TAUGHT else 2) // 4


def test_our_own_differs_in_what_it_says():
    """Steps that shorten, a learned variance, waves, local search, replay by importance weights."""
    own = preset("didact", size="cpu")
    assert own.environment.times == shortening(50)
    assert own.environment.drift == "noise"
    assert own.environment.log_variance_range == 4.0
    assert own.network == own.teacher_network == own_network(GMM25())
    assert own.replay is not None
    assert (own.replay.priority, own.replay.target_ess) == ("weight", 0.3)
    assert own.behaviour.pattern == ("student", "search", "replay", "replay", "teacher", "replay")
    assert own.objective == TB(Huber(10.0))
    assert own.initial_log_z is None
    assert own.log_z_from_student
    assert own.teacher_reward == preset("teacher").teacher_reward
    # A chain of 16 steps costs 18 evaluations.
    assert own.reward_calls(6) == 100 * (1 + 18 + 1)


def test_our_own_network_has_fewer_waves_where_there_are_more_dimensions():
    shapes = {dim: own_network(targets.ManyWell(dim)) for dim in (2, 8, 32, 128)}
    assert {dim: (s.width, s.waves) for dim, s in shapes.items()} == {
        2: (128, 8),
        8: (128, 8),
        32: (256, 2),
        128: (256, 1),
    }
    many = diffusion(targets.ManyWell(32), "didact")
    assert many.network == shapes[32]
    assert many.teacher_network is not None
    assert many.teacher_network.width == 128


@pytest.mark.parametrize("num_steps", [1, 2, 50])
def test_steps_shorten_from_0_to_1(num_steps):
    times = np.asarray(shortening(num_steps))
    assert (times[0], times[-1], len(times)) == (0.0, 1.0, num_steps + 1)
    assert np.all(np.diff(times) > 0)
    assert np.all(np.diff(times, 2) < 0)


def test_the_tasks_and_their_reference_processes():
    """σ² = 5 on 25GMM, 1 on Manywell."""
    target, sigma, _ = DIFFUSION_TASKS["25gmm"]
    assert target() == GMM25()
    assert sigma**2 == pytest.approx(5)
    for dim in (32, 64, 128):
        target, sigma, _ = DIFFUSION_TASKS[f"manywell-{dim}"]
        assert target() == targets.ManyWell(dim)
        assert sigma == 1.0


@pytest.mark.parametrize("task", DIFFUSION_TASKS)
def test_every_task_is_an_experiment(task):
    build, sigma, _ = DIFFUSION_TASKS[task]
    target = build()
    experiment = diffusion(target, "teacher", sigma=sigma)
    assert experiment.environment.dim == target.dim
    assert experiment.environment.process == Brownian(sigma)


def test_what_may_be_changed():
    shape = DiffusionMLPConfig(width=8, langevin=True)
    changed = diffusion(
        GMM25(),
        "teacher",
        process=VariancePreserving(2.0),
        steps=10,
        batch_size=7,
        num_steps=5,
        log_variance_range=4.0,
        learn_backward=True,
        network=shape,
    )
    assert changed.environment == Diffusion(2, 5, VariancePreserving(2.0), None, 4.0)
    assert (changed.batch_size, changed.steps, changed.network) == (7, 10, shape)
    assert changed.learn_backward
    assert changed.optimiser.milestones == (4, 8)
    # A guided network asks for a gradient at each state of a batch: T of them with an edge out.
    assert changed.reward_calls(4) == 7 * (3 + 4 * 5)
    plain = diffusion(GMM25(), "teacher", steps=10, batch_size=7, num_steps=5)
    assert plain.reward_calls(4) == 7 * 3


def test_a_run_of_one_step_has_no_milestones():
    assert diffusion(GMM25(), "teacher", steps=1).optimiser.milestones == ()


@pytest.mark.parametrize("name", ["teacher", "didact"])
def test_a_large_batch_fits_the_buffer(name):
    assert diffusion(GMM25(), name, batch_size=60_000).replay.capacity == 60_000


@pytest.mark.parametrize(("name", "learned"), [("teacher", None), ("didact", 4.0)])
def test_the_variance_is_learned_by_default_or_not_and_can_be_switched(name, learned):
    def of(**options):
        return diffusion(GMM25(), name, **options).environment.log_variance_range

    assert of() == learned
    assert of(log_variance_range=2.0) == 2.0
    assert of(log_variance_range=0.0) is None


@pytest.mark.parametrize("name", ["tb-mala", "teacher-mala", "didact"])
def test_a_target_without_a_gradient_is_refused_where_chains_need_it(name):
    with pytest.raises(ValueError, match=r"gradient of log R, which OnTheHost has not: .*teacher"):
        diffusion(OnTheHost(), name)
    assert diffusion(OnTheHost(), "teacher").batch_size == 500
    with pytest.raises(ValueError, match=r"langevin=True needs the gradient of log R"):
        diffusion(OnTheHost(), "teacher", network=DiffusionMLPConfig(langevin=True))


@pytest.mark.parametrize(
    ("build", "remedy"),
    [
        (lambda: diffusion(GMM25(), "per"), "choose from tb, explore"),
        # The types forbid it too, and are checked first while the tests run.
        (lambda: inspect.unwrap(diffusion)(GMM25(), size="big"), "choose from paper, cpu"),
        (lambda: diffusion(FromFunction(lambda x: -x @ x)), "let it have a property dim"),
        (lambda: diffusion(targets.LogisticRegression(), "mle"), "exact samples"),
    ],
)
def test_impossible_requests_are_refused(build, remedy):
    with pytest.raises(ValueError, match=remedy):
        build()
