"""Means over seeds, and differences paired by seed, with intervals from Student's t."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95


class Spread(NamedTuple):
    """Mean of n values and its standard error, NaN where there is one value."""

    mean: float
    error: float
    n: int


class Difference(NamedTuple):
    """Mean of n paired differences, and the ends of its interval, NaN where there is one pair."""

    mean: float
    low: float
    high: float
    n: int


def spread(values: Iterable[float]) -> Spread | None:
    """Mean x̄ and standard error s/√n of the finite values, s² with n − 1; None without any."""
    known = np.array([value for value in values if math.isfinite(value)])
    if not known.size:
        return None
    error = known.std(ddof=1) / math.sqrt(known.size) if known.size > 1 else math.nan
    return Spread(float(known.mean()), float(error), known.size)


def paired(
    first: Mapping[int, float], second: Mapping[int, float], *, level: float = LEVEL
) -> Difference | None:
    """The first less the second, over the seeds at which both are finite.

    d̄ ± t s_d/√n, with t the (1 + level)/2 quantile of Student's t with n − 1 degrees of freedom.
    None where no seed has both.
    """
    seeds = sorted(first.keys() & second.keys())
    pairs: Sequence[float] = [first[seed] - second[seed] for seed in seeds]
    found = spread(pairs)
    if found is None:
        return None
    if found.n == 1:
        return Difference(found.mean, math.nan, math.nan, 1)
    half = float(stats.t.ppf((1 + level) / 2, found.n - 1)) * found.error
    return Difference(found.mean, found.mean - half, found.mean + half, found.n)
