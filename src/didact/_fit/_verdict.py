"""Whether a fit can be relied upon, and why not."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float64

from ..metrics import weights
from ..metrics.weights import Estimate
from ._modes import Modes

WIDEST_INTERVAL = 0.3
"""The widest 90 % interval of log Z that counts as known, in nats."""
LEAST_MASS = 0.02
"""The share of the mass below which a hill that the sampler misses is let pass."""
LEAST_ESS = 0.02
"""The least effective share of the draws."""


@dataclasses.dataclass(frozen=True, eq=False)
class Verdict:
    """`reliable`, and the `reason`: what was checked, or the first thing that is wrong."""

    reliable: bool
    reason: str
    log_z: Estimate
    elbo: Estimate
    ess: float
    k_hat: float
    by_seed: tuple[Estimate, ...]


def judge(log_weight: Float64[np.ndarray, "seeds n"], modes: Modes | None, cut: str) -> Verdict:
    """Judge independent samplers by the log weights of their draws, by each other, and by the
    hills that a search from far out found.

    **Arguments:** `modes`: None if they were not looked for; `cut`: why training ended before its
    rounds did, or nothing.
    """
    pooled = log_weight.reshape(-1)
    log_z, elbo = weights.log_z(pooled), weights.elbo(pooled)
    by_seed = tuple(weights.log_z(one) for one in log_weight)
    k_hat, share = weights.k_hat(pooled), weights.ess_share(pooled)
    limit = weights.k_threshold(len(pooled))
    worst = max([k_hat, *(weights.k_hat(one) for one in log_weight)], key=_nan_last)
    width = log_z.high - log_z.low
    gap = max(one.value for one in by_seed) - min(one.value for one in by_seed)
    noise = math.sqrt(sum(one.standard_error**2 for one in by_seed))
    missed = [] if modes is None else modes.missed(LEAST_MASS).tolist()
    heavy = f"the Pareto k-hat of the importance weights is {worst:.2f}, above {limit:.2f}"
    if math.isinf(worst):
        heavy = (
            "a few importance weights outweigh all others, too few to tell how heavy their tail is"
        )
    problems = {
        f"training was cut off: {cut}": bool(cut),
        f"{heavy}: too heavy for an estimate": not worst <= limit,
        f"only {100 * share:.1f} % of the draws are effective": share < LEAST_ESS,
        f"the 90 % interval of log Z is {width:.2f} nats wide": not width <= WIDEST_INTERVAL,
        f"independent samplers disagree: their log Z differ by {gap:.2f} nats": gap
        > max(3 * noise, 0.05),
    }
    for problem, found in problems.items():
        if found:
            return Verdict(False, f"{problem}.", log_z, elbo, share, k_hat, by_seed)
    if missed:
        assert modes is not None
        reason = _missed(modes, missed)
        return Verdict(False, reason, log_z, elbo, share, k_hat, by_seed)
    reason = f"k-hat is {k_hat:.2f}, the 90 % interval of log Z is {width:.2f} nats wide, " + (
        f"{len(by_seed)} independent samplers agree to {gap:.2f} nats"
        if len(by_seed) > 1
        else "agreement was not checked, there being one sampler"
    )
    if modes is not None:
        reason += ", and a search from far out found no mode that they miss"
    return Verdict(True, f"{reason}.", log_z, elbo, share, k_hat, by_seed)


def _nan_last(value: float) -> float:
    """NaN, a tail of which too little was seen, counts as the worst."""
    return math.inf if math.isnan(value) else value


def _missed(modes: Modes, missed: list[int]) -> str:
    known = [k for k in missed if not math.isnan(modes.log_mass[k])]
    if not known:
        return "A search from far out found a mode of unknown mass that the samplers do not draw."
    k = max(known, key=lambda k: modes.log_mass[k])
    mass = 100 * math.exp(min(modes.log_mass[k], 0.0))
    return (
        f"A search from far out found a mode with about {mass:.0f} % of the mass that the sampler "
        f"draws with {100 * modes.share[k]:.1f} % of its weight"
        + (f", and {len(missed) - 1} more" if len(missed) > 1 else "")
        + "."
    )
