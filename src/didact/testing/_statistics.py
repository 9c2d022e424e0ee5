"""Goodness of fit of draws, at a stated error rate."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Float64, Int, PRNGKeyArray
from numpy.typing import ArrayLike

ERROR_RATE = 1e-7
"""The chance that one statistical law is found broken by an object that obeys it."""
_FEW = 8


def generator(key: PRNGKeyArray) -> np.random.Generator:
    """Random numbers of the host: drawn there, they are no part of what is compiled."""
    return np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))


def chi_square(counts: ArrayLike, probabilities: ArrayLike, least_expected: float = 20.0) -> float:
    """The p-value of Pearson's χ² test of counts against probabilities that sum to 1.

    Cells with fewer expected counts than `least_expected` are taken together, the smallest
    first, so that the χ² law holds; where no more than two are left, the test is that of a
    binomial count, since far out the χ² law does not hold for one small cell. A count where the
    probability is 0 has p-value 0.
    """
    from scipy import stats

    counts, probabilities = np.asarray(counts, np.float64), np.asarray(probabilities, np.float64)
    assert counts.shape == probabilities.shape
    np.testing.assert_allclose(probabilities.sum(), 1, atol=1e-5)
    if np.any(counts[probabilities == 0] > 0):
        return 0.0
    if np.count_nonzero(probabilities) == 1:
        return 1.0
    observed, expected = _grouped(counts, probabilities, least_expected)
    if len(expected) <= 2:
        top = int(np.argmax(probabilities))
        chance = min(float(probabilities[top]), 1.0)
        return float(stats.binomtest(round(counts[top]), round(counts.sum()), chance).pvalue)
    statistic = np.sum((observed - expected) ** 2 / expected)
    return float(stats.chi2.sf(statistic, len(expected) - 1))


def chance_of_count(count: int, total: int, share: float, error: float) -> float:
    """The p-value of a count of `total` draws, each of which counts with a probability that is
    known as `share`, up to a normal error.
    """
    from scipy import stats

    z = np.linspace(-8, 8, 65)
    probability = np.clip(share + error * z, 0, 1)
    tails = [
        stats.binom.cdf(count, total, probability),
        stats.binom.sf(count - 1, total, probability),
    ]
    few, many = (float(np.average(tail, weights=stats.norm.pdf(z))) for tail in tails)
    return min(2 * min(few, many), 1.0)


def _grouped(
    counts: Float64[np.ndarray, " cells"],
    probabilities: Float64[np.ndarray, " cells"],
    least_expected: float,
) -> tuple[Float64[np.ndarray, " groups"], Float64[np.ndarray, " groups"]]:
    order = np.argsort(probabilities)
    expected = probabilities[order] * counts.sum()
    # Each group closes as soon as it expects enough; what is left over joins the last.
    group, total = np.zeros(len(order), int), 0.0
    for i, value in enumerate(expected):
        group[i] = group[i - 1] + (total >= least_expected) if i else 0
        total = value if i and group[i] != group[i - 1] else total + value
    observed = np.bincount(group, counts[order])
    expected = np.bincount(group, expected)
    if len(expected) > 1 and expected[-1] < least_expected:
        observed = np.append(observed[:-2], observed[-2:].sum())
        expected = np.append(expected[:-2], expected[-2:].sum())
    return observed, expected


def fault_of_places(
    u: Float[np.ndarray, " n"],
    coordinate: Int[np.ndarray, " n"],
    x: Float[np.ndarray, "n dim"],
) -> str | None:
    """Why vectors x have not the density that says which share u of it, along one coordinate of
    each, lies below them: these are uniform, and independent of the other coordinates.
    """
    groups = np.unique(coordinate)
    fault = fault_of_uniforms(u, ERROR_RATE / 3)
    if fault is not None:
        return fault
    if len(groups) <= _FEW:
        for i in groups:
            fault = fault_of_uniforms(u[coordinate == i], ERROR_RATE / 3 / len(groups))
            if fault is not None:
                return f"along coordinate {i} {fault}"
    return _fault_of_dependence(u, coordinate, x) if len(groups) > 1 else None


def _fault_of_dependence(u: Any, coordinate: Any, x: Any) -> str | None:
    """By correlations of shares, and their square distances from 1/2, with those of the ranks of
    the next coordinate.
    """
    from scipy import stats

    groups = np.unique(coordinate)
    following = groups[(np.searchsorted(groups, coordinate) + 1) % len(groups)]
    ranks = stats.rankdata(x, axis=0) / len(x)
    v = np.take_along_axis(ranks, following[:, None], axis=1)[:, 0]
    limit = stats.norm.isf(ERROR_RATE / 3 / 4 / 2)
    for one in (u - u.mean(), (u - 0.5) ** 2 - 1 / 12):
        for other in (v - v.mean(), (v - 0.5) ** 2 - 1 / 12):
            z = np.sum(one * other) / np.sqrt(len(u)) / (np.std(one) * np.std(other) + 1e-12)
            if abs(z) > limit:
                return (
                    f"they depend on the other coordinates, by {abs(z):.1f} standard deviations "
                    "of a correlation"
                )
    return None


def fault_of_uniforms(u: Float[np.ndarray, " n"], rate: float = ERROR_RATE) -> str | None:
    """Why numbers are not independent uniform variates on [0, 1], at an error rate.

    By their mean, by their mean square distance from 1/2 (a scale that is wrong by r shows in it
    with 1.2 sqrt(n) |log r| standard deviations), and by the test of Kolmogorov and Smirnov.
    """
    from scipy import stats

    u, number = np.asarray(u, np.float64), len(u)
    rate = rate / 3
    limit = stats.norm.isf(rate / 2)
    shift = np.sqrt(12 * number) * (u.mean() - 0.5)
    if abs(shift) > limit:
        where = "high" if shift > 0 else "low"
        return f"they lie too {where}, by {abs(shift):.1f} standard deviations"
    square = np.mean((u - 0.5) ** 2) - 1 / 12
    spread = np.sqrt(180 * number) * square
    if abs(spread) > limit:
        how = "widely" if spread > 0 else "narrowly"
        return f"they are spread too {how}, by {abs(spread):.1f} standard deviations"
    p = stats.kstest(u, "uniform").pvalue
    return None if p > rate else f"Kolmogorov and Smirnov's test has the p-value {p:.1e}"


def places(law: Float64[np.ndarray, "n A"], drawn: np.ndarray, random: np.random.Generator):
    """Of numbers drawn from distributions over 0 ... A-1, their places in these: uniform variates
    on [0, 1] if they have these laws.
    """
    action = np.clip(drawn, 0, law.shape[1] - 1)[:, None]
    own = np.take_along_axis(law, action, axis=1)[:, 0]
    below = np.take_along_axis(np.cumsum(law, axis=1), action, axis=1)[:, 0] - own
    return np.clip(below + random.uniform(size=len(own)) * own, 0, 1)
