"""Distances between strings, and choices of strings that are far apart."""

import functools
import itertools

import numpy as np
import pytest

from didact.metrics.strings import edit_distance, hamming, mean_distance, most_diverse


def encode(*words: str) -> np.ndarray:
    return np.asarray([[ord(letter) for letter in word] for word in words])


@functools.cache
def levenshtein(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """By its definition."""
    if not a or not b:
        return max(len(a), len(b))
    return min(
        levenshtein(a[1:], b) + 1,
        levenshtein(a, b[1:]) + 1,
        levenshtein(a[1:], b[1:]) + (a[0] != b[0]),
    )


def test_known_edit_distances():
    assert edit_distance(encode("kitten"), encode("sitting")).tolist() == [[3]]
    assert edit_distance(encode("abcdef", "bcdefa"), encode("abcdef")).tolist() == [[0], [2]]
    assert hamming(encode("abcdef", "bcdefa"), encode("abcdef")).tolist() == [[0], [6]]


@pytest.mark.parametrize("lengths", [(7, 7), (3, 8), (8, 1)])
def test_edit_distances_follow_the_definition(lengths):
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 3, (12, length)) for length in lengths)
    expected = [[levenshtein(tuple(a), tuple(b)) for b in y.tolist()] for a in x.tolist()]
    np.testing.assert_array_equal(edit_distance(x, y), expected)


def test_many_strings_are_compared_in_parts(monkeypatch):
    x = np.random.default_rng(1).integers(0, 4, (9, 6))
    whole = edit_distance(x, x)
    monkeypatch.setattr("didact.metrics.strings._BLOCK", 20)
    np.testing.assert_array_equal(edit_distance(x, x), whole)


@pytest.mark.parametrize("distance", [hamming, edit_distance])
def test_distances_are_a_metric(distance):
    x = np.random.default_rng(2).integers(0, 3, (20, 6))
    between = distance(x, x)
    np.testing.assert_array_equal(between, between.T)
    np.testing.assert_array_equal(between == 0, np.all(x[:, None] == x, axis=2))
    assert np.all(between[:, None] <= between[:, :, None] + between[None])


def test_an_edit_is_at_most_as_long_as_the_replacements():
    x = np.random.default_rng(3).integers(0, 3, (20, 8))
    assert np.all(edit_distance(x, x) <= hamming(x, x))
    assert np.any(edit_distance(x, x) < hamming(x, x))


def test_no_strings():
    none, some = np.zeros((0, 5), int), np.zeros((2, 5), int)
    for distance in (hamming, edit_distance):
        assert distance(none, some).shape == (0, 2)
        assert distance(some, none).shape == (2, 0)


def test_places_of_strings_of_two_lengths_are_not_compared():
    with pytest.raises(ValueError, match="compare them by edit_distance"):
        hamming(np.zeros((2, 4), int), np.zeros((2, 5), int))


def test_the_mean_over_pairs():
    words = encode("aaaa", "aaaa", "aabb", "bbbb")
    assert mean_distance(words, hamming) == pytest.approx((0 + 2 + 4 + 2 + 4 + 2) / 6)
    assert mean_distance(encode("abcdef", "bcdefa")) == 2
    with pytest.raises(ValueError, match="give two items or more"):
        mean_distance(words[:1])


def test_items_are_chosen_far_apart():
    words = encode("aaaa", "aaab", "bbbb", "bbba", "aabb")
    assert most_diverse(words, hamming, 1).tolist() == [0]
    assert most_diverse(words, hamming, 3).tolist() == [0, 2, 4]
    assert sorted(most_diverse(words, hamming, 9).tolist()) == [0, 1, 2, 3, 4]
    assert most_diverse(words[:0], hamming, 3).tolist() == []
    with pytest.raises(ValueError, match="k must be >= 1"):
        most_diverse(words, hamming, 0)


def test_equal_items_are_chosen_last_and_once():
    words = encode("aaaa", "aaaa", "bbbb", "aaaa")
    assert most_diverse(words, hamming, 4).tolist() == [0, 2, 1, 3]


def test_the_choice_is_at_least_half_as_far_apart_as_the_best():
    points = np.random.default_rng(4).uniform(size=(12, 2))
    distance = lambda a, b: np.linalg.norm(a[:, None] - b, axis=2)  # noqa: E731
    between = distance(points, points)
    spread = lambda chosen: min(between[i, j] for i, j in itertools.combinations(chosen, 2))  # noqa: E731
    best = max(map(spread, itertools.combinations(range(12), 4)))
    assert spread(most_diverse(points, distance, 4)) >= best / 2
