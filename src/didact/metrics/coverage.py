r"""Which modes a sampler reaches, and with which weights.

`mode` [n] is the mode of each draw as `Target.mode_index` gives it, -1 for none; `frequencies`
[num_modes] the share of all draws that each mode has.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Array, Float, Float64, Int
from scipy.special import entr, gammaincinv, ndtri, rel_entr

from .weights import Estimate

Modes = Int[Array | np.ndarray, " n"]
Shares = Float[Array | np.ndarray, " modes"]
Reference = Float[Array | np.ndarray, " reference"]


@dataclasses.dataclass(frozen=True)
class ModeCoverage:
    """How many modes were drawn at least once, and which share of all modes that is."""

    reached: int
    share: float


def mode_frequencies(mode: Modes, num_modes: int) -> Float64[np.ndarray, " modes"]:
    """Share of the draws in each mode. They sum to the share of draws that are in any mode.

    **Errors:** `ValueError` where there is no draw, or an index is not in -1 … num_modes - 1.
    """
    counts = _counts(mode, num_modes)
    return counts / len(mode)


def mode_coverage(mode: Modes, num_modes: int) -> ModeCoverage:
    """Modes drawn at least once.

    It grows with the number of draws: compare with exact draws of the same number.

    **Errors:** as for `mode_frequencies`.
    """
    reached = int(np.count_nonzero(_counts(mode, num_modes)))
    return ModeCoverage(reached, reached / num_modes)


def entropic_mode_coverage(frequencies: Shares) -> float:
    r"""Entropy of the modes, $-\sum_k f_k \log f_k / \log K$: 0 for one mode, 1 for K equal ones.

    The f are first divided by their sum, so draws in no mode do not count. For targets whose
    modes have equal weights; otherwise 1 is not the aim, see `mode_divergence`. With one mode, or
    where no draw is in a mode, the value is 1 or 0.

    **Errors:** `ValueError` for negative frequencies, or none.

    **Reference:** Blessing et al., "Beyond ELBOs: A Large-Scale Evaluation of Variational Methods
    for Sampling", ICML 2024.
    """
    f = _nonnegative("frequencies", frequencies)
    if f.sum() == 0:
        return 0.0
    if len(f) == 1:
        return 1.0
    return min(1.0, float(entr(f / f.sum()).sum()) / math.log(len(f)))


def mode_divergence(frequencies: Shares, reference: Reference) -> float:
    """Jensen–Shannon divergence of the modes' frequencies from their weights under the target, in
    bits: 0 where they agree, 1 where they share no mode.

    Both are first divided by their sums, so draws in no mode do not count; where no draw is in a
    mode the value is 1. It takes the place of `entropic_mode_coverage` where the weights are not
    uniform.

    **Errors:** `ValueError` for negative entries, or a reference without mass.
    """
    f, p = _pair(frequencies, reference)
    if p.sum() == 0:
        raise ValueError("reference has no mass: give the modes' weights under the target.")
    if f.sum() == 0:
        return 1.0
    f, p = f / f.sum(), p / p.sum()
    middle = (f + p) / 2
    divergence = float((rel_entr(f, middle) + rel_entr(p, middle)).sum()) / 2
    return min(1.0, max(0.0, divergence / math.log(2)))


def mode_weight_errors(frequencies: Shares, reference: Reference) -> Float64[np.ndarray, " modes"]:
    """Relative error of each mode's weight, frequency / reference - 1: -1 for a mode that was
    never drawn. With n exact draws its standard deviation is sqrt((1 - p)/(n p)).

    Frequencies are not rescaled: draws in no mode are missing from the modes.

    **Errors:** `ValueError` where a reference weight is not positive.
    """
    f, p = _pair(frequencies, reference)
    if not np.all(p > 0):
        raise ValueError("A relative error needs positive reference weights: leave out the rest.")
    return f / p - 1


def missing_mass(counts: Int[Array | np.ndarray, " seen"], level: float = 0.9) -> Estimate:
    r"""Good–Turing estimate of the probability of everything that was never drawn.

    With n draws, of which $N_1$ values were seen once and $N_2$ twice, the estimate is $N_1/n$
    and its standard error $\sqrt{N_1 + 2 N_2 - N_1^2/n}/n$ (Esty's limit theorem). The interval
    is Esty's, its upper end at least the exact Poisson one of $N_1$, which is $3/n$ at 90 % where
    nothing was seen once. It needs no knowledge of how many values there are, and it holds for
    the sampler's own law: a mode that the sampler cannot reach is not missing from that.

    **Arguments:** `counts` of the values; zeros do not matter. `level` of the interval.

    **Errors:** `ValueError` for negative counts, for none, or for a level outside (0, 1).

    **References:** Good, 1953; Esty, "A normal limit law for a nonparametric estimator of the
    coverage of a random sample", 1983.
    """
    if not 0 < level < 1:
        raise ValueError(f"level = {level}: give a number between 0 and 1, such as 0.9.")
    counts = np.asarray(counts)
    n = int(counts.sum())
    if n < 1 or counts.min() < 0:
        raise ValueError("counts must not be negative, and one of them positive.")
    once, twice = int(np.sum(counts == 1)), int(np.sum(counts == 2))
    error = math.sqrt(max(0.0, once + 2 * twice - once**2 / n)) / n
    half = float(ndtri((1 + level) / 2)) * error
    poisson = float(gammaincinv(once + 1, (1 + level) / 2)) / n
    value = once / n
    return Estimate(
        value, max(0.0, value - half), min(1.0, max(value + half, poisson)), error, level
    )


def _counts(mode: Modes, num_modes: int) -> Int[np.ndarray, " modes"]:
    mode = np.asarray(mode)
    if len(mode) == 0:
        raise ValueError("There are no draws: draw at least one.")
    if mode.min() < -1 or mode.max() >= num_modes:
        raise ValueError(
            f"Mode indices run from {mode.min()} to {mode.max()}: with {num_modes} modes they "
            f"must lie in -1 … {num_modes - 1}."
        )
    return np.bincount(mode[mode >= 0], minlength=num_modes)


def _nonnegative(name: str, shares: Shares) -> Float64[np.ndarray, " modes"]:
    shares = np.asarray(shares, np.float64)
    if len(shares) == 0 or not np.all(shares >= 0) or not np.all(np.isfinite(shares)):
        raise ValueError(f"{name} must be finite and not negative, one for each mode.")
    return shares


def _pair(
    frequencies: Shares, reference: Reference
) -> tuple[Float64[np.ndarray, " modes"], Float64[np.ndarray, " modes"]]:
    f, p = _nonnegative("frequencies", frequencies), _nonnegative("reference", reference)
    if len(f) != len(p):
        raise ValueError(f"{len(f)} frequencies for {len(p)} modes: give one for each mode.")
    return f, p


__all__ = [
    "ModeCoverage",
    "entropic_mode_coverage",
    "missing_mass",
    "mode_coverage",
    "mode_divergence",
    "mode_frequencies",
    "mode_weight_errors",
]
