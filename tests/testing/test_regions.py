"""The shares of a density in regions, where they are known otherwise."""

import numpy as np
import pytest
from scipy import stats

from didact.testing._regions import regions_of, share_of
from didact.testing._statistics import chance_of_count

DIM, NUMBER = 3, 4096


def normal(x):
    """The standard normal log-density, and draws of it are the `draws` below."""
    return np.sum(stats.norm.logpdf(x), axis=1)


@pytest.fixture(scope="module")
def draws():
    return np.random.default_rng(0).standard_normal((NUMBER, DIM))


def estimate(region, draws, log_density):
    own = region.draw(np.random.default_rng(1), NUMBER)
    assert np.all(region.square(own) <= region.radius**2 * (1 + 1e-6))
    held = draws[region.holds(draws)]
    return share_of(*(log_density(x) - region.log_density(x) for x in (own, held)))


def test_a_share_is_the_number_of_draws_in_its_region(draws):
    """Of others than the regions are chosen by."""
    others = np.random.default_rng(2).standard_normal((400_000, DIM))
    for region in regions_of(draws, np.random.default_rng(3)):
        share = estimate(region, draws, normal)
        counted = region.holds(others).mean()
        assert share.is_precise
        error = np.hypot(share.error, np.sqrt(counted / len(others)))
        assert abs(share.value - counted) < 5 * error


def test_a_narrow_part_that_only_draws_see_makes_it_imprecise(draws):
    region = regions_of(draws, np.random.default_rng(3))[0]

    def spiked(x):
        """A tenth of it within 1e-4 of the middle."""
        spike = np.sum(stats.norm.logpdf(x, region.middle, 1e-4), axis=1)
        return np.logaddexp(normal(x) + np.log(0.9), spike + np.log(0.1))

    random = np.random.default_rng(4)
    narrow = region.middle + 1e-4 * random.standard_normal((NUMBER // 10, DIM))
    both = np.concatenate([draws[NUMBER // 10 :], narrow])
    assert estimate(region, draws, normal).is_precise
    assert not estimate(region, both, spiked).is_precise


def test_nothing_is_known_of_what_does_not_vary(draws):
    flat = draws * np.asarray([1.0, 0.0, 1.0])
    assert regions_of(flat, np.random.default_rng(0)) == []
    assert not share_of(np.full(8, -np.inf), np.zeros(1)).is_precise


def test_the_chance_of_a_count_is_that_of_a_binomial_number():
    exact = 2 * stats.binom.sf(69, 512, 0.1)
    assert chance_of_count(70, 512, 0.1, 0.0) == pytest.approx(exact)
    assert chance_of_count(70, 512, 0.1, 0.01) > 2 * exact
    assert chance_of_count(51, 512, 0.1, 0.0) == 1
    assert chance_of_count(10, 512, 7.0, 0.1) == 0  # a share that cannot be


def test_chances_are_uniform_where_the_share_is_right():
    random = np.random.default_rng(0)
    share, error = 0.1, 0.002
    counts = random.binomial(2048, share, 300)
    shares = share + error * random.standard_normal(len(counts))
    chances = [
        chance_of_count(int(count), 2048, float(known), error)
        for count, known in zip(counts, shares, strict=True)
    ]
    # 75 are expected, with a standard deviation of 7.5.
    assert 45 < np.sum(np.asarray(chances) < 0.25) < 105
