"""The verdict on a sampler: exact where the states can be enumerated, by samples elsewhere."""

import math
from typing import Any

import jax
import numpy as np

from .._sampler import Sampler
from .._types import EnumerableEnvironment, Objective, Target
from . import empirical, exact

Verdict = dict[str, Any]
_SCORED_DRAWS = 10_000
_EVALUATION = 0x6576616C


def learned_log_z(sampler: Sampler, objective: Objective) -> float | None:
    """The log Z that training under an objective has learned; None where it learns none."""
    if objective.learns_log_z:
        return float(sampler.log_z)
    if objective.needs_flow:
        flow = sampler.log_flow(sampler.environment.initial_state())
        return None if flow is None else float(flow)
    return None


def evaluate_exactly(
    sampler: Sampler, target: Target, objective: Objective
) -> tuple[Verdict, np.ndarray]:
    """The exact verdict, and the exact law of the terminal states.

    **Errors:** `ValueError` where `exact.refusal(environment)` gives a reason.
    """
    env = sampler.environment
    if not isinstance(env, EnumerableEnvironment):
        raise ValueError(str(exact.refusal(env)))
    truth = exact.truth(env, target)
    table = exact.policy_table(sampler)
    visits = exact.reach(env, table)
    law = visits[env.num_internal :]
    verdict = exact.compare(law, truth) | {
        "elbo": exact.elbo(env, target, table, visits),
        "log_z": learned_log_z(sampler, objective),
    }
    return verdict | _log_z_error(verdict["log_z"], truth.log_z), law


def evaluate_by_samples(
    sampler: Sampler, target: Target, objective: Objective, *, seed: int = 0, n: int = 10_000
) -> Verdict:
    """What n draws say: `draw_statistics`, and None for distances that need the whole law."""
    log_z = learned_log_z(sampler, objective)
    unknown = dict.fromkeys(("tv", "kl", "jsd", "mode_mass_recall", "modes_held"))
    return (
        unknown
        | draw_statistics(sampler, target, seed=seed, n=n)
        | {"log_z": log_z, **_log_z_error(log_z, target.log_z)}
    )


def draw_statistics(
    sampler: Sampler, target: Target, *, seed: int = 0, n: int = 100_000
) -> Verdict:
    """What the paper measures on n draws: `modes_reached` and `mode_mass`, and where the
    terminal states can be enumerated the `empirical_l1` beside its floor, the score of a
    perfect sampler; and what the weights of the first `num_scored` <= 10,000 of them say
    (`empirical.summary`).
    """
    env = sampler.environment
    # Apart from the keys that training makes of the same seed.
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), _EVALUATION))
    scored = empirical.draws(sampler, target, keys[0], min(n, _SCORED_DRAWS))
    x = scored.x
    if n > _SCORED_DRAWS:
        rest = empirical.objects(sampler, keys[1], n - _SCORED_DRAWS)
        x = jax.tree.map(lambda *leaves: np.concatenate(leaves), x, rest)
    mode = np.asarray(empirical.mode_indices(target, x))
    known = target.num_modes is not None
    verdict: Verdict = {
        "num_draws": n,
        "num_scored": min(n, _SCORED_DRAWS),
        "modes_reached": len(np.unique(mode[mode >= 0])) if known else None,
        "mode_mass": float(np.mean(mode >= 0)) if known else None,
        "empirical_l1": None,
        "empirical_l1_floor": None,
    } | empirical.summary(scored)
    if isinstance(env, EnumerableEnvironment) and exact.refusal(env) is None:
        p = np.exp(exact.truth(env, target).log_p)
        numbers = np.asarray(empirical.terminal_numbers(env, x))
        counts = np.bincount(numbers, minlength=len(p))
        verdict["empirical_l1"] = empirical.l1(counts, p)
        verdict["empirical_l1_floor"] = empirical.l1_floor(p, n)
    return verdict


def finite_or_none(value: Any) -> Any:
    """A value as JSON can hold it: numbers that are not finite become None."""
    if isinstance(value, dict):
        return {key: finite_or_none(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_none(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _log_z_error(log_z: float | None, true: float | None) -> Verdict:
    error = None if log_z is None or true is None else log_z - true
    return {"log_z_true": true, "log_z_error": error}
