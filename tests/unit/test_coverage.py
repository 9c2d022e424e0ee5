"""Mode frequencies, what is summed up from them, and the mass that was never drawn."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from didact.metrics.coverage import (
    ModeCoverage,
    entropic_mode_coverage,
    missing_mass,
    mode_coverage,
    mode_divergence,
    mode_frequencies,
    mode_weight_errors,
)

MODE = np.array([0, 0, 2, -1, 2, 0, -1, -1], np.int32)
UNIFORM = np.full(4, 0.25)


def test_frequencies_are_shares_of_all_draws():
    np.testing.assert_allclose(mode_frequencies(MODE, 4), [3 / 8, 0, 2 / 8, 0])
    assert mode_coverage(MODE, 4) == ModeCoverage(reached=2, share=0.5)
    assert mode_coverage(MODE[3:4], 4) == ModeCoverage(reached=0, share=0.0)


def test_entropic_coverage_counts_equal_modes():
    """m equal modes of K have log m / log K, whatever share of the draws is in no mode."""
    for m in (1, 2, 3, 4):
        f = np.where(np.arange(4) < m, 1 / m, 0.0)
        assert entropic_mode_coverage(f) == pytest.approx(math.log(m) / math.log(4), abs=1e-12)
        assert entropic_mode_coverage(f / 3) == pytest.approx(entropic_mode_coverage(f))
    assert entropic_mode_coverage(np.zeros(4)) == 0
    assert entropic_mode_coverage(np.ones(1)) == 1


def test_divergence_of_mode_weights():
    assert mode_divergence(UNIFORM / 2, UNIFORM) == pytest.approx(0, abs=1e-12)
    apart = np.array([1.0, 0.0]), np.array([0.0, 2.0])
    assert mode_divergence(*apart) == 1
    assert mode_divergence(np.zeros(4), UNIFORM) == 1
    # Two equal modes, one of which is held: H(3/4) - H(1/2)/2 bits.
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    one, both = np.array([1.0, 0.0]), np.array([0.5, 0.5])
    assert mode_divergence(one, both) == pytest.approx(entropy - 0.5)
    assert mode_divergence(both, one) == pytest.approx(mode_divergence(one, both))


def test_weight_errors_are_relative():
    reference = np.array([0.5, 0.25, 0.25])
    errors = mode_weight_errors(np.array([0.25, 0.5, 0.0]), reference)
    np.testing.assert_allclose(errors, [-0.5, 1, -1])


def test_good_turing_by_hand():
    estimate = missing_mass(np.array([1, 1, 1, 2, 5, 0]))
    assert estimate.value == pytest.approx(3 / 10)
    assert estimate.standard_error == pytest.approx(math.sqrt(3 + 2 - 0.9) / 10)
    # Nothing seen once: "the rule of three" at 95 % one-sided.
    nothing = missing_mass(np.full(4, 25))
    assert (nothing.value, nothing.low) == (0, 0)
    assert nothing.high == pytest.approx(-math.log(0.05) / 100)
    assert missing_mass(np.ones(5, np.int32)).high == 1


def test_missing_mass_is_held_as_often_as_said():
    """Chance of a false alarm: 1e-4, if 87 to 93 % is right."""
    fits, n = 500, 1000
    p = 1 / np.arange(1, 2001)
    p /= p.sum()
    held = held_wrongly = 0
    for counts in np.random.default_rng(0).multinomial(n, p, fits):
        estimate, missing = missing_mass(counts), p[counts == 0].sum()
        held += estimate.low <= missing <= estimate.high
        # Wrong in a stated way: values that were drawn once, taken for missing too.
        held_wrongly += estimate.low <= p[counts <= 1].sum() <= estimate.high
    lowest = binom.ppf(5e-5, fits, 0.87)
    assert lowest <= held <= binom.ppf(1 - 5e-5, fits, 0.93)
    assert held_wrongly < lowest


def test_errors_name_the_remedy():
    with pytest.raises(ValueError, match="must lie in"):
        mode_frequencies(np.array([4]), 4)
    with pytest.raises(ValueError, match="must lie in"):
        mode_coverage(np.array([-2]), 4)
    with pytest.raises(ValueError, match="at least one"):
        mode_frequencies(np.array([], np.int32), 4)
    with pytest.raises(ValueError, match="not negative"):
        entropic_mode_coverage(-UNIFORM)
    with pytest.raises(ValueError, match="one for each mode"):
        mode_divergence(UNIFORM[:1], UNIFORM)
    with pytest.raises(ValueError, match="no mass"):
        mode_divergence(UNIFORM, 0 * UNIFORM)
    with pytest.raises(ValueError, match="leave out the rest"):
        mode_weight_errors(UNIFORM, np.array([0.0, 0.5, 0.25, 0.25]))
    with pytest.raises(ValueError, match="one of them positive"):
        missing_mass(np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="between 0 and 1"):
        missing_mass(np.ones(3, np.int32), level=1.0)
