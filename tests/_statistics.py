"""Goodness of fit of draws, with an error rate that is stated.

`ERROR_RATE` is the chance that one call of `fits` rejects a right sampler. Keys are fixed, so a
test that passes once passes always; the rate says how seldom a new key would raise a false alarm.
"""

from numpy.typing import ArrayLike

from didact.testing._statistics import chi_square

ERROR_RATE = 1e-4
LEAST_EXPECTED = 8.0


def fits(counts: ArrayLike, probabilities: ArrayLike) -> bool:
    """Whether draws agree with a law, at `ERROR_RATE`."""
    return chi_square(counts, probabilities, LEAST_EXPECTED) > ERROR_RATE


def rejects(counts: ArrayLike, probabilities: ArrayLike) -> bool:
    """Whether draws are shown to come from another law, beyond any bad luck of the key."""
    return chi_square(counts, probabilities, LEAST_EXPECTED) < ERROR_RATE**2
