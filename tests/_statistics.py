"""Goodness of fit of draws, with an error rate that is stated.

`ERROR_RATE` is the chance that one call of `fits` rejects a right sampler. Keys are fixed, so a
test that passes once passes always; the rate says how seldom a new key would raise a false alarm.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

ERROR_RATE = 1e-4
LEAST_EXPECTED = 8.0


def p_value(counts: ArrayLike, probabilities: ArrayLike) -> float:
    """Pearson's χ² test of counts against probabilities that sum to 1.

    Cells with fewer than `LEAST_EXPECTED` expected counts are taken together, the smallest
    first, so that the χ² law holds. A count where the probability is 0 has p-value 0.
    """
    counts, probabilities = np.asarray(counts, np.float64), np.asarray(probabilities, np.float64)
    assert counts.shape == probabilities.shape
    np.testing.assert_allclose(probabilities.sum(), 1, atol=1e-5)
    if np.any(counts[probabilities == 0] > 0):
        return 0.0
    if np.count_nonzero(probabilities) == 1:
        return 1.0
    order = np.argsort(probabilities)
    expected = probabilities[order] * counts.sum()
    # Each group closes as soon as it expects enough; what is left over joins the last.
    group, total = np.zeros(len(order), int), 0.0
    for i, value in enumerate(expected):
        group[i] = group[i - 1] + (total >= LEAST_EXPECTED) if i else 0
        total = value if i and group[i] != group[i - 1] else total + value
    observed = np.bincount(group, counts[order])
    expected = np.bincount(group, expected)
    if len(expected) > 1 and expected[-1] < LEAST_EXPECTED:
        observed = np.append(observed[:-2], observed[-2:].sum())
        expected = np.append(expected[:-2], expected[-2:].sum())
    assert len(expected) > 1, "too few draws for a test"
    statistic = np.sum((observed - expected) ** 2 / expected)
    return float(stats.chi2.sf(statistic, len(expected) - 1))


def fits(counts: ArrayLike, probabilities: ArrayLike) -> bool:
    """Whether draws agree with a law, at `ERROR_RATE`."""
    return p_value(counts, probabilities) > ERROR_RATE


def rejects(counts: ArrayLike, probabilities: ArrayLike) -> bool:
    """Whether draws are shown to come from another law, beyond any bad luck of the key."""
    return p_value(counts, probabilities) < ERROR_RATE**2
