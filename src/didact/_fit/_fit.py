"""`fit`: from a log-density to weighted draws, log Z and a verdict."""

import dataclasses
import math
import operator
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, PRNGKeyArray, PyTree

from .. import _train
from .._checks import require
from .._constraints import Constraint, Position, unconstrained_logdensity
from .._density import check_density, find_scale
from .._experiment import Experiment
from .._sampler import Sampler
from .._train import TrainState
from ..behaviours import run_mala
from ..metrics import weights
from ._modes import CLIMB, Modes, find_modes, from_afar
from ._result import Fit
from ._standardised import Standardised
from ._training import (
    FitConfig,
    draw,
    experiment_for,
    remember,
    require_finite,
    restart,
)
from ._verdict import Verdict, judge

_CHAINS, _CHAIN_STEPS = 128, 200
_FAR = 64
_JUDGED_DRAWS = 2_048


def fit(
    logdensity_fn: Callable[[Position], Array],
    dim: int | None = None,
    *,
    rng_key: PRNGKeyArray,
    template: PyTree = None,
    bounds: tuple[PyTree, PyTree] | None = None,
    simplex: bool | PyTree = False,
    num_samples: int = 10_000,
    max_calls: int | None = None,
    max_seconds: float | None = 600.0,
    config: FitConfig | None = None,
    on_progress: Callable[[dict[str, Any]], None] = lambda row: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Fit:
    r"""Learn to sample a density, and say how far the answer can be trusted.

    Independent diffusion samplers are trained with an adaptive Teacher, replay and short Langevin
    chains, in rounds. After each round the samplers' importance weights, their agreement, and the
    hills that Markov chains and climbs from far out find decide whether the answer is reliable; if
    it is, training ends, else what the chains found is learned from in the next round.

    ```python
    result = didact.fit(lambda x: -0.5 * jnp.sum(x**2), dim=3, rng_key=jax.random.key(0))
    result.log_z, result.log_z_interval, result.reliable, result.reason
    ```

    **Arguments:**

    - `logdensity_fn`: position -> log p up to a constant, one number; a JAX function of one
      position, never of a batch; -inf where the density is 0;
    - `dim`: positions are vectors [dim]; or `template`: positions are pytrees like this one;
    - `bounds` = (lower, upper), `simplex`: constraints as in `didact.Constraint`; densities are
      those of the constrained position, the Jacobian is taken care of;
    - `rng_key`; `num_samples`: return at least so many draws (4,096 are drawn anyway);
    - `max_calls`: evaluations of the density or its gradient, `max_seconds`: wall time, at which
      to stop; looked at between chunks of training, so that the search before it, some 30,000 to
      150,000 evaluations, and a tenth of a round are made in any case (None: no limit);
    - `config`: how to train; `on_progress` is called with a row of numbers after each chunk of
      training, and `should_stop` asked: True ends it with what there is.

    **Returns:** a `Fit`.

    **Errors:** `ValueError` for a density that cannot be used: not traceable by JAX, not a single
    real number, NaN, +inf, not integrable as far as can be seen; `FloatingPointError` for one that
    becomes NaN or +inf where a sampler goes later.
    """
    if (dim is None) == (template is None):
        raise ValueError("give either dim, for positions that are vectors, or a template.")
    num_samples = operator.index(num_samples)
    require("num_samples", num_samples, at_least=100)
    require("max_calls", max_calls, at_least=1)
    require("max_seconds", max_seconds, above=0)
    config = FitConfig() if config is None else config
    began = time.monotonic()
    constraint = Constraint(dim if template is None else template, bounds, simplex)
    check_key, search_key, run_key = jax.random.split(rng_key, 3)
    calls = check_density(logdensity_fn, constraint, check_key).calls
    pulled_back = unconstrained_logdensity(logdensity_fn, constraint)
    pilot = find_scale(pulled_back, constraint.size, search_key)
    # What is learned is the log Z that is left.
    target = Standardised(logdensity_fn, constraint, pilot.location, pilot.scale, pilot.log_z)
    run = _Run(
        target=target,
        config=config,
        began=began,
        calls=calls + int(pilot.calls),
        max_calls=math.inf if max_calls is None else float(max_calls),
        max_seconds=math.inf if max_seconds is None else float(max_seconds),
        on_progress=on_progress,
        should_stop=should_stop,
        judged_draws=max(_JUDGED_DRAWS, -(-num_samples // config.num_seeds)),
    )
    return run(np.asarray((pilot.population - pilot.location) / pilot.scale), run_key)


@dataclasses.dataclass
class _Round:
    """What a finished round leaves."""

    samplers: tuple[Sampler, ...]
    x: Float[np.ndarray, "seeds n dim"]
    log_weight: Float64[np.ndarray, "seeds n"]
    modes: Modes | None
    chains: Float[np.ndarray, "chains dim"]


@dataclasses.dataclass
class _Run:
    """One fit: rounds of training and judgement within a budget."""

    target: Standardised
    config: FitConfig
    began: float
    calls: int
    max_calls: float
    max_seconds: float
    on_progress: Callable[[dict[str, Any]], None]
    should_stop: Callable[[], bool]
    judged_draws: int

    def __call__(self, start: Float[np.ndarray, "points n"], key: PRNGKeyArray) -> Fit:
        config = self.config
        init_key, start_key, key = jax.random.split(key, 3)
        seeds = np.asarray(jax.random.randint(init_key, (config.num_seeds,), 0, 2**31 - 1))
        experiment = experiment_for(self.target, self.target.dim, config)
        state = _train.init(experiment, [int(seed) for seed in seeds])
        state = self._remember(experiment, state, start, start_key)
        last: _Round | None = None
        number = 0
        while True:
            look_key, final_key, again_key = jax.random.split(jax.random.fold_in(key, number), 3)
            state, cut, complete = self._train_round(experiment, state, number)
            number += 1
            if complete:
                chains = start if last is None else last.chains
                last = self._look(state, chains, look_key, first=number == 1)
                if judge(last.log_weight, last.modes, "").reliable:
                    # Fresh draws: those that ended the training were picked by how they looked.
                    last = self._redrawn(last, final_key)
            elif last is None:
                samplers = _students(state)
                last = _Round(samplers, *self._draw(samplers, final_key), None, start)
            verdict = judge(last.log_weight, last.modes, cut)
            if verdict.reliable or cut or number == config.max_rounds:
                return self._answer(last, verdict)
            state = restart(experiment, state)
            state = self._remember(experiment, state, last.chains, again_key)

    def _remember(self, experiment, state: TrainState, x, key: PRNGKeyArray) -> TrainState:
        self.calls += len(x) * state.num_seeds
        return remember(experiment, state, x, key)

    def _over_budget(self) -> str:
        if self.calls >= self.max_calls:
            return f"the budget of {self.max_calls:,.0f} evaluations ended"
        if time.monotonic() - self.began >= self.max_seconds:
            return f"the budget of {self.max_seconds:,.4g} seconds ended"
        if self.should_stop():
            return "it was asked to stop"
        return ""

    def _train_round(
        self, experiment: Experiment, state: TrainState, number: int
    ) -> tuple[TrainState, str, bool]:
        """A round in ten chunks; the budget is looked at after each.

        **Returns:** the state, why training must end or nothing, and whether the round was
        completed.
        """
        total = self.config.round_steps
        chunk = -(-total // 10)
        done, cut = 0, ""
        while done < total and not cut:
            before = int(state.step)
            count = min(chunk, total - done)
            state, info = _train.train_chunk(experiment, state, count, capacity=chunk)
            trouble = int(jnp.max(state.seeds.trouble))
            if trouble:
                self._explain(state, trouble)
            done += count
            spent = experiment.reward_calls(before + count) - experiment.reward_calls(before)
            self.calls += spent * self.config.num_seeds
            log_z = jnp.mean(state.seeds.student.sampler.log_z) + self.target.offset
            self.on_progress(
                {
                    "round": number + 1,
                    "step": before + count,
                    "loss": float(jnp.mean(info.loss[:, :count])),
                    "log_z": float(log_z),
                    "calls": self.calls,
                    "seconds": time.monotonic() - self.began,
                }
            )
            cut = self._over_budget()
        return state, cut, done == total

    def _explain(self, state: TrainState, trouble: int) -> None:
        """Raise, with the position where the density was not finite if the buffer holds it."""
        buffer = state.seeds.replay
        if buffer is not None and trouble == _train.NON_FINITE_REWARD:
            x = np.asarray(buffer.x).reshape(-1, self.target.dim)
            held = np.arange(buffer.rank.shape[1]) < np.asarray(buffer.size)[:, None]
            log_reward = np.where(held, np.asarray(buffer.log_reward), 0.0)
            require_finite(self.target, x, log_reward.reshape(-1))
        raise FloatingPointError(f"{_train.trouble_message(trouble)}.")

    def _draw(self, samplers: tuple[Sampler, ...], key: PRNGKeyArray):
        x, log_weight = draw(samplers, self.target, key, self.judged_draws)
        self.calls += log_weight.size
        return x, log_weight

    def _redrawn(self, last: _Round, key: PRNGKeyArray) -> _Round:
        x, log_weight = self._draw(last.samplers, key)
        return dataclasses.replace(last, x=x, log_weight=log_weight)

    def _look(self, state: TrainState, chains, key: PRNGKeyArray, *, first: bool) -> _Round:
        """Draw from the samplers, run chains from overdispersed points and climb from far ones, and
        find the hills.
        """
        draw_key, start_key, far_key, chain_key = jax.random.split(key, 4)
        samplers = _students(state)
        x, log_weight = self._draw(samplers, draw_key)
        half, dim = _CHAINS // 2, self.target.dim
        wide = 2 * self.config.sigma * jax.random.normal(start_key, (half, dim), x.dtype)
        kept = np.asarray(chains)[np.linspace(0, len(chains) - 1, half).astype(int)]
        begin = jnp.concatenate([jnp.asarray(kept, x.dtype), wide])
        ends = np.asarray(_run_chains(self.target, chain_key, begin))
        self.calls += _CHAINS * (_CHAIN_STEPS + 1)
        pooled = log_weight.reshape(-1)
        log_z = float(np.logaddexp.reduce(pooled) - math.log(len(pooled)) - self.target.offset)
        far = from_afar(self.target, far_key, _FAR, self.config.sigma)
        self.calls += _FAR * CLIMB
        # At first every point of the search is climbed from: a mode may be held by one alone.
        seen = np.concatenate([ends, chains.astype(ends.dtype)]) if first else ends
        modes, calls = find_modes(
            self.target, x.reshape(-1, dim), weights.normalised(pooled), seen, log_z, far=far
        )
        self.calls += calls
        return _Round(samplers, x, log_weight, modes, ends)

    def _answer(self, last: _Round, verdict: Verdict) -> Fit:
        # Round robin, so that any first part of the draws has all samplers in equal parts.
        x = last.x.swapaxes(0, 1).reshape(-1, self.target.dim)
        return Fit.make(
            target=self.target,
            samplers=last.samplers,
            x=x,
            log_weight=last.log_weight.swapaxes(0, 1).reshape(-1),
            verdict=verdict,
            modes=last.modes,
            calls=self.calls,
            seconds=time.monotonic() - self.began,
        )


def _students(state: TrainState) -> tuple[Sampler, ...]:
    return tuple(state.student(i) for i in range(state.num_seeds))


@eqx.filter_jit
def _run_chains(target: Standardised, key: PRNGKeyArray, x: Float[Array, "chains n"]):
    ends, _ = run_mala(
        target,
        key,
        x,
        num_steps=_CHAIN_STEPS,
        burn_in=_CHAIN_STEPS // 2,
        step_size=0.01,
        acceptance=0.574,
    )
    return ends
