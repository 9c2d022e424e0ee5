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
    """What n draws say. Distances that need the whole law are None."""
    drawn = empirical.draws(sampler, target, jax.random.key(seed), n)
    mode = np.asarray(empirical.mode_indices(target, drawn.x))
    known = target.num_modes is not None
    log_z = learned_log_z(sampler, objective)
    return {
        "tv": None,
        "kl": None,
        "jsd": None,
        "mode_mass": float(np.mean(mode >= 0)) if known else None,
        "mode_mass_recall": None,
        "modes_held": None,
        "log_z": log_z,
        **empirical.summary(drawn),
        **_log_z_error(log_z, target.log_z),
    }


def draw_statistics(
    sampler: Sampler, target: Target, *, seed: int = 0, n: int = 100_000
) -> Verdict:
    """What the paper measures on n draws: `modes_reached`, and where the terminal states can
    be enumerated the `empirical_l1` beside its floor, the score of a perfect sampler; and
    what the weights of at most 10,000 draws say (`empirical.summary`).
    """
    env = sampler.environment
    x = empirical.objects(sampler, jax.random.key(seed), n)
    scored = empirical.draws(sampler, target, jax.random.key(seed), min(n, _SCORED_DRAWS))
    mode = np.asarray(empirical.mode_indices(target, x))
    reached = len(np.unique(mode[mode >= 0])) if target.num_modes is not None else None
    verdict: Verdict = {
        "num_draws": n,
        "modes_reached": reached,
        "empirical_l1": None,
        "empirical_l1_floor": None,
    } | {k: v for k, v in empirical.summary(scored).items() if k != "elbo"}
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
