"""The verdict on a sampler: exact where the states can be enumerated, by samples elsewhere."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float64, Int

from .._sampler import Sampler
from .._types import EnumerableEnvironment, ModalTarget, Objective, SamplableTarget, Target
from ..environments import Strings
from ..targets import StringTarget
from ..targets._strings import LEAST_VALUE, strings_of
from . import coverage, empirical, exact, strings, weights
from . import distances as distance

Verdict = dict[str, Any]
_SCORED_DRAWS = 10_000
_ASSIGNED_DRAWS = 2_500  # four seconds of exact assignment; its cost grows with the cube
_LIKELIHOOD_DRAWS = 1_000
_LISTED_MODES = 1_000
_PATHS = 64  # to each mode: (6, 16) takes half a minute
_RESAMPLES = 200
_TOP = 100
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
    verdict = (
        exact.compare(law, truth)
        | _mean_value(env, target, law)
        | {
            "elbo": exact.elbo(env, target, table, visits),
            "eubo": exact.eubo(env, target, table),
            "log_z": learned_log_z(sampler, objective),
        }
    )
    return verdict | _log_z_error(verdict["log_z"], truth.log_z), law


def evaluate_by_samples(
    sampler: Sampler,
    target: Target,
    objective: Objective,
    *,
    seed: int = 0,
    n: int = 10_000,
    distances: bool = True,
    modes: bool = True,
) -> Verdict:
    """What n draws say: `draw_statistics`, where the target has exact samples also
    `sample_statistics` (its distances only if asked for), and None for what needs the whole law.
    What modes get is exact all the same where they are listed strings; where they are single
    objects of another kind, up to a thousand, it is what `mode_statistics` says, if asked for.
    """
    log_z = learned_log_z(sampler, objective)
    unknown = dict.fromkeys(("tv", "kl", "jsd", "spearman", "mode_mass_recall", "modes_held"))
    verdict = unknown | draw_statistics(sampler, target, seed=seed, n=n)
    if isinstance(target, SamplableTarget):
        verdict |= sample_statistics(sampler, target, seed=seed, n=n, distances=distances)
    if isinstance(target, StringTarget) and isinstance(sampler.environment, Strings):
        verdict |= _string_modes(sampler, target)
    elif modes and isinstance(target, ModalTarget) and _can_be_walked_to(target):
        verdict |= mode_statistics(sampler, target, seed=seed)
    return verdict | {"log_z": log_z, **_log_z_error(log_z, target.log_z)}


def mode_probabilities(
    target: StringTarget,
) -> tuple[Int[np.ndarray, "modes length"], Float[np.ndarray, " modes"]]:
    """The strings that are modes, and the probability of each under the target; NaN where its log Z
    is unknown.
    """
    x = strings_of(target.modes(), target.num_symbols, target.length)
    log_z = math.nan if target.log_z is None else target.log_z
    log_reward = target.law.log_reward(np.asarray(target.value(x), np.float64), np)
    return x, np.exp(log_reward - log_z)


def _string_modes(sampler: Sampler, target: StringTarget) -> Verdict:
    """What the law of a sampler gives to modes, exactly: single strings have a probability though
    all of them cannot be listed.
    """
    x, p = mode_probabilities(target)
    q = np.exp(np.asarray(exact.string_log_prob(sampler, jnp.asarray(x)), np.float64))
    return {"mode_mass": float(q.sum()), **exact.held(q, p)}


def _can_be_walked_to(target: ModalTarget) -> bool:
    number = target.num_modes
    return number is not None and 0 < number <= _LISTED_MODES and target.log_z is not None


def mode_statistics(
    sampler: Sampler, target: ModalTarget, *, seed: int = 0, paths: int = _PATHS
) -> Verdict:
    r"""How much of each mode a sampler holds, where its law cannot be listed.

    With $\hat p_\theta(x)$ the mean of `paths` ratios $P_F(\tau)/P_B(\tau\mid x)$
    (`didact.metrics.empirical.path_ratios`): `modes_held`, the number of modes with
    $\hat p_\theta \ge p/2$, and `mode_mass_recall`
    $= \sum_\text{modes} \min(\hat p_\theta, p)/\sum_\text{modes} p$, each with the ends `_low`
    and `_high` of a 90 % interval, from a bootstrap over the walks to each mode. The recall is
    biased low, since no mode counts for more than it should have. `mode_ess`: what share of its
    walks counts in such a mean, $(\sum_k r_k)^2/(K\sum_k r_k^2)$, the mean over modes. Where it is
    a few hundredths, most of the ways to a mode have not been walked, and the numbers are low.

    **Errors:** `ValueError` if the target does not know its log Z or has no modes, or `paths` is
    below 2.
    """
    if target.log_z is None or not target.num_modes:
        raise ValueError("mode_statistics needs a target that knows its log_z and has modes.")
    if paths < 2:
        raise ValueError(f"paths must be at least 2, got {paths}.")
    x = target.mode_samples()
    log_reward = np.asarray(jax.vmap(target.log_reward)(x), np.float64)
    p = np.exp(log_reward - target.log_z)
    ratios = empirical.path_ratios(sampler, x, _keys(seed)[3], paths=paths)
    generator = np.random.default_rng(seed)
    again = [exact.held(_resampled(ratios, generator), p) for _ in range(_RESAMPLES)]
    verdict: Verdict = {}
    for name, value in exact.held(ratios.mean(axis=1), p).items():
        low, high = np.quantile([drawn[name] for drawn in again], (0.05, 0.95))
        verdict |= {name: value, f"{name}_low": float(low), f"{name}_high": float(high)}
    square = paths * np.sum(ratios**2, axis=1)
    share = np.divide(ratios.sum(axis=1) ** 2, square, out=np.zeros_like(p), where=square > 0)
    return verdict | {"mode_ess": float(share.mean())}


def _resampled(
    ratios: Float[np.ndarray, "modes paths"], generator: np.random.Generator
) -> Float[np.ndarray, " modes"]:
    """Means of walks drawn anew, with replacement, of each mode its own."""
    chosen = generator.integers(ratios.shape[1], size=ratios.shape)
    return np.take_along_axis(ratios, chosen, axis=1).mean(axis=1)


def scored_draws(sampler: Sampler, target: Target, *, seed: int, n: int) -> empirical.Draws:
    """Those of the n draws of `draw_statistics` of which the reward is known: the first 10,000. Who
    asks again is told the same, and a reward outside JAX scores nothing anew.
    """
    return empirical.draws(sampler, target, _keys(seed)[0], min(n, _SCORED_DRAWS))


def draw_statistics(
    sampler: Sampler,
    target: Target,
    *,
    seed: int = 0,
    n: int = 100_000,
    law: Float64[np.ndarray, " terminal"] | None = None,
) -> Verdict:
    """What the paper measures on n draws: `modes_reached` and `mode_mass`, and where the
    terminal states can be enumerated the `empirical_l1` beside its floor, the score of a
    perfect sampler; what `string_statistics` says where they are strings with a value; and what the
    weights of the first `num_scored` <= 10,000 of them say
    (`didact.metrics.weights`): `elbo` and `log_z_estimate` with the ends of their 90 % intervals,
    the effective share `ess` of the draws, and `k_hat`.

    **Arguments:** `law`: the exact law of the sampler's terminal states, where it is known, as
    `evaluate_exactly` returns it. The draws that are not scored are then taken from it, which is
    the same distribution and asks the network nothing: on large grids minutes become seconds.
    """
    env = sampler.environment
    scored = scored_draws(sampler, target, seed=seed, n=n)
    x, missing = scored.x, n - _SCORED_DRAWS
    if missing > 0:
        key = _keys(seed)[1]
        if law is None or not np.all(np.isfinite(law)):
            rest = empirical.objects(sampler, key, missing)
        else:
            assert isinstance(env, EnumerableEnvironment)
            rest = exact.objects(env, law, key, missing)
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
    } | weight_statistics(np.asarray(scored.log_weight))
    if isinstance(target, StringTarget):
        verdict |= string_statistics(target, np.asarray(x))
    if isinstance(env, EnumerableEnvironment) and exact.refusal(env, target) is None:
        p = np.exp(exact.truth(env, target).log_p)
        numbers = np.asarray(empirical.terminal_numbers(env, x))
        counts = np.bincount(numbers, minlength=len(p))
        verdict["empirical_l1"] = empirical.l1(counts, p)
        verdict["empirical_l1_floor"] = empirical.l1_floor(p, n)
    return verdict


def string_statistics(target: StringTarget, x: Int[np.ndarray, "n length"]) -> Verdict:
    """What draws say of the values of strings: `mean_value`, beside the `expected_value` of exact
    samples; and of the best 100 different ones `top_value`, the mean value, and `top_distance`, the
    mean edit distance between two of them, None where there are fewer than two.
    """
    values = _values(target, x)
    best, first = np.unique(x, axis=0, return_index=True)
    order = np.argsort(-values[first], kind="stable")[:_TOP]
    far = strings.mean_distance(best[order]) if len(order) > 1 else None
    return {
        "mean_value": float(values.mean()),
        "expected_value": target.expected_value,
        "top_value": float(values[first][order].mean()),
        "top_distance": far,
    }


def _mean_value(env: EnumerableEnvironment, target: Target, law: np.ndarray) -> Verdict:
    """The exact mean of the value of strings that have one."""
    if not isinstance(target, StringTarget):
        return {}
    return {"mean_value": float(law @ _values(target, exact.terminal_samples(env)))}


def _values(target: StringTarget, x: np.ndarray) -> Float[np.ndarray, " n"]:
    return np.maximum(np.asarray(target.value(x), np.float64), LEAST_VALUE)


def weight_statistics(log_weight: Float[np.ndarray, " n"]) -> Verdict:
    """What the log importance weights of forward draws say; where one is not finite, nothing."""
    names = ("elbo", "elbo_low", "elbo_high", "elbo_standard_error", "log_z_estimate", "log_z_low")
    verdict: Verdict = dict.fromkeys((*names, "log_z_high", "ess", "k_hat"), math.nan)
    if len(log_weight) < 2 or not np.all(np.isfinite(log_weight)):
        return verdict
    lower, log_z = weights.elbo(log_weight), weights.log_z(log_weight)
    return {
        "elbo": lower.value,
        "elbo_low": lower.low,
        "elbo_high": lower.high,
        "elbo_standard_error": lower.standard_error,
        "log_z_estimate": log_z.value,
        "log_z_low": log_z.low,
        "log_z_high": log_z.high,
        "ess": weights.ess_share(log_weight),
        "k_hat": weights.k_hat(log_weight),
    }


def sample_statistics(
    sampler: Sampler,
    target: SamplableTarget,
    *,
    seed: int = 0,
    n: int = 10_000,
    distances: bool = True,
) -> Verdict:
    """What up to 10,000 exact samples of the target say: `eubo` with the ends of its 90 % interval;
    the mean `log_likelihood` of 1,000 of them; with up to 1,000 modes the `entropic_mode_coverage`
    of the draws and their `mode_divergence` from the target's frequencies; and if asked for the
    distances of `w2_draws` draws from as many samples, `w2`, `sliced_w2` and `mmd_squared`, beside
    `w2_floor`, the distance of two sets of samples.
    """
    keys = jax.random.split(_keys(seed)[2], 5)
    backward = empirical.backward_draws(sampler, target, keys[0], min(n, _SCORED_DRAWS))
    upper = weights.eubo(np.asarray(backward.log_weight))
    likelihood = empirical.log_likelihoods(sampler, target, keys[1], min(n, _LIKELIHOOD_DRAWS))
    verdict: Verdict = {
        "eubo": upper.value,
        "eubo_low": upper.low,
        "eubo_high": upper.high,
        "log_likelihood": float(likelihood.mean()),
    }
    x = empirical.objects(sampler, keys[2], min(n, _SCORED_DRAWS))
    if target.num_modes is not None and target.num_modes <= _LISTED_MODES:
        drawn, wanted = (
            coverage.mode_frequencies(
                np.asarray(empirical.mode_indices(target, points)), target.num_modes
            )
            for points in (x, backward.x)
        )
        verdict["entropic_mode_coverage"] = coverage.entropic_mode_coverage(drawn)
        verdict["mode_divergence"] = coverage.mode_divergence(drawn, wanted)
    if distances:
        verdict |= _distances(sampler, target, x, backward.x, keys[3], keys[4])
    return verdict


def _distances(sampler, target, x, samples, sample_key, direction_key) -> Verdict:
    n = min(len(x), len(samples), _ASSIGNED_DRAWS)
    x, samples = np.asarray(x[:n], np.float64), np.asarray(samples[:n], np.float64)
    others = empirical.backward_draws(sampler, target, sample_key, n).x
    return {
        "w2": distance.wasserstein2(x, samples),
        "w2_floor": distance.wasserstein2(np.asarray(others, np.float64), samples),
        "w2_draws": n,
        "sliced_w2": distance.sliced_wasserstein2(x, samples, direction_key),
        "mmd_squared": distance.mmd_squared(x, samples),
    }


def _keys(seed: int):
    """Keys of an evaluation, apart from those that training makes of the same seed."""
    return jax.random.split(jax.random.fold_in(jax.random.key(seed), _EVALUATION), 4)


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
