"""Whether a reward is the one that a run was made with, told by what it computes."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _train
from ._experiment import Experiment
from ._types import EnumerableEnvironment
from .metrics import empirical, exact
from .targets import HostReward

_GROUPS = 256
_FEWEST_PROBED, _MOST_PROBED, _PROBED_NUMBERS = 16, 1024, 2**13


def probe(experiment: Experiment, seeds: Sequence[int]) -> dict[str, Any]:
    """What tells whether the user's own functions, which are stored by their names, are still the
    same: log R of objects that are spread out, and where all objects can be listed log Z and
    checksums of log R over groups of them (`_checksums`). Of a function outside JAX, which may
    take long, its version.
    """
    if isinstance(experiment.target, HostReward):
        return {"version": experiment.target.version}
    x = _spread_out(experiment, seeds)
    log_reward = np.asarray(jax.vmap(experiment.target.log_reward)(x))
    return {
        "x": [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(x)],
        "log_reward": log_reward.tolist(),
        **_checksums(experiment),
    }


def _spread_out(experiment: Experiment, seeds: Sequence[int]) -> Any:
    """Objects [n, ...] of all terminal states' numbers evenly, or else draws of the untrained
    Student; fewer where an object holds many numbers.
    """
    env = experiment.environment
    like = jax.tree.leaves(jax.eval_shape(lambda: env.sample_of(env.initial_state())))
    size = sum(max(leaf.size, 1) for leaf in like)
    n = int(np.clip(_PROBED_NUMBERS // size, _FEWEST_PROBED, _MOST_PROBED))
    if isinstance(env, EnumerableEnvironment) and exact.num_states(env) < 2**31:
        n = min(n, env.num_terminal_states)
        number = env.num_internal + np.linspace(0, env.num_terminal_states - 1, n).astype(np.int64)
        return jax.vmap(lambda i: env.sample_of(env.state_at(i)))(jnp.asarray(number, jnp.int32))
    student = _train.init(experiment, seeds[:1]).student()
    return empirical.objects(student, jax.random.key(0), n, batch_size=n)


def _checksums(experiment: Experiment) -> dict[str, Any]:
    """Of all objects, where they can be listed: log Z, and for each of up to 256 groups of
    neighbours the sum of log R with random signs, and the root of the sum of its squares.

    A change of log R at any object changes the sum of its group, whereas the rounding of another
    machine, which would change a hash, changes it by far less than that root.
    """
    env = experiment.environment
    if exact.refusal(env) is not None:
        return {}
    assert isinstance(env, EnumerableEnvironment)
    try:
        truth = exact.truth(env, experiment.target)
    except FloatingPointError:  # training says so, where it is of importance
        return {}
    log_reward = truth.log_p + truth.log_z
    signs = np.random.default_rng(0).choice([-1.0, 1.0], len(log_reward))
    starts = _group_starts(len(log_reward))
    return {
        "log_z": truth.log_z,
        "sums": np.add.reduceat(signs * log_reward, starts).tolist(),
        "norms": np.sqrt(np.add.reduceat(log_reward**2, starts)).tolist(),
    }


def _group_starts(n: int) -> np.ndarray:
    return np.unique(np.linspace(0, n, min(n, _GROUPS), endpoint=False).astype(np.int64))


def differing_reward(stored: Any, experiment: Experiment) -> str:
    """Where log R is not what it was when the run was made; empty where it is."""
    if stored is None:
        return ""
    if isinstance(experiment.target, HostReward):
        return differing_version(stored, experiment.target)
    env = experiment.environment
    like, structure = jax.tree.flatten(jax.eval_shape(lambda: env.sample_of(env.initial_state())))
    try:
        leaves = [
            jnp.asarray(values, leaf.dtype).reshape(-1, *leaf.shape)
            for values, leaf in zip(stored["x"], like, strict=True)
        ]
        then = np.asarray(stored["log_reward"], np.float64)
        sums, norms = (np.asarray(stored.get(key, ()), np.float64) for key in ("sums", "norms"))
    except (TypeError, ValueError, KeyError) as error:
        return f"its probe does not fit: {error}"
    now = np.asarray(
        jax.vmap(experiment.target.log_reward)(jax.tree.unflatten(structure, leaves)), np.float64
    )
    # A configuration holds no infinite numbers: there they are null.
    now = np.where(np.isfinite(now), now, np.nan)
    same = np.isclose(then, now, rtol=1e-4, atol=1e-4, equal_nan=True)
    if not same.all():
        at = int(np.argmin(same))
        x = [np.asarray(leaf[at]).tolist() for leaf in leaves]
        return f"log R of {x[0] if len(x) == 1 else x} is {then[at]:.6g} there, {now[at]:.6g} here"
    return _differing_checksums(stored.get("log_z"), sums, norms, experiment) if sums.size else ""


def differing_version(stored: Any, target: HostReward) -> str:
    """How the program of a reward outside JAX differs from that of a probe; empty if it is it."""
    then = stored.get("version") if isinstance(stored, dict) else None
    if then == target.version:
        return ""
    return "the program of its reward function, or its cache_key, is another than there"


def _differing_checksums(
    log_z: Any, sums: np.ndarray, norms: np.ndarray, experiment: Experiment
) -> str:
    """The first group of objects in which log R is not what it was; empty if there is none."""
    now = _checksums(experiment)
    if not now:
        return "log R is finite everywhere there, not here"
    if not sums.shape == norms.shape == np.shape(now["sums"]):
        return "its probe does not fit: of another number of objects"
    env = experiment.environment
    assert isinstance(env, EnumerableEnvironment)  # as there are checksums
    starts = _group_starts(env.num_terminal_states)
    sizes = np.diff(starts, append=env.num_terminal_states)
    allowed = 1e-4 * (np.maximum(norms, now["norms"]) + np.sqrt(sizes))
    same = np.abs(sums - now["sums"]) <= allowed
    if same.all():
        return ""
    at = int(np.argmin(same))
    x = exact.terminal_samples(env)
    ends = (starts[at], starts[at] + sizes[at] - 1)
    first, last = (exact.as_lists(x, int(i)) for i in ends)
    where = f"of {first}" if sizes[at] == 1 else f"somewhere from {first} to {last}"
    text = f"log R {where} is another than there"
    if isinstance(log_z, float) and abs(log_z - now["log_z"]) > 1e-4:
        text += f"; log Z is {log_z:.6g} there, {now['log_z']:.6g} here"
    return text
