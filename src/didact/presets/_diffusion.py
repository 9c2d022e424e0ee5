"""Diffusion samplers: the paper's two tasks, and the same methods on any continuous target."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import targets
from .._checks import require
from .._experiment import Experiment, OptimiserConfig
from .._types import Objective, Target
from ..behaviours import (
    MALA,
    Behaviour,
    Collect,
    Cycle,
    FromReplay,
    FromSamples,
    FromTeacher,
    OnPolicy,
)
from ..environments import Brownian, Diffusion, Process
from ..networks import DiffusionMLPConfig
from ..objectives import MLE, TB, Huber, ReverseKL, Squared, VarGrad
from ..replay import Priority, ReplayConfig
from ..teacher import DoubleLog

DIFFUSION_PRESETS = {
    "tb": "trajectory balance, on-policy",
    "explore": "trajectory balance with added variance, falling to none at half of the training",
    "tb-per": "trajectory balance with loss-prioritised replay",
    "tb-prt": "trajectory balance with reward-prioritised replay",
    "tb-iwr": "trajectory balance with importance-weighted replay",
    "tb-mala": "trajectory balance with replay, improved by local search every 50 steps",
    "vargrad": "the log-variance objective, on-policy",
    "pis": "reverse KL through the paths (path integral sampler)",
    "mle": "maximum likelihood on exact samples",
    "teacher": "adaptive Teacher, whose objects fill a buffer prioritised by its reward",
    "teacher-mala": "the same, with local search about every 50 steps",
    "didact": "our own: Teacher, local search, importance-weighted replay, learned variance",
}
"""Name and one-line description of each method."""


class Task(NamedTuple):
    """A target, and the scale σ of its reference process: the paper's where it has the task, and
    `own` for the preset "didact", about the spread of the target.
    """

    target: Callable[[], Target]
    sigma: float
    own: float


DIFFUSION_TASKS: dict[str, Task] = {
    "25gmm": Task(targets.GMM25, math.sqrt(5), 6.0),
    "40gmm": Task(targets.GMM40, 20.0, 25.0),
    "manywell-32": Task(lambda: targets.ManyWell(32), 1.0, 1.0),
    "manywell-64": Task(lambda: targets.ManyWell(64), 1.0, 1.0),
    "manywell-128": Task(lambda: targets.ManyWell(128), 1.0, 1.0),
    "funnel": Task(targets.Funnel, 3.0, 3.0),
    "ring": Task(targets.Ring, 3.0, 3.0),
    "eight-gaussians": Task(targets.EightGaussians, 3.0, 3.0),
    "checkerboard": Task(targets.Checkerboard, 3.0, 3.0),
    "logistic": Task(targets.LogisticRegression, 1.0, 1.0),
    "cox": Task(targets.LogGaussianCox, 1.0, 1.5),
}
"""Targets by name."""

OWN_STEPS, OWN_WIDTH = 50, 128
"""Of the preset "didact": steps of a trajectory, and units of a layer of the Teacher."""
_OWN_RANGE = 4.0
_CLIMBING = ("tb-mala", "teacher-mala", "didact")
"""Presets with chains that follow the gradient of log R."""

SIZES = {"paper": (500, 10_000), "cpu": (100, 4_000)}
"""Batch size and gradient steps."""


def own_network(target: Target) -> DiffusionMLPConfig:
    """That of the preset "didact": wider above 8 dimensions, and with fewer waves of each
    coordinate where there are more of them, since among many inputs the high ones slow learning.

    **Errors:** `ValueError` for a target that is not on vectors.
    """
    dim = _dim(target)
    width = OWN_WIDTH if dim <= 8 else 2 * OWN_WIDTH
    return DiffusionMLPConfig(width=width, harmonics=64, waves=max(1, min(8, 64 // dim)))


def diffusion(
    target: Target,
    preset: str = "didact",
    *,
    sigma: float = 1.0,
    process: Process | None = None,
    size: Literal["paper", "cpu"] = "paper",
    steps: int | None = None,
    batch_size: int | None = None,
    num_steps: int | None = None,
    log_variance_range: float | None = None,
    learn_backward: bool = False,
    network: DiffusionMLPConfig | None = None,
) -> Experiment:
    """Our own diffusion sampler, or one of the paper's with its constants, schedule and budget.

    "didact" asks for more than four times as many rewards in a step as "teacher": its chains go
    along the gradient of log R, and so do those of the presets that end in "mala".

    **Arguments:** `target`: any on float [dim] that has a property `dim`; `preset`: a key of
    `DIFFUSION_PRESETS`; `sigma` of the Brownian reference process, within whose reach the target
    must be, for "didact" best about as large as the target is wide; `process`: another one; `size`:
    "paper", batches of 500 and 10,000 steps, or "cpu", 100 and 4,000; `steps`, `batch_size`:
    others; `num_steps` T of a trajectory (default 100, with "didact" 50); `log_variance_range` as
    in `didact.environments.Diffusion`, 0 for a variance that is not learned (default 0, with
    "didact" 4); `learn_backward` as there; `network`: its shape, the Langevin term among it.

    **Errors:** `ValueError` for an unknown preset, or where log R has no gradient and the preset or
    the network needs it.

    Source: Kim et al. (2025), section 5.2, for all but "didact". Known divergences: the published
    code clips the gradient of the Teacher's time embedding alone, here it is all of the Teacher's;
    its buffer also holds the first Student batch, twice, here only what the Teacher drew.
    """
    if preset not in DIFFUSION_PRESETS:
        raise ValueError(f"unknown preset {preset!r}; choose from {', '.join(DIFFUSION_PRESETS)}.")
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}; choose from {', '.join(SIZES)}.")
    own_batch, own_steps = SIZES[size]
    batch_size = own_batch if batch_size is None else batch_size
    steps = own_steps if steps is None else steps
    dim = _dim(target)
    point = jax.ShapeDtypeStruct((dim,), jnp.result_type(float))
    try:
        jax.eval_shape(target.log_reward, point)
    except TypeError as error:
        raise ValueError(
            f"{type(target).__name__} is no target on real vectors: {error}".splitlines()[0]
        ) from error
    require("log_variance_range", log_variance_range, at_least=0)
    if preset in _CLIMBING:
        _check_gradient(target, point, f"preset {preset!r}")
    if network is not None and network.langevin:
        _check_gradient(target, point, "a network with langevin=True")
    if log_variance_range is None:
        log_variance_range = _OWN_RANGE if preset == "didact" else 0.0
    log_variance_range = log_variance_range or None
    if preset == "didact":
        num_steps = OWN_STEPS if num_steps is None else num_steps
        return _own(
            target,
            Diffusion(
                dim,
                num_steps,
                process or Brownian(sigma),
                times=shortening(num_steps),
                log_variance_range=log_variance_range,
                drift="noise",
            ),
            own_network(target) if network is None else network,
            batch_size,
            steps,
            learn_backward=learn_backward,
        )
    num_steps = 100 if num_steps is None else num_steps
    method, _, addition = preset.partition("-")
    taught = method == "teacher"
    # The rates fall where 60 % and 20 % of the paper's training are left.
    milestones = tuple(m for m in (steps * 2 // 5, steps * 4 // 5) if m > 0)
    optimiser = OptimiserConfig(max_norm=None, weight_decay=1e-7, milestones=milestones)
    teacher_optimiser = OptimiserConfig(
        learning_rate=5e-3, max_norm=0.1, weight_decay=1e-7, milestones=milestones
    )
    buffered = taught or addition in ("per", "prt", "iwr", "mala")
    return Experiment(
        environment=Diffusion(
            dim, num_steps, process or Brownian(sigma), log_variance_range=log_variance_range
        ),
        target=target,
        behaviour=_schedule(method, addition, steps),
        objective=_objective(method),
        teacher_objective=TB(Squared(0.5)) if taught else None,
        # The residual's weight is 1 + 19 where the Student draws too rarely.
        teacher_reward=DoubleLog(alpha=0.5, floor=0.0, scale=0.5) if taught else None,
        replay=_replay(taught, addition, batch_size) if buffered else None,
        network=DiffusionMLPConfig() if network is None else network,
        optimiser=optimiser,
        teacher_optimiser=teacher_optimiser if taught else None,
        batch_size=batch_size,
        steps=steps,
        learn_backward=learn_backward,
        threshold_quantile=0.9 if taught or addition == "per" else None,
        redraw_for_teacher=taught,
    )


def _check_gradient(target: Target, point: jax.ShapeDtypeStruct, who: str) -> None:
    """Whether JAX can differentiate log R, which `who` needs."""
    try:
        jax.eval_shape(jax.grad(target.log_reward), point)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"{who} needs the gradient of log R, which {type(target).__name__} has not: do without "
            "(the preset 'teacher' does)."
        ) from error


def _dim(target: Target) -> int:
    dim = getattr(target, "dim", None)
    if not isinstance(dim, int):
        raise ValueError(
            f"{type(target).__name__} does not say how long its vectors are: let it have a "
            "property dim, or give the function to didact.fit."
        )
    return dim


def shortening(num_steps: int) -> tuple[float, ...]:
    """Times 1 - (1 - i/T)²: steps that shorten towards the end, where a density is sharp."""
    left = 1 - np.linspace(0, 1, num_steps + 1)
    return tuple((1 - left**2).tolist())


def _own(
    target: Target,
    environment: Diffusion,
    network: DiffusionMLPConfig,
    batch_size: int,
    steps: int,
    *,
    learn_backward: bool,
) -> Experiment:
    """What works best here: a buffer of all batches, short Langevin chains from it among them,
    drawn by tempered importance weights, so that modes come back as often as they should; the
    published Teacher; a learned variance, and steps that shorten.

    In many dimensions the gradient of a squared residual is noise while residuals are large. So it
    grows no further than a Huber loss lets it, own batches, which have the most noise, are one in
    six, and log Z follows them: until they are as good as what the buffer holds, that is learned
    as by maximum likelihood.
    """
    replayed = FromReplay()
    search = Collect(MALA(replayed, num_steps=16, burn_in=8))
    optimiser = OptimiserConfig(
        learning_rate=3e-3, max_norm=10.0, weight_decay=1e-7, decay_steps=steps, final_fraction=0.01
    )
    return Experiment(
        environment=environment,
        target=target,
        behaviour=Cycle((OnPolicy(), search, replayed, replayed, Collect(FromTeacher()), replayed)),
        objective=TB(Huber(10.0)),
        teacher_reward=DoubleLog(alpha=0.5, floor=0.0, scale=0.5),
        replay=ReplayConfig(
            max(20_000, batch_size), priority="weight", target_ess=0.3, refresh=True
        ),
        network=network,
        teacher_network=replace(network, width=min(network.width, OWN_WIDTH)),
        optimiser=optimiser,
        teacher_optimiser=replace(optimiser, learning_rate=5e-3, max_norm=0.1),
        batch_size=batch_size,
        steps=steps,
        initial_log_z=None,
        log_z_from_student=True,
        learn_backward=learn_backward,
        redraw_for_teacher=True,
    )


def _objective(method: str) -> Objective:
    others: dict[str, Objective] = {"vargrad": VarGrad(), "pis": ReverseKL(), "mle": MLE()}
    return others.get(method, TB(Squared(0.5)))


def _schedule(method: str, addition: str, steps: int) -> Behaviour:
    own, replayed = OnPolicy(), FromReplay()
    if method == "explore":
        return OnPolicy(epsilon=0.5, anneal_steps=max(steps // 2, 1))
    if method == "mle":
        return FromSamples()
    taught = method == "teacher"
    if not taught and not addition:
        return own
    turns = (own, Collect(FromTeacher()), own, replayed) if taught else (own, replayed)
    if addition == "mala":
        turns = turns * (50 // len(turns))
        turns = (*turns[:-1], Collect(MALA(replayed)))
    return Cycle(turns)


def _replay(taught: bool, addition: str, batch_size: int) -> ReplayConfig:
    priorities: dict[str, Priority] = {"prt": "reward", "iwr": "weight"}
    return ReplayConfig(
        capacity=max(50_000, batch_size),
        priority="teacher" if taught else priorities.get(addition, "loss"),
        asymmetry=19.0,
        unique=False,
        target_ess=0.5 if addition == "iwr" else None,
        keep_student=not taught,
    )
