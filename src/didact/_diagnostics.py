"""What a report shows of one Student beside its verdict: weights, and a few draws."""

from typing import Any

import jax
import numpy as np

from ._sampler import Sampler
from ._snapshots import View
from ._types import SamplableTarget, Target
from .metrics import empirical

MAX_WEIGHTS = 10_000
MAX_POINTS = 2000
_ALL_COORDINATES = 16
_DIAGNOSTICS = 0x64696167


def diagnose(sampler: Sampler, target: Target, view: View, *, seed: int, n: int) -> dict[str, Any]:
    """Log weights of up to 10,000 draws, and up to 2,000 of the draws themselves.

    **Returns:** `log_weight` [n] of forward trajectories; `x` [m, c] of the first m of them, in
    the `coordinates` [c]: all, or of many those in the view's pairs. Where the target can be
    sampled exactly, `target_x` [m, c], and `backward_log_weight` [n] of trajectories that were
    drawn backwards from exact samples.
    """
    # Apart from the keys that training makes of the same seed.
    key = jax.random.fold_in(jax.random.key(seed), _DIAGNOSTICS)
    forward_key, backward_key = jax.random.split(key)
    n = min(n, MAX_WEIGHTS)
    drawn = empirical.draws(sampler, target, forward_key, n)
    dim = drawn.x.shape[1]
    coordinates = np.unique(view.pairs) if dim > _ALL_COORDINATES else np.arange(dim)
    found = {
        "seed": np.asarray(seed),
        "coordinates": coordinates.astype(np.int32),
        "x": np.asarray(drawn.x)[:MAX_POINTS, coordinates],
        "log_weight": np.asarray(drawn.log_weight),
    }
    if isinstance(target, SamplableTarget):
        backward = empirical.backward_draws(sampler, target, backward_key, n)
        found["target_x"] = np.asarray(backward.x)[:MAX_POINTS, coordinates]
        found["backward_log_weight"] = np.asarray(backward.log_weight)
    return found
