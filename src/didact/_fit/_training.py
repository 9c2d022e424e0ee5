"""The training of a fit: rounds of a Student with a Teacher, and what is asked after each."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, PRNGKeyArray

from .. import _train
from .. import replay as replay_buffer
from .._checks import require
from .._experiment import Experiment, OptimiserConfig
from .._sampler import Sampler, sample_backward, score
from .._train import TrainState
from .._types import Target
from ..behaviours import MALA, Collect, Cycle, FromReplay, FromTeacher, OnPolicy
from ..environments import Brownian, Diffusion
from ..metrics import empirical
from ..networks import DiffusionMLPConfig
from ..objectives import TB, Huber
from ..presets import shortening
from ..replay import ReplayConfig
from ..teacher import DoubleLog
from ._standardised import Standardised

_CAPACITY = 20_000
_CHAIN_STEPS = 16


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """How a fit trains: the defaults are meant for densities of up to about thirty dimensions
    whose evaluation is cheap.

    **Arguments:** `num_seeds` independent samplers of `num_steps` Gaussian steps with networks of
    `width` units learn from batches of `batch_size`; a round is `round_steps` gradient steps under
    a learning rate that falls from `learning_rate`; there are at most `max_rounds`; `sigma`: the
    spread of the untrained samplers, in units of the spread that was found.
    """

    num_seeds: int = 2
    num_steps: int = 32
    width: int = 128
    batch_size: int = 128
    round_steps: int = 1_000
    max_rounds: int = 6
    sigma: float = 1.5
    learning_rate: float = 2e-3

    def __post_init__(self):
        for name in ("num_seeds", "num_steps", "width", "round_steps", "max_rounds"):
            require(name, getattr(self, name), at_least=1)
        require("batch_size", self.batch_size, at_least=2)
        require("sigma", self.sigma, above=0)
        require("learning_rate", self.learning_rate, above=0)


def experiment_for(target: Target, dim: int, config: FitConfig) -> Experiment:
    """The experiment of a fit: Student and Teacher, a buffer that both and short Langevin chains
    fill, and steps that shorten towards the end, where the density is sharp.
    """
    own, replayed = OnPolicy(), FromReplay()
    search = Collect(MALA(replayed, num_steps=_CHAIN_STEPS, burn_in=_CHAIN_STEPS // 2))
    optimiser = OptimiserConfig(
        learning_rate=config.learning_rate,
        log_z_learning_rate=0.02,
        max_norm=10.0,
        decay_steps=config.round_steps,
        final_fraction=0.02,
    )
    return Experiment(
        environment=Diffusion(
            dim,
            config.num_steps,
            Brownian(config.sigma),
            times=shortening(config.num_steps),
            log_variance_range=4.0,
            drift="noise",
        ),
        target=target,
        behaviour=Cycle((own, search, own, replayed, Collect(FromTeacher()), replayed)),
        objective=TB(Huber(5.0)),
        teacher_reward=DoubleLog(alpha=0.5, floor=0.0, scale=0.5),
        redraw_for_teacher=True,
        replay=ReplayConfig(_CAPACITY, "weight", target_ess=0.3, refresh=True),
        network=DiffusionMLPConfig(width=config.width, harmonics=32, waves=8),
        optimiser=optimiser,
        batch_size=config.batch_size,
        steps=config.round_steps * config.max_rounds,
    )


def remember(
    experiment: Experiment, state: TrainState, x: Float[np.ndarray, "points n"], key: PRNGKeyArray
) -> TrainState:
    """Put points into the buffers of all seeds."""
    keys = jax.random.split(key, state.num_seeds)
    return TrainState(state.step, _remember(experiment, state.seeds, jnp.asarray(x), keys))


@eqx.filter_jit
def _remember(experiment: Experiment, seeds, x: Float[Array, "points n"], keys):
    def one(seed, key):
        log_reward = jax.vmap(experiment.target.log_reward)(x)
        weight = _backward_log_weight(seed.student.sampler, key, x, log_reward)
        buffer = replay_buffer.add(seed.replay, x, log_reward, weight)
        return eqx.tree_at(lambda s: s.replay, seed, buffer)

    return jax.vmap(one)(seeds, keys)


def _backward_log_weight(sampler, key, x, log_reward):
    trajectory = sample_backward(sampler, key, x)
    scored = score(sampler, trajectory, log_reward, jnp.ones_like(log_reward))
    return log_reward + jnp.sum(scored.log_pb - scored.log_pf, axis=1)


def restart(experiment: Experiment, state: TrainState) -> TrainState:
    """The same samplers with fresh optimisers: the learning rate begins anew."""

    def fresh(agent: _train.Agent, optimiser: OptimiserConfig) -> _train.Agent:
        return jax.vmap(lambda one: _train.untrained_agent(one, optimiser))(agent.sampler)

    seeds = state.seeds
    assert seeds.teacher is not None
    seeds = eqx.tree_at(
        lambda s: (s.student, s.teacher),
        seeds,
        (
            fresh(seeds.student, experiment.optimiser),
            fresh(seeds.teacher, experiment.teacher_optimiser or experiment.optimiser),
        ),
    )
    return TrainState(state.step, seeds)


def draw(
    samplers: Sequence[Sampler], target: Standardised, key: PRNGKeyArray, n: int
) -> tuple[Float[np.ndarray, "seeds n dim"], Float64[np.ndarray, "seeds n"]]:
    """`n` draws of each sampler, and their log weights, offset included.

    **Errors:** `FloatingPointError` with the position, where the density is NaN or +inf.
    """
    drawn = [
        empirical.draws(sampler, target, jax.random.fold_in(key, i), n, batch_size=512)
        for i, sampler in enumerate(samplers)
    ]
    for one in drawn:
        require_finite(target, one.x, one.log_reward)
    x = np.stack([np.asarray(one.x) for one in drawn])
    log_weight = np.stack([np.asarray(one.log_weight, np.float64) for one in drawn])
    return x, log_weight + float(target.offset)


def require_finite(target: Standardised, x: Any, log_reward: Any) -> None:
    """`FloatingPointError` that names the position, where log R is not finite."""
    bad = ~np.isfinite(np.asarray(log_reward))
    if bad.any():
        position = target.position(jnp.asarray(np.asarray(x)[int(np.argmax(bad))]))
        where = jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), position)
        raise FloatingPointError(
            f"logdensity_fn is NaN or +inf at {where}: return -inf where the density is 0, and a "
            "number everywhere else."
        )
