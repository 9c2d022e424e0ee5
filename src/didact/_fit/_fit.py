"""`fit`: from a log-density to weighted draws, log Z and a verdict."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .. import _train
from .._checks import require
from .._constraints import Constraint, Position, unconstrained_logdensity
from .._density import check_density, find_scale
from .._experiment import Experiment
from .._train import TrainState
from ..behaviours import run_mala
from ..metrics import empirical
from ._modes import Modes, find_modes
from ._result import Fit
from ._standardised import Standardised
from ._training import (
    FitConfig,
    draw,
    experiment_for,
    normalised,
    remember,
    restart,
)
from ._verdict import Verdict, judge

_CHAINS, _CHAIN_STEPS = 128, 200
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
    hills that Markov chains from overdispersed points find decide whether the answer is reliable;
    if it is, training ends, else what the chains found is learned from in the next round.

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
    - `rng_key`; `num_samples` draws to return;
    - `max_calls`: evaluations of the density or its gradient, `max_seconds`: wall time, at which
      to stop (looked at between chunks of training; None: no limit);
    - `config`: how to train; `on_progress` is called with a row of numbers after each chunk of
      training, and `should_stop` asked: True ends it with what there is.

    **Returns:** a `Fit`.

    **Errors:** `ValueError` for a density that cannot be used: not traceable by JAX, not a single
    real number, NaN, +inf, not integrable as far as can be seen; `FloatingPointError` for one that
    becomes NaN or +inf where a sampler goes later.
    """
    if (dim is None) == (template is None):
        raise ValueError("give either dim, for positions that are vectors, or a template.")
    require("num_samples", num_samples, at_least=100)
    require("max_calls", max_calls, at_least=1)
    require("max_seconds", max_seconds, above=0)
    config = FitConfig() if config is None else config
    began = time.monotonic()
    constraint = Constraint(dim if template is None else template, bounds, simplex)
    keys = jax.random.split(rng_key, 6)
    calls = check_density(logdensity_fn, constraint, keys[0]).calls
    pilot = find_scale(
        unconstrained_logdensity(logdensity_fn, constraint), constraint.size, keys[1]
    )
    # What is learned is the log Z that is left.
    target = Standardised(
        logdensity_fn=logdensity_fn,
        constraint=constraint,
        location=pilot.location,
        scale=pilot.scale,
        offset=pilot.log_z,
    )
    run = _Run(
        target=target,
        config=config,
        began=began,
        calls=calls + int(pilot.calls),
        max_calls=math.inf if max_calls is None else max_calls,
        max_seconds=math.inf if max_seconds is None else max_seconds,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    start = np.asarray((pilot.population - pilot.location) / pilot.scale)
    return run(start, keys[2], num_samples)


class _Run:
    """One fit: rounds of training and judgement within a budget."""

    def __init__(
        self, *, target, config, began, calls, max_calls, max_seconds, on_progress, should_stop
    ):
        self.target: Standardised = target
        self.config: FitConfig = config
        self.began: float = began
        self.calls: int = calls
        self.max_calls: float = max_calls
        self.max_seconds: float = max_seconds
        self.on_progress: Callable[[dict[str, Any]], None] = on_progress
        self.should_stop: Callable[[], bool] = should_stop
        self.round = 0

    def __call__(
        self, start: Float[np.ndarray, "points n"], key: PRNGKeyArray, num_samples: int
    ) -> Fit:
        config, dim = self.config, self.target.dim
        init_key, key = jax.random.split(key)
        seeds = np.asarray(jax.random.randint(init_key, (config.num_seeds,), 0, 2**31 - 1))
        experiment = experiment_for(self.target, dim, config)
        state = _train.init(experiment, [int(seed) for seed in seeds])
        state = remember(experiment, state, start, jax.random.fold_in(key, 0))
        self.calls += len(start)
        chains, modes, verdict = start, None, None
        while True:
            round_key = jax.random.fold_in(key, self.round + 1)
            state, cut = self._train_round(experiment, state)
            x, log_weight, modes, chains = self._look(experiment, state, chains, round_key, cut)
            verdict = judge(log_weight, modes, cut)
            self.round += 1
            if verdict.reliable or cut or self.round == config.max_rounds:
                break
            state = remember(experiment, restart(experiment, state), chains, round_key)
        return self._finish(state, verdict, x, log_weight, modes, key, num_samples)

    def _over_budget(self) -> str:
        if self.calls >= self.max_calls:
            return f"the budget of {self.max_calls:,.0f} evaluations ended"
        if time.monotonic() - self.began >= self.max_seconds:
            return f"the budget of {self.max_seconds:,.0f} seconds ended"
        if self.should_stop():
            return "it was asked to stop"
        return ""

    def _train_round(self, experiment: Experiment, state: TrainState) -> tuple[TrainState, str]:
        """A round in ten chunks; the budget is looked at after each."""
        total = self.config.round_steps
        chunk = -(-total // 10)
        done = 0
        while done < total:
            before = int(state.step)
            count = min(chunk, total - done)
            state, info = _train.train_chunk(experiment, state, count, capacity=chunk)
            trouble = int(jnp.max(state.seeds.trouble))
            if trouble:
                self._explain(experiment, state, trouble)
            done += count
            spent = experiment.reward_calls(before + count) - experiment.reward_calls(before)
            self.calls += spent * self.config.num_seeds
            self.on_progress(
                {
                    "round": self.round + 1,
                    "step": before + count,
                    "loss": float(jnp.mean(info.loss[:, count - 1])),
                    "log_z": float(
                        jnp.mean(state.seeds.student.sampler.log_z) + self.target.offset
                    ),
                    "calls": self.calls,
                    "seconds": time.monotonic() - self.began,
                }
            )
            cut = self._over_budget()
            if cut and done < total:
                return state, cut
        return state, ""

    def _explain(self, experiment: Experiment, state: TrainState, trouble: int) -> None:
        """Raise, with the position where the density is not finite if one is found."""
        message = _train.trouble_message(trouble)
        for i in range(state.num_seeds):
            x = empirical.objects(state.student(i), jax.random.key(0), 4_096)
            value = np.asarray(jax.vmap(self.target.log_reward)(jnp.asarray(x)))
            if not np.all(np.isfinite(value)):
                bad = jnp.asarray(x[int(np.argmin(np.isfinite(value)))])
                where = jax.tree.map(
                    lambda leaf: np.asarray(leaf).tolist(), self.target.position(bad)
                )
                raise FloatingPointError(
                    f"logdensity_fn is not finite at {where}: return -inf only where the density "
                    "is 0, and NaN or +inf nowhere."
                )
        raise FloatingPointError(f"{message}.")

    def _look(self, experiment, state: TrainState, chains, key: PRNGKeyArray, cut: str):
        """Draw from the samplers, run chains from overdispersed points, and find the hills."""
        draw_key, start_key, chain_key = jax.random.split(key, 3)
        x, log_weight = draw(state, self.target, draw_key, _JUDGED_DRAWS)
        self.calls += log_weight.size
        if cut:
            return x, log_weight, None, chains
        half = _CHAINS // 2
        wide = 2 * self.config.sigma * jax.random.normal(start_key, (half, x.shape[2]), x.dtype)
        kept = np.asarray(chains)[np.linspace(0, len(chains) - 1, half).astype(int)]
        ends, _ = run_mala(
            self.target,
            chain_key,
            jnp.concatenate([jnp.asarray(kept), wide]),
            num_steps=_CHAIN_STEPS,
            burn_in=_CHAIN_STEPS,
            step_size=0.01,
            acceptance=0.574,
        )
        self.calls += _CHAINS * (_CHAIN_STEPS + 1)
        pooled = log_weight.reshape(-1)
        log_z = float(np.logaddexp.reduce(pooled) - math.log(len(pooled)) - self.target.offset)
        modes, calls = find_modes(
            self.target, x.reshape(-1, x.shape[2]), normalised(pooled), np.asarray(ends), log_z
        )
        self.calls += calls
        return x, log_weight, modes, np.asarray(ends)

    def _finish(
        self,
        state: TrainState,
        verdict: Verdict,
        x,
        log_weight,
        modes: Modes | None,
        key: PRNGKeyArray,
        num_samples: int,
    ) -> Fit:
        """The draws that were judged, and as many more as are asked for."""
        seeds = state.num_seeds
        each = -(-num_samples // seeds)
        more = each - log_weight.shape[1]
        if more > 0:
            extra, extra_weight = draw(
                state, self.target, jax.random.fold_in(key, 0x6D6F7265), more
            )
            x, log_weight = (
                np.concatenate([x, extra], 1),
                np.concatenate([log_weight, extra_weight], 1),
            )
            self.calls += extra_weight.size
            again = judge(log_weight, modes, "")
            # More draws sharpen the numbers; they may take trust away, never give it.
            verdict = dataclasses.replace(
                again,
                reliable=verdict.reliable and again.reliable,
                reason=again.reason if verdict.reliable else verdict.reason,
            )
        x, log_weight = x[:, :each], log_weight[:, :each]
        # Round robin, so that any first part of the draws has all samplers in equal parts.
        x = x.swapaxes(0, 1).reshape(-1, x.shape[2])[:num_samples]
        log_weight = log_weight.swapaxes(0, 1).reshape(-1)[:num_samples]
        return Fit.make(
            target=self.target,
            samplers=tuple(state.student(i) for i in range(seeds)),
            x=x,
            log_weight=log_weight,
            verdict=verdict,
            modes=modes,
            calls=self.calls,
            seconds=time.monotonic() - self.began,
        )
